"""The router: a source for messages with a task token, handlers for its tasks, and a replier for who waits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workqueue.routing import Message, Parsed, Router, Source, as_json, has_fields

__all__ = ["Greeting", "TaskToken", "step_functions"]

log = logging.getLogger(__name__)

_MOST_ERROR, _MOST_CAUSE = 256, 32_768  # characters, as the API reference of SendTaskFailure says


class TaskToken:
    """Answers the execution that waits for this token.

    Args:
        client: a boto3 client of `stepfunctions`; its calls block, so they are made in threads.
        token: what the state machine put into its message.
    """

    def __init__(self, client: Any, token: str) -> None:
        self._client = client
        self._token = token

    async def reply(self, result: object) -> None:
        """Let the execution go on with `result`."""
        await self._send(self._client.send_task_success, output=as_json(result).decode())

    async def fail(self, error: Exception) -> None:
        """Let the task fail; the state machine's own Retry and Catch decide what follows."""
        name, cause = type(error).__name__[:_MOST_ERROR], str(error)[:_MOST_CAUSE]
        await self._send(self._client.send_task_failure, error=name, cause=cause)

    async def _send(self, call: Any, **answer: str) -> None:
        gone = (self._client.exceptions.TaskTimedOut, self._client.exceptions.TaskDoesNotExist)
        try:
            await asyncio.to_thread(call, taskToken=self._token, **answer)
        except gone as error:  # handled, but too late: nobody waits, and a second run would not change that
            log.warning("an execution did not wait for its answer: %s", error)


@dataclass
class Greeting:
    """The input of the task `greet`."""

    name: str

    def validate(self) -> None:
        """Refuse a name that nobody has."""
        if not self.name.strip():
            raise ValueError("the name is empty")


def step_functions(client: Any) -> Router:
    """A router for messages `{"task": …, "token": …, "input": …}`."""

    def parse(message: Message, view: Mapping[str, Any]) -> Parsed:
        return Parsed(view["task"], view["input"], TaskToken(client, view["token"]))

    router = Router(Source("step-functions", has_fields("task", "token", "input"), parse))

    @router.func("greet")
    async def greet(greeting: Greeting) -> dict[str, str]:
        return {"text": f"hello {greeting.name}"}

    @router.proc("notify")
    async def notify(greeting: Greeting) -> None:
        log.info("notified %s", greeting.name)

    return router
