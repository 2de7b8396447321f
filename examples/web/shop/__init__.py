"""A Django project that enqueues a key after each commit that changed a customer."""
