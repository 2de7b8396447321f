"""Stage 2: the queue in the memory of one process: all semantics, nothing durable. Read `backend`, then `store`."""
