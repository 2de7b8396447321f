"""Servers of our own that tests talk to over real sockets, at least as strict as the services they stand for."""
