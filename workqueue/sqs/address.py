"""Stage 1: which SQS queue: `sqs://sqs.REGION.amazonaws.com/ACCOUNT/NAME`, its URL with another scheme."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import parse_qsl, urlsplit

from workqueue.backends.url import duration
from workqueue.errors import InvalidSettingError
from workqueue.safe_text import shown_url

__all__ = ["SCHEME", "Address"]

SCHEME = "sqs://"

_REGION = re.compile(r"(?:^|\.)sqs(?:-fips)?\.([a-z0-9-]+)\.(?:vpce\.)?amazonaws\.com(?:\.cn)?$")
_PATH = re.compile(r"/\d{12}/[A-Za-z0-9_-]{1,80}(\.fifo)?")
_TAKES = "it is sqs://sqs.REGION.amazonaws.com/ACCOUNT/NAME, the queue's URL with sqs: for https:"


@dataclass(frozen=True, slots=True)
class Address:
    """An SQS queue.

    Args:
        queue_url: its URL, as the service says it.
        region: where it is; None = what the AWS configuration says.
        endpoint: the server to ask.
        patience: how long a message is sent again while the service fails.
    """

    queue_url: str
    region: str | None
    endpoint: str
    patience: timedelta = timedelta(seconds=30)

    @property
    def name(self) -> str:
        """The queue's name."""
        return self.queue_url.rpartition("/")[2]

    @property
    def fifo(self) -> bool:
        """Whether it keeps messages of a group in order."""
        return self.name.endswith(".fifo")

    @classmethod
    def parse(cls, url: str) -> Address:
        """The queue at `url`; settings in its query: `endpoint`, `region`, `patience`.

        Raises:
            InvalidSettingError: it is no such URL, or a setting is unknown or not what it takes.
        """
        parts = urlsplit(url)
        if not url.startswith(SCHEME) or not parts.netloc or not _PATH.fullmatch(parts.path):
            raise InvalidSettingError(f"{shown_url(url)!r} names no SQS queue: {_TAKES}")
        settings = dict(parse_qsl(parts.query, keep_blank_values=True))
        region = _REGION.search(parts.hostname or "")
        endpoint = settings.pop("endpoint", f"https://{parts.netloc}")
        if urlsplit(endpoint).scheme not in ("http", "https") or not urlsplit(endpoint).netloc:
            raise InvalidSettingError(
                f"endpoint={shown_url(endpoint)} in the SQS URL: it takes http://host:port or https://host"
            )
        place = settings.pop("region", region[1] if region else None)
        patience = _patience(settings.pop("patience", "30s"))
        if settings:
            unknown = ", ".join(sorted(settings))
            raise InvalidSettingError(f"sqs:// has no setting {unknown}; it has endpoint, region and patience")
        return cls(f"https://{parts.netloc}{parts.path}", place, endpoint, patience)


def _patience(text: str) -> timedelta:
    try:
        return duration(text)
    except ValueError as error:
        raise InvalidSettingError(f"patience={text} in the SQS URL: {error}") from error
