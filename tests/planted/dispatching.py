"""Bugs in what happens to a key between its start and its settle. They are the same on every backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.planted.planting import Edit

SETTLE = "dispatcher.settle:Settling."
OUTCOME = "dispatcher.decision:"
ATTEMPT = "dispatcher.attempt:Attempts."
RUN = "dispatcher.running:CallbackRun."
OUTAGE = "dispatcher.outage:Outage."
ROUND = "tests.dispatcher.test_round:test_"
LOOP = "tests.dispatcher.test_loop:test_"
RUN_TIME = "tests.dispatcher.test_run_time:test_"
OUTAGES = "tests.dispatcher.test_outage:test_"
DOWN = "tests.dispatcher.test_target_down:test_"
GATE = "tests.dispatcher.test_gate:test_"
OTHERS = "tests.dispatcher.test_cancelled_callback:test_"
LEASING = "tests.dispatcher.test_leasing:test_"
STEPS = "dispatcher.leasing:LeaseSteps."
CANCELLATION = "tests.dispatcher.test_cancellation:test_"


@dataclass(frozen=True)
class DispatchBug:
    """A mistake somebody could make, and the test, called with `arguments`, that must not let it pass."""

    name: str
    caught_by: str
    edits: tuple[Edit, ...]
    arguments: tuple[object, ...] = ()
    named: Mapping[str, Any] = field(default_factory=dict)  # arguments too; the test's others are fixtures


DISPATCH_BUGS = [
    DispatchBug(
        "a key completes before the keys that it asked for are stored",
        ROUND + "keys_asked_for_are_stored_before_the_asking_key_completes",
        (
            Edit(
                SETTLE + "settle",
                "    if decision.keys:\n        decision = await",
                "    if False:\n        decision =",
            ),
            Edit(
                SETTLE + "settle",
                "    self._report(",
                "    await self._store_keys(run, decision)\n    self._report(",
            ),
        ),
    ),
    DispatchBug(
        "a key whose children could not be stored completes all the same",
        ROUND + "an_attempt_whose_keys_cannot_be_stored_has_failed",
        (Edit(SETTLE + "_store_keys", "return decide(", "return decision or decide("),),
    ),
    DispatchBug(
        "an attempt that was cut short by a shutdown is spent",
        CANCELLATION + "the_loop_can_be_cancelled_at_every_await",
        (Edit(OUTCOME + "decide", 'case "cut short":', "case 'nothing':"),),
    ),
    DispatchBug(
        "a callback whose task is cancelled by others is handed back unspent, for ever",
        OTHERS + "a_callback_that_has_itself_cancelled_has_failed_and_is_given_up_as_any_other",
        (Edit(RUN + "end", "if self.is_torn_down", "if True"),),
    ),
    DispatchBug(
        "a round that is cancelled while it leases keys forgets them",
        CANCELLATION + "a_round_can_be_cancelled_at_every_await",
        (Edit("dispatcher.round:Round._begin", "self._attempts.release(started)", "return"),),
    ),
    DispatchBug(
        "a target that is down uses up the attempts of the backlog",
        DOWN + "a_target_that_is_down_for_an_hour_uses_up_no_attempts",
        (Edit(SETTLE + "_is_released_for", "return verdict.is_released", "return False"),),
    ),
    DispatchBug(
        "starts never pause, however long the target is down",
        OUTAGES + "four_failures_in_a_row_hold_nothing_and_the_fifth_does",
        (Edit(OUTAGE + "_note", "if self._in_a_row < IN_A_ROW:", "if True:"),),
    ),
    DispatchBug(
        "starts stay paused after the target is back",
        OUTAGES + "a_probe_that_is_answered_ends_the_outage_and_says_how_long_it_was",
        (Edit(OUTAGE + "_end", "self._since_us, self._probe,", "self._calls, self._probe,"),),
    ),
    DispatchBug(
        "a key that is out of attempts is dropped in silence when its error is final",
        "tests.dispatcher.test_decision:test_the_retry_budget_is_checked_before_an_error_is_taken_as_final",
        (
            Edit(
                OUTCOME + "_failed",
                "if 0 < max_retry <= attempts:",
                "if 0 < max_retry <= attempts and not hasattr(error, 'reason'):",
            ),
        ),
    ),
    DispatchBug(
        "no key is ever given up",
        ROUND + "a_failed_key_is_retried_with_a_backoff_and_then_dead_lettered",
        (Edit(OUTCOME + "_failed", "if 0 < max_retry <= attempts:", "if False:"),),
    ),
    DispatchBug(
        "a floor that a callback asks for is not passed on",
        ROUND + "a_requested_requeue_waits_and_may_be_pulled_forward_unless_it_is_a_floor",
        (Edit(OUTCOME + "_asked_for", "floor=result.floor", "floor=False"),),
    ),
    DispatchBug(
        "a settle that failed is told as if it had been applied",
        ROUND + "a_store_error_on_one_key_does_not_stop_the_others",
        (Edit(SETTLE + "_give_up", "self.errors.append(error)", "pass"),),
    ),
    DispatchBug(
        "a key whose settle failed is kept leased for ever",
        ROUND + "a_key_whose_settle_failed_is_recovered_within_one_lease_and_one_round",
        (Edit(SETTLE + "_give_up", "owned.abandon()", "pass"),),
    ),
    DispatchBug(
        "a completion that no task waits for is given up when it fails",
        "tests.dispatcher.test_settle:test_a_completion_that_no_task_waits_for_is_tried_again_and_counted_once",
        (Edit("dispatcher.attempt:Attempts._completed", "if error is None:", "if True:"),),
        (False,),
    ),
    DispatchBug(
        "the loop gives up a settle at the first refusal of the store",
        LOOP + "a_settle_waits_for_a_store_that_is_down",
        (Edit(SETTLE + "_is_patient", "if run.owned.lost.is_set() or", "if True or"),),
    ),
    DispatchBug(
        "the loop waits for a store that is down, and not for one that refuses it",
        "tests.dispatcher.test_settle:test_a_settle_waits_for_a_store_that_refuses_it_for_a_moment",
        (Edit(SETTLE + "_is_patient", "not isinstance(error, StoreError)", "'Unusable' in type(error).__name__"),),
    ),
    DispatchBug(
        "a round gives up a settle at the first refusal of the store",
        "tests.dispatcher.test_settle:test_a_round_waits_for_the_store_too",
        (Edit(SETTLE + "__init__", "_FOR_EVER_US if lasting else lease_us", "_FOR_EVER_US if lasting else 0"),),
    ),
    DispatchBug(
        "a round waits for a store that settles nothing for as long as it renews leases",
        "tests.dispatcher.test_settle:test_a_round_ends_although_its_store_settles_nothing",
        (Edit(SETTLE + "__init__", "_FOR_EVER_US if lasting else lease_us", "_FOR_EVER_US"),),
    ),
    DispatchBug(
        "a callback may run for ever",
        RUN_TIME + "a_callback_that_runs_too_long_is_cancelled_and_has_failed",
        (Edit("dispatcher.overdue:RunTimes._look", "if now_us >= run.deadline_us:", "if False:"),),
    ),
    DispatchBug(
        "the answer of a runaway callback counts",
        RUN_TIME + "the_answer_of_a_runaway_callback_is_ignored",
        (Edit(RUN + "end", "if self.is_left or", "if"),),
    ),
    DispatchBug(
        "a callback that ran too long has succeeded",
        RUN_TIME + "a_callback_that_answers_only_because_it_was_cancelled_has_failed",
        (Edit(RUN + "end", 'if self.why == "it exceeded max_run_time":', "if False:"),),
    ),
    DispatchBug(
        "a callback whose lease was lost runs on",
        RUN_TIME + "a_callback_whose_lease_is_lost_is_cancelled_and_nothing_is_settled_or_told",
        (Edit(RUN + "begin", "self.lost.subscribe(task.lose)", "pass"),),
    ),
    DispatchBug(
        "an orphan that was given up is not told of",
        ROUND + "orphans_are_recovered_and_those_out_of_attempts_are_told_of",
        (Edit("dispatcher.report:Reports.recovered", "if orphan.dead_lettered and", "if False and"),),
    ),
    DispatchBug(
        "a drain returns before everything has ended",
        "tests.dispatcher.test_drain:test_a_drain_starts_nothing_more_and_lets_callbacks_finish",
        (Edit("dispatcher.loop:Dispatcher.drain", "if self._dispatching is not None:", "if False:"),),
    ),
    DispatchBug(
        "a drain of rounds returns before their keys are handed back",
        GATE + "a_drain_that_cancels_waits_until_every_key_is_handed_back",
        (Edit("dispatcher.gate:RoundGate.drain", "self.hurry()\n    await all_done(self._under_way)", "self.hurry()"),),
    ),
    DispatchBug(
        "a drain gives rounds no time to end",
        GATE + "a_drain_lets_rounds_end_by_themselves_and_waits_for_them",
        (
            Edit(
                "dispatcher.gate:RoundGate.drain",
                "await within(self._setup.clock, seconds,",
                "await within(self._setup.clock, 0,",
            ),
        ),
    ),
    DispatchBug(
        "a trigger's period begins when its round ends",
        GATE + "the_period_begins_with_a_round_and_not_with_its_end",
        (
            Edit(
                "dispatcher.gate:RoundGate._run",
                "await turn.round.run()",
                "await turn.round.run(); self._admitted_us = self._setup.clock.steady_us()",
            ),
        ),
    ),
    DispatchBug(
        "a trigger that is shed begins the period anew",
        GATE + "calls_that_are_shed_do_not_put_the_next_round_off",
        (
            Edit(
                "dispatcher.gate:RoundGate.shed",
                'self._setup.metrics.triggers["shed"] += 1',
                "self._admitted_us = self._setup.clock.steady_us()",
            ),
        ),
    ),
    DispatchBug(
        "a round that waited for its period begins none",
        GATE + "a_round_that_waited_for_its_period_begins_one_of_its_own",
        (Edit("dispatcher.gate:RoundGate._begin", "self._admitted_us =", "self._admitted_us = self._admitted_us or"),),
    ),
    DispatchBug(
        "a call that takes long holds all others up after an outage",
        DOWN + "a_probe_that_the_target_has_taken_does_not_hold_the_others_up_until_it_is_done",
        (Edit(OUTAGE + "taken", "if not self._probe or", "if True or"),),
    ),
    DispatchBug(
        "what a callback raises in a task group is not seen",
        "tests.dispatcher.test_groups:test_what_a_callback_asks_for_in_a_group_is_done",
        (Edit("workqueue.raised:as_one", "return _agreed(leaves_of(error)) or error", "return error"),),
    ),
    DispatchBug(
        "a redirect of the broker counts as sent",
        "tests.dispatcher.test_error_events:test_a_redirect_is_not_followed_and_nothing_is_shown_to_whom_it_names",
        (Edit("dispatcher.broker:Broker._post_once", "200 <= response.status < 300", "response.ok"),),
    ),
    DispatchBug(
        "every trigger gets a round",
        "tests.dispatcher.test_trigger:test_triggers_beyond_one_in_a_period_are_shed",
        (Edit("dispatcher.gate:RoundGate.admit", "if self._due_us() > 0:", "if False:"),),
    ),
    DispatchBug(
        "each of two lease steps that overlap asks for all slots",
        LEASING + "while_there_is_plenty_two_lease_steps_are_under_way_each_for_half_of_the_slots",
        (Edit(STEPS + "ask", "min(room, self._part)", "room"),),
    ),
    DispatchBug(
        "lease steps overlap where there is nothing more to start",
        LEASING + "a_lone_key_costs_one_lease_step_and_the_look_for_another",
        (Edit(STEPS + "ask", "and is_plenty", ""), Edit(STEPS + "ask", "min(room, self._part)", "min(room, 20)")),
    ),
    DispatchBug(
        "a slot is asked for only when the store has answered the settle of its key",
        LEASING + "a_slot_of_a_callback_that_ran_on_is_asked_for_before_the_store_has_answered",
        (Edit(ATTEMPT + "_settle_soon", "self.poke()", "pass"),),
    ),
    DispatchBug(
        "a lease step that is under way when a drain begins leaves its keys to their leases",
        LEASING + "what_is_under_way_at_a_drain_is_handed_back",
        (Edit("dispatcher.loop:Dispatcher._wind_down", "await self._take_back()", "pass"),),
    ),
]
