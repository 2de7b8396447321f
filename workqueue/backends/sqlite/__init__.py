"""Stage 2: the queue in a SQLite file: durable, for several processes of one machine.

Read `backend` first: it has the verbs. `store` and `leasing` have the steps that change the file, `writer` commits them
in groups, `reads` lists and counts, and `schema` has the tables.
"""
