"""Stage 3: what this process knows of a bucket without asking again.

Read `listing` first: it answers what is in progress and what may start. `running` is one look at what is in progress.
`lister` lists the queued keys now and then; `kept` holds them in the order in which they start, `packed` as one small
record each, and `overlay` what this process did to them since.
"""
