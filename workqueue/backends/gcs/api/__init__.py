"""Stage 2: the JSON API of Cloud Storage, as far as the queue needs it.

Read `objects` first: one method a request, each pinned to the version that it is about. `requests` sends them, with
credentials and tries; `store_time` learns from the answers what time it is for the store.
"""
