"""For the alerts' tests: Debian's Prometheus and promtool, installed if they are not here, and a server to ask."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import yaml

from tests.fakes.redis_server import free_port
from tests.support.eventually import eventually
from tests.support.processes import ran, started

__all__ = ["Prometheus", "program"]


def program(name: str) -> str:
    """The path of `prometheus` or `promtool`.

    Raises:
        RuntimeError: it is not installed, and cannot be installed from here.
    """
    found = shutil.which(name)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        for command in ("update", "install --yes --no-install-recommends prometheus"):
            done = ran(["apt-get", "--quiet", *command.split()], env={"DEBIAN_FRONTEND": "noninteractive"}, timeout=600)
            assert done.code == 0, done.err
        found = shutil.which(name)
    if found is None:
        raise RuntimeError(f"{name} is not on the PATH: install Prometheus (on Debian: apt-get install prometheus)")
    return found


class Prometheus:
    """A server that scrapes its targets every second and evaluates its rules as often."""

    def __init__(self, folder: Path, rules: str) -> None:
        self._folder = folder
        self._targets: dict[str, str] = {}
        self.port = free_port()
        (folder / "rules.yaml").write_text(rules, encoding="utf-8")
        self._write_targets()
        scrape = {"job_name": "workqueue", "file_sd_configs": [{"files": ["targets.json"], "refresh_interval": "1s"}]}
        configuration = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [scrape],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration), encoding="utf-8")

    @contextmanager
    def running(self) -> Iterator[Prometheus]:
        """The server, until the block ends."""
        arguments = [
            f"--config.file={self._folder}/prometheus.yml",
            f"--storage.tsdb.path={self._folder}/data",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=warn",
        ]
        with started([program("prometheus"), *arguments], out=False) as process:
            eventually("a Prometheus that answers", lambda: process.poll() is None and self._ready())
            yield self

    def scrape(self, name: str, port: int) -> None:
        """Scrape one process of this machine from now on."""
        self._targets[name] = f"127.0.0.1:{port}"
        self._write_targets()

    def _write_targets(self) -> None:
        groups = [{"targets": [target], "labels": {"process": name}} for name, target in self._targets.items()]
        (self._folder / "targets.new").write_text(json.dumps(groups), encoding="utf-8")
        (self._folder / "targets.new").rename(self._folder / "targets.json")

    def _ready(self) -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _ask(self, path: str) -> Any:
        with urlopen(f"http://127.0.0.1:{self.port}/api/v1/{path}", timeout=20) as answer:
            return json.load(answer)["data"]

    def fired(self) -> set[tuple[str, str]]:
        """The alerts that have fired until now, each with its queue."""
        found = self.query('last_over_time(ALERTS{alertstate="firing"}[1h])')
        return {(it["metric"]["alertname"], it["metric"]["queue_name"]) for it in found}

    def history(self, expression: str, seconds: int = 300) -> list[Mapping[str, Any]]:
        """The result of a query at each of the last seconds."""
        now = int(time.time())
        times = f"start={now - seconds}&end={now}&step=1"
        found: list[Mapping[str, Any]] = self._ask(f"query_range?query={quote(expression)}&{times}")["result"]
        return found

    def query(self, expression: str) -> list[Mapping[str, Any]]:
        """The instant result of a query."""
        found: list[Mapping[str, Any]] = self._ask(f"query?query={quote(expression)}")["result"]
        return found
