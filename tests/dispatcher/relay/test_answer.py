"""What a target's answer means for a request."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from dispatcher.relay.answer import Answer, check
from dispatcher.targets.document import HandlerFailedError
from workqueue.errors import NonRetriableError, RetryAfterError

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_a_2xx_is_a_delivery(status: int) -> None:
    check(Answer(status), NOW)


@pytest.mark.parametrize("status", [301, 302, 304, 307, 408, 425, 429, 500, 502, 503, 504, 599])
def test_what_may_go_better_later_is_tried_again(status: int) -> None:
    with pytest.raises(HandlerFailedError, match=f"the target answered {status}: no"):
        check(Answer(status, "no"), NOW)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 410, 413, 422, 451, 499])
def test_any_other_4xx_is_given_up_with_what_the_target_said(status: int) -> None:
    with pytest.raises(NonRetriableError, match=f"the target answered {status}: no"):
        check(Answer(status, "no"), NOW)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7), ("0", 1), ("Thu, 31 Jan 2030 12:01:00 GMT", 60), ("999999999", 86400)],
)
@pytest.mark.parametrize("status", [429, 503])
def test_a_target_says_when_to_come_back_at_most_a_day_later(status: int, header: str, seconds: int) -> None:
    with pytest.raises(RetryAfterError) as raised:
        check(Answer(status, "busy", header), NOW)

    assert raised.value.delay == timedelta(seconds=seconds)


def test_a_request_that_is_refused_does_not_come_back_whatever_the_target_says() -> None:
    with pytest.raises(NonRetriableError):
        check(Answer(404, "", "7"), NOW)
