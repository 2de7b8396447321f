"""A FastAPI application that enqueues, and the reconciler of its keys.

`uvicorn examples.web.orders:app`, and `dispatcher serve --callback examples.web.orders:reconcile` beside it.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request
from pydantic import BaseModel

from workqueue import Attempt, KeyNotFoundError, KeyState, NonRetriableError, Options, WorkQueue, open_queue


class Order(BaseModel):
    """What somebody wants."""

    item: str
    urgent: bool = False


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    """The queue is open as long as the application is."""
    async with open_queue(os.environ.get("WORKQUEUE_URL", "sqlite:///workqueue.db")) as queue:
        app.state.queue = queue
        yield


def opened(request: Request) -> WorkQueue:
    """The queue of the application, for `Depends`."""
    queue: WorkQueue = request.app.state.queue
    return queue


Queue = Annotated[WorkQueue, Depends(opened)]
app = FastAPI(lifespan=lifespan)


@app.put("/orders/{number}", status_code=202)
async def put(number: int, order: Order, queue: Queue) -> dict[str, str]:
    """Ask for an order. Once this has answered the key is stored."""
    key = f"order/{number}"
    await queue.queue(key, Options(priority=10 if order.urgent else 0, payload=order.item.encode()))
    return {"key": key}


@app.get("/orders/{number}")
async def get(number: int, queue: Queue) -> KeyState:
    """Where the key of an order is; 404 once it is done."""
    try:
        return await queue.get(f"order/{number}")
    except KeyNotFoundError as error:
        raise HTTPException(404, str(error)) from error


async def reconcile(key: str, attempt: Attempt) -> None:
    """Make the order what it should be: called by the dispatcher."""
    item = (attempt.payload or b"").decode()
    if item == "nothing":
        raise NonRetriableError("nobody can order nothing")
    print(f"{key}: {item}", flush=True)
