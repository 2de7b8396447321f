"""The network of the Pods: one bridge, and a network namespace with an address on it for each Pod."""

from __future__ import annotations

import subprocess
from pathlib import Path

__all__ = ["BRIDGE", "add_address", "bridge_up", "join", "leave"]

BRIDGE = "10.88.0.1"
"""The address that Pods see the machine at."""


def _ip(*commands: str, check: bool = True) -> None:
    for command in commands:
        subprocess.run(["ip", *command.split()], check=check, capture_output=not check)


def bridge_up() -> None:
    """Make the bridge, in the network namespace that this process runs in."""
    names = Path("/run/netns")
    names.mkdir(exist_ok=True)
    # Names are files of the machine, and those of a run that was killed would be in the way of this one.
    subprocess.run(["mount", "-t", "tmpfs", "netns", names], check=True)
    _ip("link set lo up", "link add pods type bridge", f"addr add {BRIDGE}/16 dev pods", "link set pods up")


def add_address(address: str) -> None:
    """Give the machine one address more, for a Service; it may have it already."""
    _ip(f"addr add {address}/32 dev pods", check=False)


def join(network: str, address: str) -> None:
    """Make the namespace `network` and put it on the bridge as `address`."""
    link = f"p{address.replace('.', '')}"[-14:]
    _ip(
        f"netns add {network}",
        f"link add {link} type veth peer name eth0 netns {network}",
        f"link set {link} master pods up",
        f"-n {network} link set lo up",
        f"-n {network} addr add {address}/16 dev eth0",
        f"-n {network} link set eth0 up",
        f"-n {network} route add default via {BRIDGE}",
    )


def leave(network: str) -> None:
    """Remove the namespace, once nothing runs in it any more."""
    _ip(f"netns del {network}", check=False)
