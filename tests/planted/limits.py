"""Bugs in the limits, the settings, the counts and the wake-ups. Who does not promise these cannot break them."""

from __future__ import annotations

from tests.planted.places import (
    GCS,
    GENERIC,
    HEAPS,
    KEPT,
    LEASING,
    MEMORY,
    READY,
    SQL,
    SQL_LEASE,
    SQL_READS,
    bug,
    gcs,
    memory,
    python,
    record,
    redis,
    sqlite,
)
from tests.planted.planting import Bug
from tests.planted.rules import rule

THROTTLE = "workqueue.throttle:"
STORED = "workqueue.backends.gcs.stored_settings:"

LIMITS = [
    bug(
        "keys in progress are not counted against the concurrency",
        "limits: a lease step stays within the concurrency",
        python(THROTTLE + "Configuration.room", " - running", ""),
        redis("", "limit_for(CONCURRENCY) - call('ZCARD', LEASES)", "limit_for(CONCURRENCY)"),
        record(GENERIC + "_Completed.lease", "request.concurrency - live", "request.concurrency"),
        gcs(LEASING + "_hand_back_surplus", "if not self._started:", "if True:"),
    ),
    bug(
        "a lease step starts one key too many",
        "limits: a lease step starts no more than its limit",
        memory(HEAPS + "lease", "min(request.limit,", "min(request.limit + 1,"),
        sqlite(SQL_LEASE + "lease", "min(request.limit,", "min(request.limit + 1,"),
        redis("", "math.min(LIMIT,", "math.min(LIMIT + 1,"),
        record(GENERIC + "_Completed.lease", "min(request.limit,", "min(request.limit + 1,"),
        record(GENERIC + "_Completed.lease", "enumerate(request.limit)", "enumerate(request.limit + 1)"),
        gcs(LEASING + "_room", "min(request.limit,", "min(request.limit + 1,"),
    ),
    bug(
        "counting the room and starting keys are two steps",
        "limits: racing dispatchers never exceed the concurrency [3]",
        memory(HEAPS + "lease", "store.promote(now_us)", "await __import__('asyncio').sleep(0)"),
    ),
    bug(
        "a pause is not honoured",
        "settings: a paused queue starts nothing until it is resumed",
        python(THROTTLE + "Configuration.room", "0 if self.paused else ", ""),
        redis("", "if paused then return 0 end", ""),
    ),
    rule(
        "the stored concurrency is not honoured",
        "settings: the lower of the two concurrencies holds",
        THROTTLE + "Configuration.limit",
        ("if self.concurrency is None", "if True"),
        ("return math.min(concurrency, concurrency_stored or concurrency)", "return concurrency"),
    ),
    rule(
        "starts are not taken from what was saved up",
        "settings: starts per second hold over all dispatchers",
        THROTTLE + "TokenBucket.spent",
        ("self.saved - starts", "self.saved"),
        ("save_starts(saved_starts() - #keys)", "save_starts((saved_starts()))"),
    ),
    bug(
        "starts are saved up for ever",
        "settings: starts not used are saved up for one second only",
        python(THROTTLE + "_most", "max(rate, 1.0)", "10 * rate"),
        redis("", "/ 1000000, most)", "/ 1000000, 10 * rate)"),
    ),
    bug(
        "configuring again refills the starts",
        "settings: saying the same settings again does not refill the starts",
        memory(
            MEMORY + "configure",
            "if configuration.starts_per_second != self.configuration.starts_per_second:",
            "if True:",
        ),
        sqlite(SQL + "_REFILL", "AND starts_per_second IS NOT :rate", ""),
        redis("configure", "~= rate then", "~= 0 then"),
        gcs(STORED + "StoredSettings.write", "rate != configuration_of(before).starts_per_second", "True"),
    ),
    bug(
        "twins are counted as eligible",
        "counts: a key is counted where it is",
        memory(MEMORY + "counts", "- self._twins", ""),
        sqlite(SQL_READS + "View.counts", 'queued=ready + row["due"]', 'queued=ready + twins + row["due"]'),
        redis("counts", "ready + due, call", "ready + due + 1, call"),
        gcs(GCS + "counts", "queued=kept.startable", "queued=kept.startable + len(kept.twins)"),
    ),
    bug(
        "the longest wait is counted from the enqueue of a key that had to wait",
        "counts: the longest wait is that of the key that could have been started first",
        memory(READY + "_Lane.add", "entry.not_before_us > entry.queued_us", "False"),
        memory(READY + "ReadyIndex.add", "entry.not_before_us > entry.queued_us", "False"),
        sqlite(SQL_READS + "_COUNT", "SELECT not_before_us FROM queued", "SELECT queued_us FROM queued"),
        redis("counts", "math.max(queued, not_before)", "queued"),
        redis("counts", "math.min(whole_us(tonumber(due[2])), wall)", "0"),
        gcs(KEPT + "Kept._startable", "max(entry.queued_us, entry.not_before_us)", "entry.queued_us"),
        gcs(KEPT + "Kept.promote", "max(due_us, ", "max(0, "),
    ),
    bug(  # a bucket's wait may return early, after its listing, so there the bug is not seen every time
        "an enqueue wakes nobody",
        "waiting: an enqueue wakes whoever waits",
        memory("workqueue.backends.waiters:Waiters.wake", "if not waiter.done():", "if False:"),
        sqlite("workqueue.backends.sqlite.waiting:Waiting.note", "list(self._waiters)", "()"),
        redis("enqueue", "wake(#keys == 1 and #others == 0 and ready == 1 and not rate and start_for or nil)", ""),
    ),
]

WAKES = [
    bug(
        "a resume wakes nobody on the handle that it came through",
        "waiting: a resume through the handle that waits wakes it",
        memory(MEMORY + "configure", "self.waiters.wake()", "pass"),
        sqlite(SQL + "Store.configure", "self.changed |= Change.ROOM | Change.ELIGIBLE", "pass"),
        redis("configure", "wake_all()\nreturn limits", "return limits"),
        gcs(GCS + "configure", "self._waiters.wake()", "pass"),
    ),
]

LIMIT_BUGS: list[Bug] = [*LIMITS, *WAKES]
