"""Folders of manifests, reconciled: the example behind `make run`."""
