"""What happens to a key: the dispatcher takes keys from a workqueue, calls the reconciler and settles the result."""
