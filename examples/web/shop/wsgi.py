"""What gunicorn serves: `gunicorn --preload examples.web.shop.wsgi`."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

__all__ = ["application"]

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "examples.web.shop.settings")
application = get_wsgi_application()
