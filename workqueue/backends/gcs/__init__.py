"""Stage 2: the queue in a bucket of Google Cloud Storage, laid out as the Go implementation does.

Read `backend` first: it has the verbs. `metadata` says what an object holds, `moves` takes a key from place to place,
`listing` knows what is queued, and `leasing` makes one lease step of them.
"""
