"""How long a study takes from settled to delivered, in its parts.

    python benchmarks/settle_to_delivered.py [FOLDER] [--runs 3] [--cores 2] [--json out.json]

A real node and a real archive are started for every run, the study is sent by C-STORE, and the parts are read from
the ledger (timestamps) and from the node's log (seconds within a job). Without a folder the study is the phantom.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from sqlmodel import select

from node.archive import Archive
from node.scu import send_files
from store.database import Database
from store.jobs import list_jobs
from store.tables import Delivery, Instance, Revision

QUIET_SECONDS = 2.0
PATIENCE_SECONDS = 600.0
FIELD = re.compile(r"(\w+)=(\S+)")
WHOLE = ("receive", "settle wait", "settled to delivered", "node start")
PARTS = ("queue", "child start", "read", "find", "write", "store", "deliver")
MEANING = {
    "node start": "process start to the ready line",
    "receive": "C-STORE of all instances, one association",
    "settle wait": f"last instance to settled; the quiet time is set to {QUIET_SECONDS:g} s here",
    "settled to delivered": "settled to the last result confirmed by the archive",
    "queue": "settled (or put into the queue) to claimed by a worker",
    "child start": "process start and imports",
    "read": "headers, geometry, pixels, contours",
    "find": "the plugin itself",
    "write": "SEG and SRs: encoding and the rule check",
    "store": "fsync of the objects, rows, transaction",
    "deliver": "stored to confirmed by the archive",
}


class Node:
    """One `nadir serve` of its own, and its log."""

    def __init__(self, home: Path, archive_port: int) -> None:
        command = [str(Path(sys.executable).with_name("nadir")), "serve", "--home", str(home), "--accept-any"]
        ports = ["--dicom-port", "0", "--http-port", "0", "--dicom-host", "127.0.0.1"]
        to = ["--destination", f"ARCHIVE@127.0.0.1:{archive_port}", "--quiet-seconds", str(QUIET_SECONDS)]
        began = time.monotonic()
        self.process = subprocess.Popen(
            [*command, *ports, *to], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.log: list[str] = []
        self._reader = threading.Thread(target=self._keep_log, daemon=True)
        self._reader.start()
        assert self.process.stdout is not None
        ready = self.process.stdout.readline()
        self.start_seconds = time.monotonic() - began
        match = re.search(r"DICOM \S+:(\d+)", ready)
        if match is None:
            sys.exit(f"the node did not start: {''.join(self.log[-5:])}")
        self.port = int(match[1])

    def _keep_log(self) -> None:
        assert self.process.stderr is not None
        self.log.extend(self.process.stderr)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)
        self._reader.join(5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="a folder with one study; the phantom if absent")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--cores", type=int, default=2, help="cores that the node may use")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    with tempfile.TemporaryDirectory(prefix="nadir-bench-") as scratch:
        files = _files(arguments.folder, Path(scratch))
        runs = [_run(files, Path(scratch) / f"run{number}") for number in range(arguments.runs)]
    report = _report(runs, files)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    _show(report)


def _files(folder: Path | None, scratch: Path) -> list[Path]:
    if folder is None:
        from training.phantom import phantom
        from training.phantom_dicom import write_dicom

        return write_dicom(phantom(), scratch / "phantom")
    files = sorted(path for path in folder.rglob("*.dcm"))
    if not files:
        sys.exit(f"{folder} holds no .dcm file")
    return files


def _run(files: Sequence[Path], home: Path) -> dict[str, Any]:
    archive = Archive(home / "archive")
    archive.start()
    node = Node(home / "node", archive.port)
    try:
        began = time.monotonic()
        sent = send_files(files, ae_title="NADIR", host="127.0.0.1", port=node.port, calling_ae="SCANNER")
        receive = time.monotonic() - began
        failed = [s for s in sent if s.status != 0]
        if failed:
            sys.exit(f"{len(failed)} of {len(files)} files were not accepted")
        database = Database(f"sqlite:///{home / 'node' / 'nadir.sqlite'}")
        _wait(database)
        measured = _measured(database, node)
        database.dispose()
    finally:
        node.stop()
        archive.stop()
    return {"receive": receive, "node start": node.start_seconds, **measured}


def _wait(database: Database) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        with database.reading() as session:
            jobs = list_jobs(session)
        if jobs and all(job.state in ("done", "dead") for job in jobs):
            return
        time.sleep(0.5)
    sys.exit(f"the study was not delivered within {PATIENCE_SECONDS:g} s")


def _measured(database: Database, node: Node) -> dict[str, Any]:
    """Return the wait for settling, settled to delivered, and the parts of each job, in seconds."""
    deadline = time.monotonic() + 5
    with database.reading() as session:
        jobs = list_jobs(session)
        (revision,) = session.exec(select(Revision)).all()
        arrived = max(session.exec(select(Instance.received_at)).all())
        deliveries = session.exec(select(Delivery)).all()
    while (said := _said(node.log)).keys() != {job.plugin for job in jobs} and time.monotonic() < deadline:
        time.sleep(0.1)
    parts: dict[str, dict[str, float]] = {}
    for job in jobs:
        if job.state == "dead" or job.started_at is None:
            sys.exit(f"{job.plugin} failed: {job.error_code} {job.error_text}")
        own = [d for d in deliveries if d.job_pk == job.id]
        line = said[job.plugin]
        inside = {name: line.get(name, 0.0) for name in ("read", "find", "write")}
        parts[job.plugin] = {
            "queue": _between(job.created_at, job.started_at),
            "child start": line["child"] - sum(inside.values()),
            **inside,
            "store": line["all"] - line["child"],
            "deliver": max((_between(d.created_at, d.delivered_at) for d in own), default=0.0),
        }
    ends = [d.delivered_at for d in deliveries if d.delivered_at] or [j.finished_at for j in jobs]
    return {
        "settle wait": _between(arrived, revision.settled_at),
        "settled to delivered": _between(revision.settled_at, max(e for e in ends if e)),
        "jobs": parts,
        "results": len(deliveries),
    }


def _said(log: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return the seconds that the node's log tells of each plugin's job."""
    said = {}
    for line in list(log):
        if "action=job-analysed" in line:
            fields = dict(FIELD.findall(line))
            names = ("read", "find", "write", "child", "all")
            said[fields["plugin"]] = {name: float(fields[name]) for name in names if name in fields}
    return said


def _between(earlier: datetime, later: datetime | None) -> float:
    return 0.0 if later is None else (later - earlier).total_seconds()


def _report(runs: Sequence[dict[str, Any]], files: Sequence[Path]) -> dict[str, Any]:
    def median(values: Sequence[float]) -> float:
        return round(statistics.median(values), 3)

    return {
        "files": len(files),
        "runs": len(runs),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "results": runs[0]["results"],
        "whole": {name: median([run[name] for run in runs]) for name in WHOLE},
        "jobs": {
            plugin: {part: median([run["jobs"][plugin][part] for run in runs]) for part in PARTS}
            for plugin in runs[0]["jobs"]
        },
        "every run": [round(run["settled to delivered"], 3) for run in runs],
    }


def _show(report: dict[str, Any]) -> None:
    console = Console()
    head = f"{report['files']} files, {report['results']} results, medians of {report['runs']} runs"
    whole = Table("part", "seconds", "meaning", title=f"{head}, {report['cores']} cores")
    for name, value in report["whole"].items():
        whole.add_row(name, f"{value:.2f}", MEANING[name])
    console.print(whole)
    jobs = Table("part", *report["jobs"], "meaning", title="seconds within each job")
    for part in PARTS:
        values = [f"{times[part]:.2f}" for times in report["jobs"].values()]
        jobs.add_row(part, *values, MEANING[part])
    console.print(jobs)
    console.print(f"settled to delivered in every run: {report['every run']}; load {report['load']}")


if __name__ == "__main__":
    main()
