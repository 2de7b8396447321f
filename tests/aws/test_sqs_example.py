"""The example with SQS against moto's server, which is a process of its own. Run by `make test-aws`."""

from __future__ import annotations

from tests.support.processes import python


def test_what_is_sent_to_sqs_is_run_elsewhere_and_a_message_without_a_key_is_left(server: str) -> None:
    done = python("-m", "examples.sqs", "--endpoint", server)

    assert done.code == 0, done.err
    assert done.out.splitlines() == [
        "put 29 keys, merged 4, sent 25; 2 messages of another system",
        "done: 26 keys, order/7 among them: True",
    ]
    assert "can never be a key, and stays in its queue" in done.err
