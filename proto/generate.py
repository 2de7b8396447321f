"""Regenerate workqueue/rpc/pb from the .proto files here: `make proto`, or `--out DIR` to write elsewhere.

`--check` writes nothing, and fails if what is committed is not what the generator makes, byte for byte: `make lint`.

The generator is the oldest whose output fits: what it makes runs on its own release of gRPC and protobuf and on all
later ones of the same and the next major version.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from grpc_tools import protoc

PROTO_DIRECTORY = Path(__file__).resolve().parent
REPOSITORY = PROTO_DIRECTORY.parent
# The file's name in protobuf's process-wide descriptor pool. protoc is told that proto/ is mounted here, for two
# reasons: a bare `workqueue.proto` would collide with anybody else's file of that name in the same process, and the
# generated modules import each other by this path.
MOUNT = "workqueue/rpc/pb"
NAMES = ("workqueue.proto", "externalscaler.proto")


def generate(out: Path) -> None:
    """Write the messages, the services and their typed stubs to `out`/workqueue/rpc/pb, which is created when missing.

    Raises:
        RuntimeError: protoc or one of its plugins refused; it has said why on stderr.
    """
    out.mkdir(parents=True, exist_ok=True)
    exit_code = protoc.main(
        [
            "protoc",
            f"--proto_path={MOUNT}={PROTO_DIRECTORY}",
            f"--plugin=protoc-gen-mypy={plugin('protoc-gen-mypy')}",
            f"--plugin=protoc-gen-mypy_grpc={plugin('protoc-gen-mypy_grpc')}",
            f"--python_out={out}",
            f"--grpc_python_out={out}",
            f"--mypy_out=quiet:{out}",
            f"--mypy_grpc_out=quiet:{out}",
            *(f"{MOUNT}/{name}" for name in NAMES),
        ]
    )
    if exit_code:
        raise RuntimeError(f"protoc ended with {exit_code}")


def plugin(name: str) -> Path:
    """The plugin installed beside the running interpreter, whose folder need not be on PATH."""
    return Path(sys.executable).parent / name


def differing(out: Path) -> list[str]:
    """The names of generated files in `out`/workqueue/rpc/pb that are not, byte for byte, what the generator makes."""
    with TemporaryDirectory() as folder:
        generate(Path(folder))
        made = contents(Path(folder) / MOUNT)
    there = contents(out / MOUNT)
    return sorted(name for name in made.keys() | there.keys() if made.get(name) != there.get(name))


def contents(folder: Path) -> dict[str, bytes]:
    """The generated files of a folder, by name."""
    return {path.name: path.read_bytes() for path in folder.glob("*_pb2*.py*") if path.suffix != ".pyc"}


def main() -> None:
    """Read the command line, and generate or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=REPOSITORY, help="the folder that holds workqueue/rpc/pb")
    parser.add_argument("--check", action="store_true", help="fail if a file is not what would be written")
    # The plugin for stubs asks for a newer protobuf than our lowest. What it uses of it is in both.
    os.environ["TEMPORARILY_DISABLE_PROTOBUF_VERSION_CHECK"] = "true"
    arguments = parser.parse_args()
    if not arguments.check:
        generate(arguments.out)
    elif names := differing(arguments.out):
        sys.exit(f"not what proto/ yields: {', '.join(names)}; never edit them, run `make proto`")


if __name__ == "__main__":
    main()
