"""What can be a host, wherever a URL names one."""

from __future__ import annotations

import pytest

from workqueue.access.addresses import is_host

HOSTS = (
    "localhost a.b-c.example example.org. bücher.example xn--bcher-kva.example my_service 127.0.0.1 ::1 fe80::1%eth0"
)
OTHERS = ". a..b .a -a a- 127%zz.0.1 xn--a a:b ＠ v1.x] a\\b a/b"


@pytest.mark.parametrize("host", [*HOSTS.split(), "a" * 63])
def test_a_name_or_an_address_is_a_host(host: str) -> None:
    assert is_host(host)


@pytest.mark.parametrize("host", [*OTHERS.split(), "", "a b", "a\nb", "a" * 64, ".".join(["a" * 60] * 5)])
def test_what_dns_cannot_have_is_none(host: str) -> None:
    assert not is_host(host)
