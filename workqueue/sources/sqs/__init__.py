"""Stage 1: messages of an SQS queue become keys."""

from __future__ import annotations

from workqueue.sources.sqs.keys import KeyOf, Message, own_or_number, parse_key
from workqueue.sources.sqs.source import SQSMetrics, SQSSettings, SQSSource

__all__ = ["KeyOf", "Message", "SQSMetrics", "SQSSettings", "SQSSource", "own_or_number", "parse_key"]
