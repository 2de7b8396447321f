"""Stage 1: producers of keys: each watches something and enqueues the keys that have to look at it."""
