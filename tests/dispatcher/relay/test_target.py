"""Where requests may go: how targets are written, and which are allowed."""

from __future__ import annotations

import pytest

from dispatcher.relay.target import ANY_TARGET, AllowedTargets, Target
from workqueue.errors import InvalidSettingError


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("http://b:8080", Target("http", "b", 8080)),
        ("http://b", Target("http", "b", 80)),
        ("https://B.Example.org/", Target("https", "b.example.org", 443)),
        ("b:8080", Target("http", "b", 8080)),
        ("b.example.org.", Target("http", "b.example.org", 80)),
        ("http://[::1]:8080", Target("http", "::1", 8080)),
        ("http://10.1.2.3", Target("http", "10.1.2.3", 80)),
    ],
)
def test_a_target_is_a_server_with_or_without_scheme_and_port(text: str, target: Target) -> None:
    assert Target.parse(text) == target


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ftp://b",
        "http://",
        "http://b/path",
        "http://b?query",
        "http://b#fragment",
        "http://user@b",
        "http://:password@b",
        "http://b:0",
        "http://b:70000",
        "http://b:port",
        "http://[::1",
        "http://[fe80::1%25eth0]",
        "http://2130706433",
        "http://127.1",
        "http://0x7f000001",
        "http://b c",
        "http://-b",
        "http://b..c",
        "http://b\\@c",
        "http://é.org",
        "http://" + "a." * 200 + "org",
    ],
)
def test_what_is_no_server_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="it takes http://host:port"):
        Target.parse(text)


@pytest.mark.parametrize(
    ("entry", "target", "allowed"),
    [
        ("b", "b:8080", True),
        ("b", "b.example.org", False),
        ("b:8080", "b:8080", True),
        ("b:8080", "b:8081", False),
        ("*.example.org", "b.example.org", True),
        ("*.example.org", "a.b.example.org", True),
        ("*.example.org", "example.org", False),
        ("*.example.org", "evilexample.org", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.0.0.0/8", "10.1.2.3:8080", True),
        ("10.0.0.0/8", "192.168.1.1", False),
        ("192.168.1.1:80", "192.168.1.1:81", False),
        ("localhost:8080", "localhost:8080", True),
        ("[fd00::1]:80", "http://[fd00::1]", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.0/8", "127.9.9.9", True),
        ("0.0.0.0/0", "10.1.2.3", True),
        ("0.0.0.0/0", "127.0.0.1", False),
        ("0.0.0.0/0", "169.254.169.254", False),
        ("169.254.169.254", "169.254.169.254", True),
        ("::/0", "http://[::ffff:127.0.0.1]", False),
        ("100.64.0.0/10", "100.100.100.200", False),
        ("100.100.100.200", "100.100.100.200", True),
    ],
)
def test_an_entry_allows_what_it_names_and_guarded_addresses_only_by_themselves(
    entry: str, target: str, *, allowed: bool
) -> None:
    refusal = AllowedTargets([entry]).why_refused(Target.parse(target))

    assert (refusal == "") is allowed
    assert ANY_TARGET.why_refused(Target.parse(target)) == ""


@pytest.mark.parametrize(
    ("address", "may"),
    [
        ("93.184.216.34", True),
        ("10.1.2.3", True),
        ("192.168.0.1", True),
        ("fd12::1", True),
        ("127.0.0.1", False),
        ("127.8.8.8", False),
        ("::1", False),
        ("0.0.0.0", False),
        ("::", False),
        ("169.254.169.254", False),
        ("fe80::1%eth0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::ffff:127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
        ("fd00:ec2::254", False),
        ("168.63.129.16", False),
    ],
)
def test_an_allowed_name_may_stand_for_a_private_address_but_for_no_guarded_one(address: str, *, may: bool) -> None:
    assert AllowedTargets(["b.example.org"]).may_connect(address, 80) is may
    assert ANY_TARGET.may_connect(address, 80)


def test_localhost_as_an_entry_opens_loopback_on_its_port() -> None:
    allowed = AllowedTargets(["localhost:8080"])

    assert [allowed.may_connect("127.0.0.1", port) for port in (8080, 8081)] == [True, False]
    assert not allowed.may_connect("169.254.169.254", 8080)


@pytest.mark.parametrize("entry", ["", "http://b", "b:0", "b:99999", "b/path", "*", "*.", "a b", "2130706433"])
def test_an_entry_that_names_nothing_is_refused(entry: str) -> None:
    with pytest.raises(InvalidSettingError):
        AllowedTargets([entry])


def test_a_target_with_an_ipv6_address_is_named_in_brackets() -> None:
    assert Target.parse("https://[::1]").name == "[::1]:443"
    assert str(Target.parse("b")) == "http://b:80"
