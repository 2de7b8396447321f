"""What README.md shows runs as it stands there."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import grpc
import pytest

from tests.support.processes import python, started
from workqueue.rpc.pb import workqueue_pb2 as pb
from workqueue.rpc.pb.workqueue_pb2_grpc import WorkqueueServiceStub

ROOT = Path(__file__).parents[2]


def example(name: str) -> str:
    found = re.search(rf"<!-- runs: {name} -->\n```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert found, f"README.md has no example {name}"
    return found[1]


def test_the_library_example_reconciles_both_of_its_keys(tmp_path: Path) -> None:
    done = python("-c", example("library"), cwd=tmp_path)
    assert done.code == 0, done.err
    assert done.out.splitlines() == [
        "making customer/42 what it should be, attempt 1",
        "making certificate/example.org what it should be, attempt 1",
    ]


def test_the_grpc_example_serves_a_reconciler(tmp_path: Path) -> None:
    # The example names its port, as its reader would; the test needs a free one and to be told which it is.
    code = (
        example("grpc")
        .replace("port=8080", "port=0")
        .replace("await server.wait()", "print(server.port, flush=True); await server.wait()")
    )
    with started([sys.executable, "-c", code], cwd=tmp_path) as server:
        port = int(server.said())
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            answer = WorkqueueServiceStub(channel).Process(pb.ProcessRequest(key="customer/42"), timeout=10)
        server.terminate()
        assert answer == pb.ProcessResponse()
        assert "making customer/42" in server.communicate()[0]


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name
)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)[^)]*\)", page.read_text())
    missing = [link for link in links if not (page.parent / link).exists()]
    assert missing == []
