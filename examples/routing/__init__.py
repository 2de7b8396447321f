"""Several handlers behind one queue: by the type of a key, by what a message says, in another language."""
