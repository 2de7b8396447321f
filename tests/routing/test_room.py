"""What the routing room costs who does not need it: nothing."""

from __future__ import annotations

from tests.support.processes import python

PLAIN = """
import asyncio, dispatcher, workqueue

async def reconcile(key, attempt):
    pass

async def main():
    async with workqueue.open_queue("memory://") as queue:
        await queue.queue("a")
        await dispatcher.handle(queue, callback=reconcile)

asyncio.run(main())
"""


def loaded(program: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after `program`."""
    code = f"{program}\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    return set(python("-c", code).json)


def test_a_reconciler_that_routes_nothing_never_imports_the_router() -> None:
    assert {name for name in loaded(PLAIN) if name.startswith(("workqueue.routing", "msgspec"))} == set()


def test_routing_keys_needs_nothing_that_routing_messages_does() -> None:
    modules = loaded("from workqueue.routing import KeyRouter, retry_policy")

    assert "workqueue.routing.keys" in modules
    assert {"workqueue.routing.messages", "msgspec", "starlette"} & modules == set()


def test_without_msgspec_the_message_router_says_what_to_install() -> None:
    program = "import sys; sys.modules['msgspec'] = None\nfrom workqueue.routing import Router"

    ended = python("-c", program, complains=True)
    assert ended.code == 1
    assert "pip install 'workqueue-dispatcher[routing]'" in ended.err
