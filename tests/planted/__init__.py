"""Bugs that somebody could write, planted one at a time: a suite that does not catch them is not worth its name."""
