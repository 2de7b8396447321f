"""Stage 2: the tables of a SQLite queue file.

A key is in `queued`, in `in_progress`, in both (its queued row is then a twin), and perhaps in `dead`. `place` says in
which of the partial indexes a queued row is, so that no step ever scans rows it cannot use: starts read `queued_ready`,
promotion reads `queued_due`, and twins and delayed keys are in neither's way.

Layout: `PRAGMA user_version`. A release works files of the layouts in `READABLE` and creates `LAYOUT`. When a layout
must change, a release first learns to work the new one (`READABLE`), and only the one after it writes it; so releases N
and N-1 always work one file together, and an older one refuses what it does not know.
"""

from __future__ import annotations

__all__ = [
    "ANYBODY",
    "APPLICATION_ID",
    "DELAYED",
    "FIRST_MARK",
    "LAYOUT",
    "LOG_MARK",
    "PAGE_BYTES",
    "READABLE",
    "READY",
    "STATEMENTS",
    "TWIN",
]

LAYOUT = 1
READABLE = (1,)
APPLICATION_ID = 0x776B7131  # "wkq1": a queue file, and not somebody else's database

PAGE_BYTES = 2048
"""The size of a page of a new file. A file that exists keeps its own, and is worked all the same.

Among a million keys each is on a page of its own in the index of names. That page goes into the log whole, once when
the key comes and once when it goes, and from there into the file. Pages of 1024 bytes halve that again, and cost more
CPU than they save: the trees are deeper, and SQLite looks at more of them.
"""

READY, DELAYED, TWIN = 0, 1, 2
"""`queued.place`: eligible; its not-before is to come; waiting for its own key's attempt to end."""

# One row per queue of the file: its stored settings, its starts saved up, and the counts that triggers keep.
_QUEUES = """
CREATE TABLE queues (
  id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
  concurrency INTEGER, paused INTEGER NOT NULL DEFAULT 0, starts_per_second REAL,
  saved_starts REAL NOT NULL DEFAULT 0, saved_at_us INTEGER NOT NULL DEFAULT 0,
  ready INTEGER NOT NULL DEFAULT 0, delayed INTEGER NOT NULL DEFAULT 0,
  twins INTEGER NOT NULL DEFAULT 0, dead_letters INTEGER NOT NULL DEFAULT 0)
"""

# `stamp` is new with every change of a row: it proves to a handle that the row is the one it listed. The checks are on
# what decides whether a key ever starts: a hand that slips in the sqlite3 shell is refused, not a key stuck for good.
_QUEUED = """
CREATE TABLE queued (
  id INTEGER PRIMARY KEY, queue INTEGER NOT NULL, key TEXT NOT NULL CHECK (typeof(key) = 'text'),
  place INTEGER NOT NULL CHECK (place IN (0, 1, 2)),
  priority INTEGER NOT NULL, attempts INTEGER NOT NULL, queued_us INTEGER NOT NULL, first_queued_us INTEGER NOT NULL,
  not_before_us INTEGER NOT NULL DEFAULT 0 CHECK (typeof(not_before_us) = 'integer'),
  floor INTEGER NOT NULL DEFAULT 0, stamp INTEGER NOT NULL DEFAULT 0, payload BLOB, meta TEXT)
"""

# The token is the primary key: who does not know it can neither settle nor renew. `expires_us` counts on the clock of
# the boot `boot`; a row of another boot is an orphan. `began_us` is wall time, for people.
_IN_PROGRESS = """
CREATE TABLE in_progress (
  token INTEGER PRIMARY KEY, queue INTEGER NOT NULL, key TEXT NOT NULL CHECK (typeof(key) = 'text'),
  priority INTEGER NOT NULL, attempts INTEGER NOT NULL, queued_us INTEGER NOT NULL, first_queued_us INTEGER NOT NULL,
  payload BLOB, meta TEXT, owner TEXT NOT NULL, boot INTEGER NOT NULL,
  expires_us INTEGER NOT NULL CHECK (typeof(expires_us) = 'integer'), began_us INTEGER NOT NULL DEFAULT 0)
"""

_DEAD = """
CREATE TABLE dead (
  id INTEGER PRIMARY KEY, queue INTEGER NOT NULL, key TEXT NOT NULL CHECK (typeof(key) = 'text'),
  priority INTEGER NOT NULL, attempts INTEGER NOT NULL, queued_us INTEGER NOT NULL, first_queued_us INTEGER NOT NULL,
  payload BLOB, meta TEXT, error TEXT NOT NULL, failed_us INTEGER NOT NULL, stamp INTEGER NOT NULL DEFAULT 0)
"""

ANYBODY = -2
"""The writer of a mark that whoever has the file open may fill; see `mark`."""

LOG_MARK = """
CREATE TABLE log_mark (
  id INTEGER PRIMARY KEY CHECK (id = 1), file_mtime_ns INTEGER, boot INTEGER NOT NULL, writer INTEGER NOT NULL)
"""
FIRST_MARK = f"INSERT OR IGNORE INTO log_mark VALUES (1, NULL, 0, {ANYBODY})"
"""With it, what makes the mark, which files of before the first release lack."""

_INDEXES = (
    "CREATE UNIQUE INDEX queued_key ON queued (queue, key)",
    f"CREATE INDEX queued_ready ON queued (queue, priority DESC, queued_us, key) WHERE place = {READY}",
    f"CREATE INDEX queued_due ON queued (queue, not_before_us) WHERE place = {DELAYED}",
    f"CREATE INDEX queued_twin ON queued (queue, key) WHERE place = {TWIN}",
    f"CREATE INDEX queued_since ON queued (queue, max(queued_us, not_before_us)) WHERE place = {READY}",
    "CREATE INDEX queued_attempts ON queued (queue, attempts) WHERE attempts > 0",
    "CREATE UNIQUE INDEX in_progress_key ON in_progress (queue, key)",
    "CREATE INDEX in_progress_lease ON in_progress (queue, boot, expires_us)",
    "CREATE UNIQUE INDEX dead_key ON dead (queue, key)",
    "CREATE INDEX dead_page ON dead (queue, id)",
)

# Counts are kept by triggers rather than by the steps, so that they stay right when an operator deletes rows by hand.
_TRIGGERS = (
    f"""
CREATE TRIGGER queued_in AFTER INSERT ON queued BEGIN UPDATE OR ROLLBACK queues SET
  ready = ready + (NEW.place = {READY}),
  delayed = delayed + (NEW.place = {DELAYED}),
  twins = twins + (NEW.place = {TWIN})
  WHERE id = NEW.queue; END
""",
    f"""
CREATE TRIGGER queued_out AFTER DELETE ON queued BEGIN UPDATE OR ROLLBACK queues SET
  ready = ready - (OLD.place = {READY}),
  delayed = delayed - (OLD.place = {DELAYED}),
  twins = twins - (OLD.place = {TWIN})
  WHERE id = OLD.queue; END
""",
    f"""
CREATE TRIGGER queued_moved AFTER UPDATE OF place ON queued WHEN OLD.place <> NEW.place BEGIN
  UPDATE OR ROLLBACK queues SET
  ready = ready + (NEW.place = {READY}) - (OLD.place = {READY}),
  delayed = delayed + (NEW.place = {DELAYED}) - (OLD.place = {DELAYED}),
  twins = twins + (NEW.place = {TWIN}) - (OLD.place = {TWIN})
  WHERE id = NEW.queue; END
""",
    """
CREATE TRIGGER dead_in AFTER INSERT ON dead BEGIN UPDATE OR ROLLBACK queues SET
  dead_letters = dead_letters + 1 WHERE id = NEW.queue; END
""",
    """
CREATE TRIGGER dead_out AFTER DELETE ON dead BEGIN UPDATE OR ROLLBACK queues SET
  dead_letters = dead_letters - 1 WHERE id = OLD.queue; END
""",
)

STATEMENTS = (_QUEUES, _QUEUED, _IN_PROGRESS, _DEAD, *_INDEXES, *_TRIGGERS, LOG_MARK, FIRST_MARK)
"""What makes them all."""
