"""objects.list: pages over sorted names, found by bisection and never by walking or sorting the bucket.

Sources: https://cloud.google.com/storage/docs/json_api/v1/objects/list
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.gcs.errors import invalid_parameter
from tests.fakes.gcs.objects import varint

MAX_RESULTS = 1000


@dataclass(frozen=True, slots=True)
class ListQuery:
    """What a list request asks for; empty text means not given.

    `after` is the last name or common prefix of the page before; `start` is inclusive, `end` exclusive.
    """

    prefix: str = ""
    delimiter: str = ""
    start: str = ""
    end: str = ""
    after: str = ""
    limit: int = MAX_RESULTS

    def common_prefix(self, name: str) -> str:
        """The part of `name` that directory mode shows instead of it; empty when it shows the object itself."""
        if not self.delimiter:
            return ""
        cut = name.find(self.delimiter, len(self.prefix))
        return "" if cut < 0 else name[: cut + len(self.delimiter)]


@dataclass(slots=True)
class Page:
    """One page: object names, common prefixes, and where the next page starts (empty: this was the last)."""

    names: list[str] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    next_token: str = ""


def list_page(names: Any, query: ListQuery) -> Page:
    """Cut one page out of `names`, a SortedList of every name in the bucket.

    Names are compared as Python strings: by code point, which is the order of their UTF-8 bytes.
    """
    stop = last_index(names, query)
    index = first_index(names, query)
    return directory_page(names, query, index, stop) if query.delimiter else flat_page(names, query, index, stop)


def first_index(names: Any, query: ListQuery) -> int:
    """Where the page begins."""
    index: int = names.bisect_left(max(query.prefix, query.start))
    if not query.after:
        return index
    if query.common_prefix(query.after) == query.after:
        return max(index, index_after_prefix(names, query.after))
    after: int = names.bisect_right(query.after)
    return max(index, after)


def last_index(names: Any, query: ListQuery) -> int:
    """The index behind the last name that the query may return."""
    index = index_after_prefix(names, query.prefix)
    end: int = names.bisect_left(query.end) if query.end else index
    return min(index, end)


def index_after_prefix(names: Any, prefix: str) -> int:
    """The index behind the last name that starts with `prefix`."""
    bound = successor(prefix)
    index: int = names.bisect_left(bound) if bound else len(names)
    return index


def successor(prefix: str) -> str:
    """The smallest text above every text that starts with `prefix`; empty when there is none. Only for comparing."""
    stem = prefix.rstrip("\U0010ffff")
    return stem[:-1] + chr(ord(stem[-1]) + 1) if stem else ""


def flat_page(names: Any, query: ListQuery, index: int, stop: int) -> Page:
    """The page without a delimiter: one slice."""
    page = Page(list(names.islice(index, min(stop, index + query.limit))))
    if index + query.limit < stop:
        page.next_token = encode_token(page.names[-1])
    return page


def directory_page(names: Any, query: ListQuery, index: int, stop: int) -> Page:
    """The page with a delimiter: a common prefix counts as one entry and is jumped over as a whole."""
    page, last = Page(), ""
    while index < stop and len(page.names) + len(page.prefixes) < query.limit:
        name = names[index]
        common = query.common_prefix(name)
        last = common or name
        if common:
            page.prefixes.append(common)
            index = index_after_prefix(names, common)
        else:
            page.names.append(name)
            index += 1
    if index < stop:
        page.next_token = encode_token(last)
    return page


def encode_token(name: str) -> str:
    """An opaque page token, built as the service's are: the last name, as protobuf, in base64."""
    raw = name.encode()
    return base64.b64encode(b"\x0a" + varint(len(raw)) + raw).decode()


def decode_token(token: str) -> str:
    """The name in a token from `encode_token`.

    Raises:
        ApiError: 400 for anything that this server did not hand out.
    """
    try:
        raw = base64.b64decode(token, validate=True)
        name = raw[2 if len(raw) < 130 else 3 :].decode()
    except (binascii.Error, UnicodeDecodeError):
        name = ""
    if not name or encode_token(name) != token:
        raise invalid_parameter("pageToken", f"Invalid page token: {token}")
    return name
