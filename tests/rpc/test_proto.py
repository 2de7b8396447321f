"""The wire contract: names, numbers and bytes are Go's."""

from __future__ import annotations

import pytest
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message import Message

from workqueue.rpc.pb.workqueue_pb2 import (
    DESCRIPTOR,
    GetKeyStateRequest,
    KeyState,
    NoRetryDetails,
    ProcessRequest,
    ProcessResponse,
    QueueKeyRequest,
)

# Every field that a Go peer knows.
SHARED_FIELDS = {
    "ProcessRequest": {"key": 1, "priority": 2, "delay_seconds": 3},
    "ProcessResponse": {"requeue_after_seconds": 1, "queue_keys": 2, "requeue_floor": 3},
    "QueueKeyRequest": {"key": 1, "priority": 2, "delay_seconds": 3},
    "GetKeyStateRequest": {"key": 1},
    "KeyState": {
        "key": 1,
        "status": 2,
        "priority": 3,
        "attempts": 4,
        "queued_time": 5,
        "not_before_time": 6,
    },
    "NoRetryDetails": {"message": 1},
}
OUR_FIELDS = {
    "ProcessManyRequest": {"calls": 1, "cancelled": 2},
    "ProcessManyResponse": {"answers": 1, "window": 2, "closing": 3},
    "QueueManyRequest": {"requests": 1},
    "QueueManyResponse": {},
    "ProcessRequest": {"payload": 100, "attempts": 101, "meta": 102},
    "QueueKeyRequest": {"payload": 100},
    "KeyState": {"last_error": 100, "attempt_began": 101, "lease_expires": 102},
}

# Messages as Go puts them on the wire: fields in the order of their numbers, defaults left out.
GOLDEN = [
    pytest.param(
        ProcessRequest(key="a/b", priority=5, delay_seconds=30),
        "0a 03 612f62  10 05  18 1e",
        id="a request",
    ),
    pytest.param(
        ProcessRequest(key="é", priority=-1),
        "0a 02 c3a9  10 ff ff ff ff ff ff ff ff ff 01",
        id="a request with a negative priority",
    ),
    pytest.param(
        ProcessRequest(key="k", payload=b"\x00\xff", attempts=3, meta={"a": "b"}),
        "0a 01 6b  a2 06 02 00ff  a8 06 03  b2 06 06 0a 01 61 12 01 62",
        id="a request with the fields that are ours",
    ),
    pytest.param(ProcessResponse(), "", id="done"),
    pytest.param(
        ProcessResponse(
            requeue_after_seconds=60,
            queue_keys=[QueueKeyRequest(key="c", priority=2, delay_seconds=3), QueueKeyRequest(key="d", payload=b"p")],
            requeue_floor=True,
        ),
        "08 3c  12 07 0a 01 63 10 02 18 03  12 07 0a 01 64 a2 06 01 70  18 01",
        id="a response that asks for everything",
    ),
    pytest.param(GetKeyStateRequest(key="k"), "0a 01 6b", id="a question"),
    pytest.param(
        KeyState(
            key="k",
            status=KeyState.IN_PROGRESS,
            priority=7,
            attempts=3,
            queued_time=1_700_000_000,
            not_before_time=1_700_000_060,
        ),
        "0a 01 6b  10 02  18 07  20 03  28 80 e2 cf aa 06  30 bc e2 cf aa 06",
        id="a key's state",
    ),
    pytest.param(
        # Go's zero time.Time in Unix seconds: what a Go receiver answers for a key without a not-before.
        KeyState(key="k", status=KeyState.QUEUED, not_before_time=-62_135_596_800),
        "0a 01 6b  10 01  30 80 92 b8 c3 98 fe ff ff ff 01",
        id="a key's state without a not-before",
    ),
    pytest.param(NoRetryDetails(message="bad"), "0a 03 62 61 64", id="a final error"),
]


def test_messages_carry_gos_fields_and_ours_from_a_hundred_up() -> None:
    found = {
        name: {field.name: field.number for field in message.fields}
        for name, message in DESCRIPTOR.message_types_by_name.items()
    }

    assert found == {
        name: SHARED_FIELDS.get(name, {}) | OUR_FIELDS.get(name, {}) for name in SHARED_FIELDS | OUR_FIELDS
    }


def test_the_service_has_gos_full_names_and_methods_of_ours() -> None:
    service = DESCRIPTOR.services_by_name["WorkqueueService"]

    assert service.full_name == "chainguard.workqueue.WorkqueueService"
    assert [(method.name, method.input_type.full_name, method.output_type.full_name) for method in service.methods] == [
        ("Process", "chainguard.workqueue.ProcessRequest", "chainguard.workqueue.ProcessResponse"),
        ("GetKeyState", "chainguard.workqueue.GetKeyStateRequest", "chainguard.workqueue.KeyState"),
        ("ProcessMany", "chainguard.workqueue.ProcessManyRequest", "chainguard.workqueue.ProcessManyResponse"),
        ("QueueMany", "chainguard.workqueue.QueueManyRequest", "chainguard.workqueue.QueueManyResponse"),
    ]
    assert NoRetryDetails.DESCRIPTOR.full_name == "chainguard.workqueue.NoRetryDetails"


def test_statuses_have_gos_numbers() -> None:
    assert dict(KeyState.Status.items()) == {"UNKNOWN": 0, "QUEUED": 1, "IN_PROGRESS": 2, "DEAD_LETTER": 3}


@pytest.mark.parametrize(("message", "wire"), GOLDEN)
def test_a_message_is_on_the_wire_what_go_would_write(message: Message, wire: str) -> None:
    golden = bytes.fromhex(wire)

    assert message.SerializeToString(deterministic=True) == golden
    assert type(message).FromString(golden) == message


def test_a_peer_that_does_not_know_our_fields_reads_all_of_its_own() -> None:
    ours = ProcessRequest(key="k", priority=2, delay_seconds=9, payload=b"p", attempts=1, meta={"traceparent": "00"})

    theirs = gos_request().FromString(ours.SerializeToString())

    assert {field.name: value for field, value in theirs.ListFields()} == {
        "key": "k",
        "priority": 2,
        "delay_seconds": 9,
    }


def gos_request() -> type[Message]:
    """ProcessRequest as a program sees it that was compiled without what is ours."""
    file = FileDescriptorProto()
    DESCRIPTOR.CopyToProto(file)
    known = [message for message in file.message_type if message.name in SHARED_FIELDS]
    del file.message_type[:], file.service[:]
    file.message_type.extend(known)
    for message in file.message_type:
        shared = [field for field in message.field if field.number < 100]
        del message.field[:], message.nested_type[:]
        message.field.extend(shared)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("chainguard.workqueue.ProcessRequest"))


def test_somebody_elses_workqueue_proto_can_live_in_the_same_process() -> None:
    theirs = FileDescriptorProto(name="workqueue.proto", package="somebody.elses")

    descriptor_pool.Default().AddSerializedFile(theirs.SerializeToString())

    assert descriptor_pool.Default().FindFileByName("workqueue.proto").package == "somebody.elses"
    assert descriptor_pool.Default().FindFileByName(DESCRIPTOR.name).package == "chainguard.workqueue"
