from __future__ import annotations

from tests.support.programs import process, workqueue

SOUND = {"passed", "not-applicable"}


def test_conformance_of_a_sound_backend_is_one_json_document_and_exit_code_0() -> None:
    ended = process("workqueue", "conformance", "memory://", "--json")

    assert (ended.code, ended.err) == (0, "")
    assert {each["status"] for each in ended.json["scenarios"]} == SOUND
    assert {"name", "status", "error"} == set(ended.json["scenarios"][0])


def test_conformance_of_a_backend_that_breaks_promises_exits_with_1_and_says_which() -> None:
    ended = workqueue("conformance", "tests.support.programs:forgetful")

    assert ended.code == 1
    assert " failed" in ended.out


def test_conformance_takes_a_queue_url_or_a_target() -> None:
    assert workqueue("conformance", "json:loads.nothing").code == 2
    assert "has no setting zork" in workqueue("conformance", "memory://?zork=1").err
    assert "there is no module 'nowhere'" in workqueue("conformance", "nowhere:target").err
