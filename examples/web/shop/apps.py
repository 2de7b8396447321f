"""Where the queue is, and what enqueues."""

from __future__ import annotations

from functools import cached_property, partial
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.db import transaction
from django.db.models.signals import post_save

from workqueue.sync import Queue, open_queue


class Shop(AppConfig):
    """The application."""

    name = "examples.web.shop"
    label = "shop"
    default_auto_field = "django.db.models.BigAutoField"

    @cached_property
    def queue(self) -> Queue:
        """Opened when it is first used, so after gunicorn's forks and in no `migrate`; closed when the process ends."""
        return open_queue(settings.WORKQUEUE_URL).__enter__()

    def ready(self) -> None:
        """Enqueue whatever changed."""
        post_save.connect(self.changed, sender=self.get_model("Customer"))

    def changed(self, instance: Any, **_: Any) -> None:
        """After the commit: before it, a reconciler could look at the row while nobody can see it yet."""
        transaction.on_commit(partial(self.enqueue, f"customer/{instance.pk}"))

    def enqueue(self, key: str) -> None:
        """Once this returns, the key is stored."""
        self.queue.queue(key)
