"""What stands in for the images that Pods name: folders of this machine, seen read-only."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["ETC", "IMAGES", "Image", "image_of"]

REPOSITORY = Path(__file__).resolve().parents[3]
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib64")


@dataclass(frozen=True)
class Image:
    """The folders that a container sees at their own paths, and the environment that it starts with."""

    folders: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)


def image_of_checkout(checkout: Path) -> Image:
    """Our image, with the code of a checkout: this one's, or that of another release."""
    env = {"PATH": f"{sys.prefix}/bin:/usr/bin:/bin", "PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1"}
    return Image(tuple(dict.fromkeys((*_SYSTEM, sys.base_prefix, sys.prefix, str(REPOSITORY), str(checkout)))), env)


IMAGES: dict[str, Image] = {
    "workqueue-dispatcher": image_of_checkout(REPOSITORY),
    "redis": Image((*_SYSTEM, sys.prefix), {"PATH": "/usr/bin:/bin"}),
}
"""By the name that Pods give, without the tag; a test may add others with a tag of their own."""

ETC = {
    "passwd": "root:x:0:0::/:/bin/false\nnonroot:x:65532:65532::/:/bin/false\n",
    "group": "root:x:0:\nnonroot:x:65532:\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "host.conf": "multi on\n",
    "resolv.conf": "",
}


def image_of(name: str) -> Image:
    """The image that a Pod calls `name`.

    Raises:
        KeyError: nobody made one of that name.
    """
    return IMAGES[name] if name in IMAGES else IMAGES[name.rpartition(":")[0]]
