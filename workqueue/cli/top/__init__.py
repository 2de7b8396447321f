"""The command `top`: a queue as it is now, again and again."""
