"""A Kubernetes operator: see `__main__`."""
