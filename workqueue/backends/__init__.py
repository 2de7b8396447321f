"""Stage 2: where keys live. `open_queue(url)` picks the backend by the URL's scheme and imports it only then."""

from __future__ import annotations

from workqueue.backends.url import QueueURL, open_queue

__all__ = ["QueueURL", "open_queue"]
