"""The reconciler: `dispatcher serve --callback examples.web.shop.reconcile:reconcile`.

It is a plain function, which the dispatcher calls in a thread: Django's database calls block.
"""

from __future__ import annotations

import os

import django
from django.apps import apps

from workqueue import Attempt

__all__ = ["reconcile"]

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "examples.web.shop.settings")
django.setup()


def reconcile(key: str, attempt: Attempt) -> None:
    """Welcome the customer as the database has them now."""
    customer = apps.get_model("shop", "Customer").objects.get(pk=key.removeprefix("customer/"))
    print(f"welcome, {customer.name}", flush=True)
