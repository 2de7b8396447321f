"""The main example: a folder of desired manifests, reconciled into a folder of actual ones, on SQLite.

Run it with `make run`. It ends by itself within a minute. Kill it with `kill -9` in the middle and run it again: it
goes on where it was.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import shutil
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from dispatcher import Attempt, CloudEventErrors, Dispatcher, DispatcherSettings
from examples.manifests.reconcile import WORKSPACE, Reconciler
from examples.manifests.screen import Row, Screen, Story, rows
from examples.manifests.sink import Event, event_sink
from workqueue import Counts, FullQueue, Options, Outcome, WorkQueue, open_queue
from workqueue.metrics import metrics_of

SHIPPED = Path(__file__).with_name("desired")
MAX_RETRY = 3
BACKOFF = timedelta(seconds=2)
TIME_LIMIT_SECONDS = 50.0
ENQUEUED = "enqueued"
PRIORITIES = {"slow": 10, "rollout": 10}
EXPECTED = {"broken": "dead-lettered", "malformed": "dropped"}
MEANINGS = {
    "done": "its folder is what its manifest says",
    "dead-lettered": f"failed {MAX_RETRY} times, kept for an operator",
    "dropped": "cannot succeed, so it was not tried again",
}
EDITED = "slow"
SECOND_EDITION = '{"files": {"index.html": "<h1>slow, second edition</h1>\\n"}, "takes_seconds": 0.5}\n'


@dataclass
class Run:
    """One run of the example in one workspace."""

    workspace: Path
    screen: Screen
    story: Story = field(default_factory=Story)
    edited: asyncio.Event = field(default_factory=asyncio.Event)
    recovered: int = 0

    def __post_init__(self) -> None:
        self.reconciler = Reconciler(self.workspace)
        self.unfinished = self.workspace / "unfinished"
        self.events = self.workspace / "events.jsonl"

    @property
    def queue_url(self) -> str:
        """A lease of 3 s instead of 15, so that a reader who tries kill -9 need not wait long."""
        return f"sqlite:///{self.workspace}/queue.db?name=manifests&lease=3s&renew=1s"

    def keys(self) -> list[str]:
        """One key for each manifest."""
        return sorted(path.stem for path in self.reconciler.desired.glob("*.json"))

    async def reconcile(self, key: str, attempt: Attempt) -> Outcome | None:
        """Count the run, then reconcile."""
        self.story.runs[key] += 1
        if key == EDITED:
            self.edited.set()
        return await self.reconciler(key, attempt)

    def on_event(self, event: Event) -> None:
        """Keep an error event that the sink received, and show it."""
        with self.events.open("a") as file:
            file.write(json.dumps(event) + "\n")
        self.recall(event)
        key, action = event["key"], event["action"]
        self.screen.say(f"  event: {key} {action} at attempt {event['attempts']}: {event['error']}", "yellow")

    def recall(self, event: Event) -> None:
        """Remember the last event of a key, of this life or an earlier one."""
        self.story.last_event[event["key"]] = f"{event['action']}: {event['error']}"

    def ended_well(self, row: Row) -> bool:
        """Whether a key ended as its manifest deserves, judged by the files and not by the queue."""
        if row.key in EXPECTED:
            return row.state == EXPECTED[row.key]
        return row.state == "done" and self.reconciler.matches(row.key)


async def main() -> int:
    """Run the example; returns the exit code."""
    parser = argparse.ArgumentParser(prog="make run", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workspace", type=Path, default=WORKSPACE, help="where to work (default: %(default)s)")
    began = time.monotonic()
    with Screen() as screen:
        run = Run(parser.parse_args().workspace, screen)
        resumed = run.unfinished.exists()
        if not resumed:
            _set_the_stage(run)
        _log_to(run.workspace / "log")
        async with AsyncExitStack() as stack:
            queue = await stack.enter_async_context(open_queue(run.queue_url, owner="example"))
            url = await stack.enter_async_context(event_sink(run.on_event))
            await _say_what_is_there(run, queue, resumed=resumed)
            await _dispatch(run, queue, url)
            return await _summarise(run, queue, time.monotonic() - began)


def _set_the_stage(run: Run) -> None:
    """A fresh workspace with the shipped manifests, which this run may edit."""
    shutil.rmtree(run.workspace, ignore_errors=True)
    shutil.copytree(SHIPPED, run.reconciler.desired)
    run.unfinished.write_text("staged")


def _log_to(path: Path) -> None:
    """The story of every key, for `grep`; the screen has its own."""
    logging.basicConfig(filename=path, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


async def _say_what_is_there(run: Run, queue: FullQueue, *, resumed: bool) -> None:
    say, keys = run.screen.say, run.keys()
    if resumed:
        for line in run.events.read_text().splitlines() if run.events.exists() else ():
            run.recall(json.loads(line))
        counts = await queue.counts()
        say("The last run did not end by itself. This is what it left in the queue, and nothing of it is lost:", "bold")
        say(f"  {counts.in_progress} in progress, of a process that is gone: recovered when their leases lapse (3 s)")
        say(f"  {counts.queued + counts.not_before + counts.twins} queued, {counts.dead_lettered} dead-lettered")
    else:
        say(f"Reconciling {run.reconciler.desired} into {run.reconciler.actual}", "bold")
    if run.unfinished.read_text() != ENQUEUED:  # a fresh run, or one that was killed before it got this far
        await queue.queue_many([(key, Options(priority=PRIORITIES.get(key, 0))) for key in keys])
        run.unfinished.write_text(ENQUEUED)
        say(f"  {len(keys)} manifests, {len(keys)} keys enqueued")
    say(f"  from another terminal: .venv/bin/workqueue ls --queue '{run.queue_url}'")


async def _dispatch(run: Run, queue: FullQueue, url: str) -> None:
    """Reconcile until nothing is left to do, with an edit in the middle; error events go to `url`."""
    settings = DispatcherSettings(concurrency=4, max_retry=MAX_RETRY, backoff=lambda attempts: attempts * BACKOFF)
    errors = CloudEventErrors(url, "manifests")
    async with Dispatcher(queue, run.reconcile, settings, errors=errors), asyncio.timeout(TIME_LIMIT_SECONDS):
        editing = asyncio.create_task(_edit_while_it_runs(run, queue))
        while not _is_idle(counts := await queue.counts()):
            _say_recovered(run, queue, counts)
            run.screen.show(await rows(queue, run.keys(), run.story))
            await asyncio.sleep(0.2)
        editing.cancel()


async def _edit_while_it_runs(run: Run, queue: WorkQueue) -> None:
    """Change a manifest while its key is in progress, and say so twice: that is one more run, not two, and not none."""
    await run.edited.wait()
    if (run.reconciler.desired / f"{EDITED}.json").read_text() == SECOND_EDITION:
        return  # an earlier life did it
    (run.reconciler.desired / f"{EDITED}.json").write_text(SECOND_EDITION)
    await queue.queue(EDITED)
    await queue.queue(EDITED)
    run.screen.say(f"  edited {EDITED}.json while it is being reconciled, and enqueued it twice", "cyan")


def _is_idle(counts: Counts) -> bool:
    return not (counts.queued or counts.not_before or counts.twins or counts.in_progress)


def _say_recovered(run: Run, queue: FullQueue, counts: Counts) -> None:
    recovered = metrics_of(queue).expired_leases
    if recovered > run.recovered:
        run.screen.say(
            f"  recovered from the process that was killed: {recovered - run.recovered} of its keys", "green"
        )
        run.recovered = recovered


async def _summarise(run: Run, queue: FullQueue, seconds: float) -> int:
    """Say how every key ended; returns 0 if each ended as it should."""
    present = await rows(queue, run.keys(), run.story)
    run.screen.show(present)
    wrong = [row.key for row in present if not run.ended_well(row)]
    say = run.screen.say
    say(f"{len(present)} keys in {seconds:.0f} s:", "bold")
    for state, meaning in MEANINGS.items():
        keys = [row.key for row in present if row.state == state]
        say(f"  {len(keys):2} {state}: {meaning}: {', '.join(keys) or 'none'}")
    runs = run.story.runs
    say(f"  this process made {sum(runs.values())} runs, {runs[EDITED]} of {EDITED}; it recovered {run.recovered} keys")
    if wrong:
        say(f"Not as it should be: {', '.join(wrong)}", "red")
        return 1
    run.unfinished.unlink()
    say(f"Look at {run.reconciler.actual} and {run.workspace / 'log'}.")
    say(f"Or let it go on: edit a file in {run.reconciler.desired} and enqueue its name:")
    say(f"  .venv/bin/dispatcher serve --queue '{run.queue_url}' --callback examples.manifests.reconcile:reconcile")
    say(f"  .venv/bin/workqueue enqueue blog --queue '{run.queue_url}'")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
