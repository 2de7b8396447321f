"""Bugs in renewal, on the wire, in settles, in the rules of the vocabulary, and in what people are shown.

They are the same on every backend, and a test of their own room catches each.
"""

from __future__ import annotations

from tests.planted.dispatching import SETTLE, DispatchBug
from tests.planted.planting import Edit

RENEWER = "workqueue.lease:LeaseRenewer."
WIRE = "workqueue.rpc.wire:"
STATUSES = "workqueue.rpc.statuses:"
LEASES = "tests.test_lease:test_"
ON_THE_WIRE = "tests.rpc.test_wire:test_"
ERRORS = "tests.rpc.test_statuses:test_"
ON_DISK = "tests.backends.sqlite.test_disk:test_"
SETTLES = "tests.dispatcher.test_settle:test_"


def bug(name: str, caught_by: str, where: str, old: str, new: str, *arguments: object) -> DispatchBug:
    return DispatchBug(name, caught_by, (Edit(where, old, new),), arguments)


RENEWAL = [
    bug(
        "a lease that has lapsed is renewed, and revived",
        LEASES + "a_renewal_that_comes_too_late_is_not_sent",
        RENEWER + "tick",
        "    self._expire(now_us)\n    if now_us >=",
        "    if now_us >=",
    ),
    bug(
        "the deadline counts from when the renewal was answered",
        LEASES + "an_answer_that_takes_longer_than_the_lease_does_not_keep_it",
        RENEWER + "_renew_all",
        "lease.deadline_us = sent_us + ",
        "lease.deadline_us = self._clock.steady_us() + ",
    ),
    bug(
        "a renewal that failed is tried again a whole period later",
        LEASES + "a_store_that_is_down_for_a_while_is_asked_again_at_every_tick",
        RENEWER + "_renew_all",
        "    else:\n        self._due_us",
        "    if True:\n        self._due_us",
    ),
    bug(
        "a start that was answered after its lease had lapsed is used",
        LEASES + "a_lease_whose_start_is_answered_after_its_deadline_is_lost_before_it_is_used",
        RENEWER + "hold_all",
        "self._clock.steady_us() >= deadline_us",
        "self._clock.steady_us() >= deadline_us + self._margin_us",
        14,
        True,
    ),
    bug(
        "a key that was settled while its renewal was under way is reported lost",
        LEASES + "a_key_settled_while_its_renewal_is_under_way_is_not_lost",
        RENEWER + "_renew_all",
        "if lease in self._held:",
        "if True:",
    ),
    bug(
        "a renewal may take as long as the lease that lapses last",
        LEASES + "a_renewal_is_given_no_more_time_than_the_first_lease_has_left",
        RENEWER + "_renew_all",
        "min(lease.deadline_us",
        "max(lease.deadline_us",
    ),
    bug(
        "a lease of which the store said nothing counts as renewed",
        LEASES + "a_lease_of_which_the_store_says_nothing_is_asked_for_again_and_lost_at_its_deadline",
        RENEWER + "_renew_all",
        "for lease in renewed.kept:",
        "for lease in {*batch} - {*renewed.lost}:",
    ),
    bug(
        "leases of an event loop that ended are renewed for ever",
        LEASES + "leases_of_an_event_loop_that_stopped_are_renewed_for_two_leases",
        RENEWER + "_has_loop_ended",
        "> 2 * self.times",
        "> 200 * self.times",
        31,
        True,
    ),
    bug(
        "a renewer that stands still is healthy",
        LEASES + "a_renewer_whose_thread_stands_still_for_a_lease_has_stalled",
        RENEWER + "stalled",
        "> self.times.duration_us",
        "> 10**18",
    ),
    bug(
        "closing a queue takes its keys from their callbacks",
        LEASES + "closing_stops_renewal_without_losing_anything",
        RENEWER + "close",
        "self._held.clear()",
        "self._let_go('closed')",
    ),
    bug(
        "who subscribes to a lease that is lost already is not called",
        LEASES + "lost_calls_each_subscriber_once_whenever_it_subscribed",
        "workqueue.lease:Lost.subscribe",
        "if self._set:",
        "if False:",
    ),
    bug(
        "a renewal may come as late as the lease lapses",
        LEASES + "a_lease_that_could_not_be_renewed_in_time_is_refused",
        "workqueue.lease:LeaseTimes.__post_init__",
        "<= self.duration / 2",
        "<= self.duration",
        15,
        8,
    ),
]

ON_WIRE = [
    bug(
        "a delay is cut to whole seconds, so that a key runs too early",
        ON_THE_WIRE + "a_delay_is_rounded_up_to_whole_seconds",
        WIRE + "whole_seconds",
        "-(-delay // _SECOND)",
        "delay // _SECOND",
        1001,
        2,
    ),
    bug(
        "a not-before that has passed becomes a delay",
        ON_THE_WIRE + "a_not_before_that_has_passed_is_none",
        WIRE + "whole_seconds",
        "if delay > timedelta(0) else 0",
        "if delay > timedelta(0) else 1",
    ),
    bug(
        "a floor is lost on the way",
        ON_THE_WIRE + "a_floor_is_refused_instead_of_lost",
        WIRE + "refuse_floor",
        "if options.not_before_floor:",
        "if False:",
    ),
    bug(
        "a floor that a reconciler asks for is read as a plain delay",
        ON_THE_WIRE + "a_floor_and_the_longest_delay_are_understood",
        WIRE + "outcome_of",
        "RequeueNotBefore if response.requeue_floor else RequeueAfter",
        "RequeueAfter",
    ),
    bug(
        "keys to queue win over a requeue, unlike in Go",
        ON_THE_WIRE + "a_requeue_wins_over_keys_to_queue",
        WIRE + "outcome_of",
        "if seconds > 0:",
        "if seconds > 0 and not response.queue_keys:",
    ),
    bug(
        "a not-before is reported as earlier than it is",
        ON_THE_WIRE + "a_state_travels_in_unix_seconds_with_its_not_before_rounded_up",
        WIRE + "state_message_of",
        "math.ceil(state.not_before",
        "int(state.not_before",
    ),
    bug(
        "Go's zero time is read as a date",
        ON_THE_WIRE + "a_time_that_is_not_positive_is_none",
        WIRE + "_unix",
        "if seconds > 0 else",
        "if seconds else",
        -1,
    ),
    bug(
        "an error of any length travels with a state",
        ON_THE_WIRE + "a_state_of_a_dead_letter_says_at_most_512_bytes_of_why",
        WIRE + "state_message_of",
        "cut(state.last_error or state.error, MAX_LAST_ERROR_BYTES)",
        "state.last_error or state.error",
    ),
    bug(
        "a final error loses its reason",
        ERRORS + "a_final_error_sends_its_reason_beside_its_text",
        STATUSES + "of_attempt",
        "_cut(reason_of(error))",
        "_cut(said(error))",
    ),
    bug(
        "a reconciler's own trouble reads as a reconciler that is down",
        ERRORS + "an_outage_behind_the_reconciler_is_told_from_an_outage_of_the_reconciler",
        STATUSES + "of_attempt",
        "_detailed(grpc.StatusCode.UNAVAILABLE, said(error), _mark(_INFRASTRUCTURE))",
        "Refusal(grpc.StatusCode.UNAVAILABLE, said(error))",
    ),
    bug(
        "the text of an error overflows the trailers",
        ERRORS + "the_trailers_of_the_longest_error_fit_in_a_header",
        STATUSES + "_cut",
        "cut(text, MAX_TEXT_BYTES)",
        "text",
    ),
    bug(
        "an error travels without its class",
        ERRORS + "any_other_error_names_its_class",
        STATUSES + "of_attempt",
        "_cut(describe(error))",
        "_cut(str(error))",
    ),
]

RULES = [
    bug(
        "a clock that went back takes saved-up starts away",
        "tests.test_throttle:test_a_clock_that_went_back_refills_nothing_and_stops_nothing",
        "workqueue.throttle:TokenBucket.refilled",
        "max(now_us - self.at_us, 0)",
        "(now_us - self.at_us)",
    ),
    bug(
        "after the wait for a start, not quite one is saved up",
        "tests.test_throttle:test_after_the_wait_one_start_is_saved_up",
        "workqueue.throttle:TokenBucket.wait_us",
        "/ rate) + 1, 0)",
        "/ rate) - 1, 0)",
        0.0,
        2.0,
    ),
    bug(
        "keys that failed together come back together",
        "tests.test_backoff:test_keys_that_failed_together_are_spread",
        "workqueue.backoff:exponential",
        "base * (rand() / 2)",
        "base * 0",
    ),
    bug(
        "a floor has no cap",
        "tests.test_outcomes:test_a_floor_is_capped_jitter_included",
        "workqueue.outcomes:RequeueNotBefore.next_delay",
        "min(super().next_delay(), MAX_FLOOR)",
        "RequeueAfter.next_delay(self)",
    ),
    bug(
        "a key is stored for a queue whose event loop has ended",
        "tests.test_home:test_a_queue_whose_loop_has_ended_is_refused_on_the_next_loop_of_the_same_thread",
        "workqueue.backends.memory.backend:MemoryQueue.queue",
        " or not home.is_running()",
        "",
    ),
    bug(
        "a queue that was closed is entered again, and renews no lease",
        "tests.test_home:test_a_queue_is_entered_once",
        "workqueue.home:Home.enter",
        "if self.is_running is not _never:",
        "if False:",
    ),
    bug(
        "the fallbacks wait on a queue that was never entered",
        "tests.test_home:test_what_the_fallbacks_do_themselves_is_refused_too",
        "workqueue.fallbacks:_Completed.configuration",
        "    self._check_home()\n",
        "",
        "configuration",
    ),
]

IN_SETTLES = [
    bug(
        "a settle gives up while its lease is still kept",
        SETTLES + "a_settle_waits_as_long_as_its_lease_is_kept",
        SETTLE + "_is_patient",
        "if isinstance(error, StoreError) else",
        "if False else",
    ),
    bug(
        "keys that an attempt asks for are stored at the first try or not at all",
        SETTLES + "keys_that_an_attempt_asks_for_wait_for_the_store_too",
        SETTLE + "_store_keys",
        "await self._again(run, error, store)",
        "raise",
    ),
]

SHOWN = [
    bug(
        "a text is cut in the middle of a character",
        "tests.test_safe_text:test_long_texts_are_cut_at_a_character_and_say_so",
        "workqueue.safe_text:cut",
        '[: most_bytes - 3].decode("utf-8", "ignore")',
        '[: most_bytes - 3].decode("utf-8", "replace")',
        "🦊" * 5000,
    ),
    bug(
        "a name turns the terminal's text around",
        "tests.test_safe_text:test_what_would_move_hide_or_reorder_text_is_shown_escaped",
        "workqueue.safe_text:visible",
        "_HARMFUL.sub(lambda found: found[0]",
        "__import__('re').compile('[\\x00-\\x1f]').sub(lambda found: found[0]",
        "a\u202eb",
        "a\\u202eb",
    ),
    bug(
        "a password with an @ in it is printed",
        "tests.test_safe_text:test_a_url_is_shown_without_its_password_however_it_is_spelled",
        "workqueue.safe_text:shown_url",
        "_end_of_userinfo(rest, authority, local=local)",
        "rest.find('@') + 1 and rest.find('@')",
        "redis://app:p@ss@h/0",
        "redis://app:***@h/0",
    ),
]

STORES = [
    bug(
        "a merge in a bucket overwrites one that came between",
        "tests.backends.gcs.test_merges:test_an_enqueue_that_merges_with_what_has_changed_meanwhile_merges_anew",
        "workqueue.backends.gcs.api.objects:Objects.patch",
        "{if_match(pin)}",
        "ifGenerationMatch={pin.generation}",
    ),
    bug(
        "a Redis dispatcher that leaves takes its wake-up along",
        "tests.backends.redis.test_wakeups:"
        "test_a_dispatcher_that_leaves_with_a_wake_up_that_it_has_not_heard_passes_it_on",
        "lua:leave",
        "then wake() end",
        "then end",
    ),
    bug(
        "a lease request that Redis had announced stays announced when it is sent",
        "tests.backends.redis.test_announced:"
        "test_a_request_that_another_on_the_handle_has_sent_is_not_answered_by_a_wake_up",
        "lua:lease",
        "if OFFERED_BY then call('DEL', OFFER .. OFFERED_BY) end",
        "",
    ),
    bug(
        "a key that a lost wake-up brought has the lease of then when it is asked for",
        "tests.backends.redis.test_announced:"
        "test_a_wake_up_that_loses_what_it_brings_costs_neither_the_key_nor_an_attempt",
        "lua:lease",
        "if is_ours and OFFERED_BY then call('ZADD', LEASES, 'XX', EXPIRY, key) end",
        "",
    ),
    bug(
        "the lease of a key that a wake-up brought counts from when it is taken",
        "tests.backends.redis.test_announced:test_a_key_that_its_owner_takes_too_late_is_lost_at_once",
        "workqueue.backends.redis.announced:Announced.answered_us",
        "min(self.sent_us + passed_us, now_us)",
        "now_us",
    ),
    bug(
        "Redis's time is taken in whole seconds",
        "tests.backends.test_real_clocks:test_keys_of_one_second_start_in_the_order_in_which_they_came",
        "lua:enqueue",
        "wall = time[1] * 1000000 + time[2]",
        "wall = time[1] * 1000000",
        "redis",
    ),
    bug(
        "a bucket's time is taken for the second that its answers say",
        "tests.backends.gcs.test_leases:test_one_answer_alone_tells_the_store_s_time_to_half_a_second",
        "workqueue.backends.gcs.api.store_time:StoreTime._narrow",
        "self._apart_us = (least_us + most_us) // 2",
        "self._apart_us = least_us",
    ),
    bug(
        "an owner whose Redis was emptied reads that another owner has its key",
        "tests.backends.redis.test_faults:"
        "test_the_owner_of_a_key_learns_that_its_store_was_emptied_and_not_that_another_has_the_key",
        "workqueue.backends.redis.backend:RedisQueue.configuration",
        "    self._birth.look(born)\n",
        "",
    ),
    DispatchBug(
        "an enqueue into SQLite is answered before the disk has it",
        ON_DISK + "enqueues_and_settles_wait_for_the_disk_and_starts_do_not",
        (
            Edit(
                "workqueue.backends.sqlite.commit:Commits._committed", "if self._file.fsync else []", "if False else []"
            ),
        ),
        named={"synchronous": "full", "expected": [1, 1, 2]},
    ),
    bug(
        "SQLite goes on after a sync that failed as if the disk had it all",
        ON_DISK + "after_a_sync_that_failed_nothing_is_stored_until_the_log_is_in_the_file",
        "workqueue.backends.sqlite.wal:Log.doubt",
        "self._has_written_all_back()",
        "True",
    ),
]

VOCABULARY_BUGS = [*RENEWAL, *ON_WIRE, *RULES, *IN_SETTLES, *SHOWN, *STORES]
