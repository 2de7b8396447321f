"""The `workqueue` program. Read `app` first: it lists the commands; each other file has those of one subject."""
