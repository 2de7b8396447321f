"""The settings of the project: one application, one table."""

from __future__ import annotations

import os

SECRET_KEY = os.environ.get("SECRET_KEY", "of an example")
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "examples.web.shop.urls"
INSTALLED_APPS = ["examples.web.shop.apps.Shop"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ.get("SHOP_DB", "shop.db")}}
WORKQUEUE_URL = os.environ.get("WORKQUEUE_URL", "sqlite:///workqueue.db")
