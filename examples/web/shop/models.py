"""The one table."""

from __future__ import annotations

from django.db import models


class Customer(models.Model):
    """Somebody who is to be welcomed."""

    name: models.CharField[str, str] = models.CharField(max_length=100)
