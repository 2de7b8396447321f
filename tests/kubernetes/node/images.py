"""What stands in for the images that Pods name: folders of this machine, seen read-only."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["ETC", "IMAGES", "PACKAGES", "REPOSITORY", "Image", "image_of", "image_of_code"]

REPOSITORY = Path(__file__).resolve().parents[3]
PACKAGES = ("workqueue", "dispatcher", "tests")
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib64")


@dataclass(frozen=True)
class Image:
    """The folders that a container sees at their own paths, and the environment that it starts with."""

    folders: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)


def image_of_code(folder: Path) -> Image:
    """Our image, with the packages in `folder`: those of this checkout, or of another release."""
    env = {"PATH": f"{sys.prefix}/bin:/usr/bin:/bin", "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    # Not the folder itself: a checkout made by `mktemp -d` is its owner's alone, and Pods have another user.
    packages = (str(folder / name) for name in PACKAGES)
    return Image(tuple(dict.fromkeys((*_SYSTEM, sys.base_prefix, sys.prefix, *packages))), env)


IMAGES: dict[str, Image] = {
    "workqueue-dispatcher": image_of_code(REPOSITORY),
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
