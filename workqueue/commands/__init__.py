"""For programs: the commands of `workqueue`, a file for what each group of them is about."""
