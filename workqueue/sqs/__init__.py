"""Stage 1: Amazon SQS: keys as messages, to be sent (`sink`) and, in `workqueue.sources.sqs`, to be received."""
