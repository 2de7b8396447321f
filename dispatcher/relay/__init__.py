"""HTTP store-and-forward: a request is on disk before it is acknowledged, and is sent until its target takes it.

It stands on the dispatcher: a request is a key with a payload, and sending it is a callback. Read `intake` first, then
`delivery` and `lanes`.
"""
