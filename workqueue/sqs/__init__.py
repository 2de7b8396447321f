"""Stage 1: Amazon SQS: keys as messages, to be sent (`SQSSink`) and, in `workqueue.sources.sqs`, to be received."""

from __future__ import annotations

from workqueue.sqs.address import Address
from workqueue.sqs.sink import SQSSink

__all__ = ["Address", "SQSSink"]
