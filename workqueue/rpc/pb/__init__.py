"""The generated wire code of proto/workqueue.proto; `make proto` writes it."""
