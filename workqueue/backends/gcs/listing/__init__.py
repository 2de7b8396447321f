"""Stage 3: what this process knows of a bucket without asking again.

Read `listing` first: it answers what is in progress and what may start. `running` is one look at what is in progress;
`kept` holds the queued keys in the order in which they start.
"""
