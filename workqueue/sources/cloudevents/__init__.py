"""Stage 1: keys from CloudEvents: an HTTP receiver that says yes only to what is stored.

app = Subscription(queue, KeyOf.parse("{source}/{data.name}"), filters=[parse_filter("type^=com.example.")]).app()
"""

from __future__ import annotations

from workqueue.sources.cloudevents.event import Event, UnparsableEventError, read_batch, read_event
from workqueue.sources.cloudevents.fields import Field, KeyOf, UnkeyedEventError
from workqueue.sources.cloudevents.filters import Filter, parse_filter
from workqueue.sources.cloudevents.metrics import EventMetrics
from workqueue.sources.cloudevents.receiver import Subscription
from workqueue.sources.cloudevents.unparsable import Unparsable

__all__ = [
    "Event",
    "EventMetrics",
    "Field",
    "Filter",
    "KeyOf",
    "Subscription",
    "UnkeyedEventError",
    "Unparsable",
    "UnparsableEventError",
    "parse_filter",
    "read_batch",
    "read_event",
]
