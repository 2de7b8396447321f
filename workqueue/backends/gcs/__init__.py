"""Stage 2: the queue in a bucket of Google Cloud Storage, laid out as the Go implementation does.

Read `backend` first: it has the verbs. `metadata` says what an object holds, `moves` takes a key from place to place,
and `leasing` makes one lease step of them. Below are three rooms: `api` (requests to Cloud Storage), `listing` (what is
known of the bucket between requests) and `sharing` (several dispatchers on one bucket).
"""

from __future__ import annotations

from workqueue.extras import require

__all__: list[str] = []

require("gcs", "gs://")
