"""Run three executions to their end: `python -m examples.step_functions --endpoint http://127.0.0.1:5000`."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from examples.step_functions.tasks import step_functions
from examples.step_functions.worker import work

INPUTS = {
    "greet": {"task": "greet", "input": {"name": "Ada"}},
    "notify": {"task": "notify", "input": {"name": "Ada"}},
    "refused": {"task": "greet", "input": {"name": " "}},
    "unknown": {"task": "sing", "input": {"name": "Ada"}},
}


def definition(queue_url: str) -> str:
    """A state machine of one task, which sends a message with its token to the queue and waits for the answer."""
    body = {"task.$": "$.task", "token.$": "$$.Task.Token", "input.$": "$.input"}
    task = {
        "Type": "Task",
        "Resource": "arn:aws:states:::sqs:sendMessage.waitForTaskToken",
        "Parameters": {"QueueUrl": queue_url, "MessageBody": body},
        "End": True,
    }
    return json.dumps({"StartAt": "Ask", "States": {"Ask": task}})


async def run(client: Callable[[str], Any]) -> dict[str, str]:
    """Start an execution for each input beside a worker, and return how each of them ended."""
    sqs, states = client("sqs"), client("stepfunctions")
    queue_url = sqs.create_queue(QueueName="tasks")["QueueUrl"]
    role = "arn:aws:iam::123456789012:role/state-machine"
    machine = states.create_state_machine(name="ask", definition=definition(queue_url), roleArn=role)
    until = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(work(step_functions(states), sqs, queue_url, until))
        ended = {
            name: await _ended(
                states, stateMachineArn=machine["stateMachineArn"], name=f"{name}-{uuid4()}", input=json.dumps(given)
            )
            for name, given in INPUTS.items()
        }
        until.set()
    return ended


async def _ended(states: Any, **execution: str) -> str:
    started = await asyncio.to_thread(states.start_execution, **execution)
    while True:
        found = await asyncio.to_thread(states.describe_execution, executionArn=started["executionArn"])
        if found["status"] != "RUNNING":
            return f"{found['status']} {found.get('output') or found.get('error')}"
        await asyncio.sleep(0.1)


def main() -> None:
    """Connect to an endpoint, where any credentials will do, and show how the executions ended."""
    import boto3

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoint", required=True, help="moto's server, or another that plays SQS and Step Functions")
    endpoint = parser.parse_args().endpoint

    def client(service: str) -> Any:
        known = {"aws_access_key_id": "any", "aws_secret_access_key": "any", "region_name": "us-east-1"}
        return boto3.client(service, endpoint_url=endpoint, **known)

    for name, how in asyncio.run(run(client)).items():
        print(f"{name:<8} {how}")


if __name__ == "__main__":
    main()
