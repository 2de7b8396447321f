"""Run one container: `container.py SPEC.json`, a program of its own that only the standard library is needed for.

It joins the Pod's network, makes namespaces for mounts, processes and IPC, builds a root file system of bind mounts,
and becomes the container's command as process 1. It writes that process's id to a file, and ends as the command ends.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = (
    0x00020000, 0x04000000, 0x08000000, 0x20000000, 0x40000000,
)  # fmt: skip
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS, PR_CAPBSET_DROP = 1, 38, 24
LAST_CAPABILITY = 40

libc = ctypes.CDLL(None, use_errno=True)


def checked(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def mount(source: str, target: Path, kind: str = "none", flags: int = 0, data: str = "") -> None:
    names = [it.encode() for it in (source, str(target), kind)]
    checked(libc.mount(*names, ctypes.c_ulong(flags), data.encode() or None), f"mount {source} at {target}")


def bind(source: str, target: Path, *, read_only: bool) -> None:
    """Show a file or folder of the machine inside the container."""
    if os.path.isdir(source):
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    mount(source, target, flags=MS_BIND | MS_REC)
    if read_only:
        mount("none", target, flags=MS_BIND | MS_REMOUNT | MS_RDONLY)


def build_root(spec: dict[str, Any], root: Path) -> None:
    """The image's folders, its own /etc, /proc and /dev, and the volumes, under `root`."""
    mount("none", Path("/"), flags=MS_REC | MS_PRIVATE)
    mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    # Volumes first: a checkout may be below /tmp, where every Pod has one.
    for volume in spec["mounts"]:
        bind(volume["source"], root / volume["path"].lstrip("/"), read_only=volume["read_only"])
    for folder in spec["image"]:
        target = root / folder.lstrip("/")
        if os.path.islink(folder):
            target.symlink_to(os.readlink(folder))
        else:
            bind(folder, target, read_only=True)
    (root / "etc").mkdir(exist_ok=True)
    for name, text in spec["etc"].items():
        (root / "etc" / name).write_text(text)
    (root / "etc" / "hosts").symlink_to("/run/hosts/hosts")
    bind(spec["hosts"], root / "run/hosts", read_only=True)
    (root / "proc").mkdir()
    mount("proc", root / "proc", "proc", MS_NOSUID | MS_NODEV)
    for device in ("null", "zero", "random", "urandom"):
        bind(f"/dev/{device}", root / "dev" / device, read_only=False)
    if spec["read_only_root"]:
        mount("none", root, flags=MS_BIND | MS_REMOUNT | MS_RDONLY)


def become(spec: dict[str, Any]) -> None:
    """The child's part: the last one of this program that runs, as process 1 of its own world."""
    root = Path(spec["root"])
    root.mkdir(exist_ok=True)
    build_root(spec, root)
    os.chroot(root)
    os.chdir("/")
    libc.sethostname(spec["hostname"].encode(), len(spec["hostname"]))
    for capability in range(LAST_CAPABILITY + 1) if spec["drop_all"] else ():
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    os.setgroups([spec["group"]])
    os.setgid(spec["group"])
    os.setuid(spec["user"])
    checked(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")  # not sooner: setuid forgets it
    checked(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    os.execvpe(spec["command"][0], spec["command"], spec["env"])


def run(spec: dict[str, Any]) -> int:
    """Start the container and wait for its end."""
    if spec["network"]:
        network = os.open(spec["network"], os.O_RDONLY)
        checked(libc.setns(network, CLONE_NEWNET), "setns")
    checked(libc.unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID), "unshare")
    child = os.fork()
    if child == 0:
        try:
            become(spec)
        except BaseException as error:  # noqa: BLE001 - nothing of this program may outlive a failed start
            print(f"the container cannot start: {error}", file=sys.stderr, flush=True)
        os._exit(127)
    Path(spec["pid_file"]).write_text(str(child))
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(run(json.loads(Path(sys.argv[1]).read_text())))
