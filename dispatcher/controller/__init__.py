"""Kubernetes controllers: sources, a queue and a dispatcher in one process. Read `controller` first."""
