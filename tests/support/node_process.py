"""A real node: the command `nadir serve` in a process of its own, on free ports."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from node.cli import app

NADIR = Path(sys.executable).with_name("nadir")
READY_SECONDS = 60


class NodeProcess:
    """One `nadir serve`, started and stopped as an administrator would."""

    def __init__(self, home: Path, *flags: str, environment: Mapping[str, str] | None = None) -> None:
        self.home = home
        self._flags = flags
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self.log: list[str] = []
        self.ready_line = ""
        self.dicom_port = 0
        self.http_port = 0

    def start(self) -> None:
        """Start it; returns when it says that it is ready."""
        ports = ("--dicom-port", str(self.dicom_port), "--http-port", str(self.http_port))
        self._process = subprocess.Popen(
            [str(NADIR), "serve", "--home", str(self.home), *ports, *self._flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._environment,
        )
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._keep_log, args=(self._process,), daemon=True)
        self._reader.start()
        self.ready_line = self._process.stdout.readline()
        if "ready" not in self.ready_line:
            self._process.wait(READY_SECONDS)
            time.sleep(0.2)
            raise RuntimeError(f"the node did not start: {' '.join(self.log)}")
        if match := re.search(r"DICOM \S+:(\d+)", self.ready_line):
            self.dicom_port = int(match[1])
        if match := re.search(r"http://[^:]+:(\d+)", self.ready_line):
            self.http_port = int(match[1])

    def _keep_log(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        self.log.extend(process.stderr)

    def stop(self) -> int:
        """Send SIGTERM and return the exit status."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(120)

    def kill(self) -> None:
        """Send SIGKILL, when it still runs, and close what it wrote to."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait(60)
        if self._reader is not None:
            self._reader.join(60)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        self._process = None

    def ask(self, *arguments: str) -> Any:
        """Return the JSON that `nadir ... --json` prints about this node."""
        return nadir_json(*arguments, "--home", str(self.home))

    def look(self, *arguments: str) -> Any:
        """Return what `ask` does without a process for it: for who looks again and again."""
        done = CliRunner().invoke(app, [*arguments, "--home", str(self.home), "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    def wait_for(
        self, plugin: str, states: Sequence[str] = ("done",), seconds: float = 120
    ) -> dict[str, Any]:
        """Return the newest job of a plugin once it is in one of `states`."""
        deadline = time.monotonic() + seconds
        while True:
            jobs = [job for job in self.look("jobs", "list") if job["plugin"] == plugin]
            if jobs and jobs[-1]["state"] in states:
                return dict(jobs[-1])
            if time.monotonic() > deadline:
                raise TimeoutError(f"no job of {plugin} is {states}: {jobs}\n{''.join(self.log[-40:])}")
            time.sleep(0.2)

    def wait_until_idle(self, seconds: float = 180) -> list[dict[str, Any]]:
        """Return all jobs once there are some and none is queued, running or delivering."""
        deadline = time.monotonic() + seconds
        while True:
            jobs = self.look("jobs", "list")
            if jobs and all(j["state"] not in ("queued", "running", "delivering") for j in jobs):
                return list(jobs)
            if time.monotonic() > deadline:
                raise TimeoutError(f"jobs are left: {jobs}\n{''.join(self.log[-40:])}")
            time.sleep(0.2)


def nadir_json(*arguments: str, status: int = 0) -> Any:
    """Return what `nadir ARGUMENTS --json` prints."""
    done = nadir(*arguments, "--json")
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout)


def nadir(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command and return how it ended."""
    return subprocess.run([str(NADIR), *arguments], capture_output=True, text=True, timeout=300, check=False)


@contextmanager
def node(home: Path, *flags: str, **settings: Any) -> Iterator[NodeProcess]:
    """Give a running node that is gone afterwards."""
    process = NodeProcess(home, *flags, **settings)
    try:
        process.start()
        yield process
    finally:
        process.kill()
