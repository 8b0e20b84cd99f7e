"""The main job from end to end, on one machine: a patient at two dates is sent, analysed, delivered and shown.

Without data the patient is a computed thorax whose truth is known; with a folder of DICOM it is a real one.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from node import logs
from node.archive import Archive
from node.demo_ledger import Standing, collect, standing
from node.demo_truth import true_things
from node.own_folder import close_to_others
from node.report.folder import write_report
from node.report.shown import RESEARCH_USE, StudyReport, Truth
from node.report.terminal import findings_table, truth_table
from node.scu import Sent, send_files
from node.serve import Node
from node.settings import Settings
from plugins.errors import Refused, Unavailable
from store.database import Database
from store.dicom.series import group_by_study
from store.walk import all_files_under
from training.phantom import DATES, phantom
from training.phantom_dicom import study_instance_uid, write_dicom

LOOPBACK = "127.0.0.1"
ARCHIVE_AE, NODE_AE, SCANNER_AE = "ARCHIVE", "NADIR", "SCANNER"
QUIET_SECONDS = 1.5
PATIENCE_SECONDS = 120.0
MARK = ".nadir-demo"
OURS = ("input", "node", "archive", "dicom", "overlays")
ROLES = ("listener", "worker", "sender")


@dataclass(frozen=True, kw_only=True)
class Input:
    """What is sent."""

    files: Mapping[str, Sequence[Path]]
    """Files by Study Instance UID."""
    truth: Mapping[str, Truth] | None = None
    """Truth by Study Instance UID; None for real data."""


def run_demo(
    out: Path,
    *,
    data: Path | None = None,
    console: Console,
    seed: int = 0,
    quiet_seconds: float = QUIET_SECONDS,
) -> int:
    """Return 0 after everything was sent, analysed, delivered and shown; 1 when an analysis of the phantom failed.

    With `data` an analysis that refuses a study is told and is no failure, as long as one of them gave a result.
    Leaves in `out`: `dicom` (results as the archive holds them), `overlays`, `measurements.csv`, `report.html`,
    `input` (the phantom) and `node` (the node's home). Refuses `folder-not-empty`, `no-such-path`, `closed-folder`,
    `no-dicom`; raises Unavailable when something does not answer.
    """
    started = time.monotonic()
    _prepare(out, data)
    with _log_to(out / "node.log"), _progress(console) as progress:
        source = _phantom(out / "input", seed, progress) if data is None else _real(data, progress)
        reports, end = _through_the_node(source, out, quiet_seconds, progress)
        truth = None
        if source.truth is not None:
            truth = [source.truth[report.study.study_instance_uid] for report in reports]
        pages = _write_pages(out, reports, truth, progress)
    _show(console, out, reports, truth, end, pages, time.monotonic() - started)
    failed = bool(end.dead) if data is None else len(end.dead) == end.jobs
    return 1 if failed or not reports else 0


def _prepare(out: Path, data: Path | None) -> None:
    if data is not None and not data.exists():
        raise Refused("no-such-path", f"{data} does not exist; name a folder of DICOM files with --data")
    if out.exists() and not out.is_dir():
        raise Refused("folder-not-empty", f"{out} is a file; name a folder with --out")
    if out.is_dir() and any(out.iterdir()) and not (out / MARK).exists():
        raise Refused(
            "folder-not-empty", f"{out} holds other files; name an empty or a new folder with --out"
        )
    if data is not None and data.resolve().is_relative_to(out.resolve()):
        raise Refused("folder-not-empty", f"{data} lies inside {out}, which is emptied; name another --out")
    try:
        out.mkdir(parents=True, exist_ok=True, mode=0o700)
        close_to_others(out)
        (out / MARK).touch()
        for name in OURS:
            if (out / name).exists():
                shutil.rmtree(out / name)
    except OSError as error:
        raise Unavailable(f"the folder {out} cannot be written: {error.strerror or error}") from error


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description:<34}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)


@contextmanager
def _log_to(path: Path) -> Iterator[None]:
    """Send the log records of this process to a file, and put back what was there before."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    with path.open("w", encoding="utf-8") as stream:
        logs.configure("INFO", stream)
        try:
            yield
        finally:
            root.handlers[:] = before
            root.setLevel(level)
            logging.captureWarnings(False)


def _phantom(folder: Path, seed: int, progress: Progress) -> Input:
    task = progress.add_task("Phantom at two dates, CT and PET", total=None)

    def made(index: int) -> tuple[str, Sequence[Path], Truth]:
        thorax = phantom(seed, index)
        progress.update(task, total=len(DATES) * (thorax.ct_grid.shape[0] + thorax.pet_grid.shape[0]))
        told = _advance(progress, task)
        files = write_dicom(thorax, folder / DATES[index].date().isoformat(), progress=told)
        return str(study_instance_uid(thorax)), files, true_things(thorax)

    with ThreadPoolExecutor(len(DATES)) as both:
        studies = list(both.map(made, range(len(DATES))))
    return Input(
        files={uid: files for uid, files, _ in studies}, truth={uid: known for uid, _, known in studies}
    )


def _advance(progress: Progress, task: TaskID) -> Callable[[int, int], None]:
    def told(_done: int, _total: int) -> None:
        progress.advance(task)

    return told


def _real(data: Path, progress: Progress) -> Input:
    task = progress.add_task("Looking through the folder", total=None)
    files = group_by_study([data] if data.is_file() else all_files_under(data))
    files.pop("", None)
    if not files:
        raise Refused("no-dicom", f"{data} holds no DICOM file that can be read")
    count = sum(map(len, files.values()))
    progress.update(task, total=count, completed=count)
    return Input(files=files)


def _through_the_node(
    source: Input, out: Path, quiet_seconds: float, progress: Progress
) -> tuple[list[StudyReport], Standing]:
    """Return what came back of the studies and how their analyses ended, after they went through a real node."""
    archive = Archive(out / "archive", ae_title=ARCHIVE_AE, host=LOOPBACK)
    archive.start()
    try:
        node = Node(_settings(out, archive.port, quiet_seconds), ROLES)
        node.start()
        try:
            _send(source, node.dicom_port, progress)
            end = _wait(node.database, list(source.files), progress)
            reports = collect(node.database, archive.listing(), source.files, out / "dicom")
        finally:
            node.stop()
    finally:
        archive.stop()
    shutil.rmtree(out / "archive", ignore_errors=True)
    return reports, end


def _settings(out: Path, archive_port: int, quiet_seconds: float) -> Settings:
    return Settings(
        home=out.resolve() / "node",
        ae_title=NODE_AE,
        dicom_host=LOOPBACK,
        dicom_port=0,
        callers=(f"{SCANNER_AE}@{LOOPBACK}",),
        destinations=(f"{ARCHIVE_AE}@{LOOPBACK}:{archive_port}",),
        quiet_seconds=quiet_seconds,
        reconcile_seconds=0,
        workers=2 if (os.cpu_count() or 1) > 1 else 1,
    )


def _send(source: Input, port: int, progress: Progress) -> None:
    files = [path for paths in source.files.values() for path in paths]
    task = progress.add_task("Sent by C-STORE", total=len(files))
    failed: list[Sent] = []

    def told(sent: Sent) -> None:
        progress.advance(task)
        if not sent.ok:
            failed.append(sent)

    send_files(
        files,
        ae_title=NODE_AE,
        host=LOOPBACK,
        port=port,
        calling_ae=SCANNER_AE,
        on_progress=told,
        associations=2,
    )
    if len(failed) == len(files):
        raise Unavailable(
            f"the node took none of the {len(files)} files; {failed[0].text or 'no reason was given'}"
        )
    for sent in failed:
        progress.console.print(f"not taken: {sent.path.name}: {sent.text}", markup=False, highlight=False)


def _wait(database: Database, study_instance_uids: Sequence[str], progress: Progress) -> Standing:
    """Return how it ended, once every study settled, every analysis ended and every result is delivered.

    Raises Unavailable when a result cannot be delivered, or when nothing has moved for long and nothing runs.
    """
    settling = progress.add_task("Studies settled", total=len(study_instance_uids))
    analysing = progress.add_task("Analyses ended", total=None)
    delivering = progress.add_task("Results delivered to the archive", total=None)
    last, moved = None, time.monotonic()
    while True:
        now = standing(database, study_instance_uids)
        progress.update(settling, completed=now.settled)
        progress.update(analysing, completed=now.ended, total=now.jobs or None)
        progress.update(delivering, completed=now.delivered, total=now.results or None)
        if now.done(len(study_instance_uids)):
            return now
        if now.parked:
            raise Unavailable(f"{len(now.parked)} results could not be delivered: {now.parked[0]}")
        if now != last:
            last, moved = now, time.monotonic()
        if time.monotonic() - moved > PATIENCE_SECONDS and now.ended == now.jobs:
            raise Unavailable(f"the node has not moved for {PATIENCE_SECONDS:.0f} s; its log is node.log")
        time.sleep(0.2)


def _write_pages(
    out: Path, reports: Sequence[StudyReport], truth: Sequence[Truth] | None, progress: Progress
) -> list[Path]:
    task = progress.add_task("Pictures, CSV and page", total=None)

    def told(done: int, total: int) -> None:
        progress.update(task, completed=done, total=total)

    title = "Nadir: thorax phantom" if truth is not None else "Nadir report"
    return write_report(out, reports, made_at=datetime.now(UTC), truth=truth, title=title, progress=told)


def _show(
    console: Console,
    out: Path,
    reports: Sequence[StudyReport],
    truth: Sequence[Truth] | None,
    end: Standing,
    pages: Sequence[Path],
    seconds: float,
) -> None:
    if truth is not None:
        console.print(truth_table(reports, truth, "nodule"))
        console.print(truth_table(reports, truth, "lung"))
    else:
        console.print(findings_table(reports))
    for plugin, code, text in end.dead:
        console.print(f"no result of {plugin}: {text} ({code})", markup=False, highlight=False)
    objects = sum(len(report.files) for report in reports)
    pictures = sum(1 for path in pages if path.suffix == ".png")
    courses = sorted((out / "node" / "reports").glob("*.html"))
    for what, where in (
        (f"{objects} SEG, SR and PDF", out / "dicom"),
        (f"{pictures} pictures", out / "overlays"),
        ("measurements", out / "measurements.csv"),
        ("page to open", out / "report.html"),
        *(("the patient's course", page) for page in courses),
        ("the node's SQL and log", out / "node"),
    ):
        console.print(f"{what:<24} {where}", markup=False, highlight=False)
    console.print(f"{seconds:.0f} s. {RESEARCH_USE}.", highlight=False)
