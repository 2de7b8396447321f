"""Stage 1: schedules: keys that are enqueued when their time comes, by cron lines or at intervals.

A schedule is a key itself, in a queue beside the one it feeds. Its payload is the definition, its meta has the last
tick, its not-before is the next. Its lease makes firing single over any number of processes, so that nobody leads.
"""

from __future__ import annotations

from workqueue.sources.schedules.firing import Firing, ScheduleMetrics
from workqueue.sources.schedules.schedule import MISSED, Missed, Schedule
from workqueue.sources.schedules.shelf import Shelf, Shelved, schedules_url

__all__ = ["MISSED", "Firing", "Missed", "Schedule", "ScheduleMetrics", "Shelf", "Shelved", "schedules_url"]
