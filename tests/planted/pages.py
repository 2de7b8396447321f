"""Bugs in pages: a key that is skipped, or shown twice."""

from __future__ import annotations

from tests.planted.places import KEPT, PACKED, READY, bug, gcs, memory, record, redis, sqlite
from tests.planted.planting import Edit

SCAN = "workqueue.page_scan:"
SQL_PAGES = "workqueue.backends.sqlite.pages:"

TIES_PASSED = "low = low + call('ZCOUNT', zset, score, score)\n  local high = low --"

PAGE_BUGS = [
    bug(
        "a page begins with the last key of the one before",
        "paging: eligible keys are paged in the order in which they start",
        memory(READY + "_Lane.after", "bisect.bisect_right", "bisect.bisect_left"),
        sqlite(SQL_PAGES + "_READY_TIED", "key > CAST", "key >= CAST"),
        redis("page_queued", "ARGV[8], true)", "ARGV[8], false)"),
        gcs(PACKED + "record_behind", " + _BEHIND_ALL", ""),
        record(SCAN + "scan_page", "place_of(key) > after", "place_of(key) >= after"),
    ),
    bug(
        "a page skips what was queued at the same time as the last key of the one before",
        "paging: keys queued at the same time are paged by name",
        memory(READY + "_Lane.after", "self.in_order, place, key", "self.in_order, (place[0] + 1, ''), key"),
        sqlite(SQL_PAGES + "_eligible", "(_READY_TIED, _READY_SAME", "(_READY_SAME"),
        redis("page_queued", "local high = low + call", TIES_PASSED),
        gcs(PACKED + "record_behind", 'key.encode("utf-8", "surrogateescape") + _END_OF_KEY + ', ""),
        record(SCAN + "scan_page", "place_of(key) > after", "place_of(key)[:-1] > after[:-1]"),
    ),
    bug(
        "a page ends with its priority",
        "paging: eligible keys are paged in the order in which they start",
        memory(READY + "ReadyIndex.after", "if len(found) >= limit", "if found"),
        sqlite(SQL_PAGES + "_eligible", "_READY_SAME, _READY_LOWER", "_READY_SAME"),
        redis("page_queued", "list_lanes('(' .. int(-tonumber(priority)))", ""),
        gcs(
            KEPT + "Kept.behind",
            "for head, rest in self._runs",
            "for head, rest in self._runs if head[:8] == after[:8]",
        ),
    ),
    bug(
        "pages of delayed keys skip those of one moment",
        "paging: keys delayed to one moment are each on one page",
        sqlite(SQL_PAGES + "page_of", "(_LATER_TIED, _LATER)", "(_LATER,)"),
        redis("page_scored", "local high = low + call", TIES_PASSED),
        gcs(KEPT + "Kept.later", " + after", ' + b"\\xff"'),
    ),
    bug(
        "dead letters are paged from the first one on",
        "paging: dead letters are paged from the last one on",
        sqlite(SQL_PAGES + "_DEAD", "ORDER BY id DESC", "ORDER BY id"),
        memory("workqueue.backends.memory.pages:_failed", "-letter.failed_us", "letter.failed_us"),
        redis("page_scored", "above - 1, -1)", "above - 1, 1)"),
        gcs("workqueue.backends.gcs.pages:_failed_position", "-letter_of", "letter_of"),
    ),
    bug(
        "a cursor is taken for one of any place",
        "paging: a cursor of another place is refused",
        ("all", Edit("workqueue.paging:PageRequest.position", "place != self.place or not fits", "not fits")),
    ),
]
