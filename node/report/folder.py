"""A folder that people can open: overlay pictures, one CSV, one page."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from PIL import Image

from node.report.overlays import montage, overlay
from node.report.page import StudySection, page, section
from node.report.shown import StudyReport, Truth
from node.report.table import csv_text, rows
from plugins.errors import Refused, Unavailable

Progress = Callable[[int, int], None]


def write_report(
    folder: Path,
    reports: Sequence[StudyReport],
    *,
    made_at: datetime,
    truth: Sequence[Truth] | None = None,
    title: str = "Nadir report",
    progress: Progress | None = None,
) -> list[Path]:
    """Return the files written: `overlays/*.png`, `measurements.csv` and `report.html`.

    `truth` has one entry for each study; with it, truth stands beside measurement. `progress` is told
    (done, of all) after each picture. Refuses (`truth-does-not-fit`) a truth of another number of studies;
    raises Unavailable when the folder cannot be written.
    """
    if truth is not None and len(truth) != len(reports):
        raise Refused("truth-does-not-fit", f"{len(reports)} studies came with the truth of {len(truth)}")
    try:
        return _write(folder, reports, made_at, truth, title, progress)
    except OSError as error:
        raise Unavailable(f"the report cannot be written to {folder}: {error.strerror or error}") from error


def _write(
    folder: Path,
    reports: Sequence[StudyReport],
    made_at: datetime,
    truth: Sequence[Truth] | None,
    title: str,
    progress: Progress | None,
) -> list[Path]:
    total = sum(len(r.findings) + 1 for r in reports)
    files: list[Path] = []
    sections: list[StudySection] = []
    for number, report in enumerate(reports):
        pictures: dict[str, Image.Image] = {}
        prefix = f"{number + 1:02d}_{_file_word(report.date)}"
        for index, finding in enumerate(report.findings):
            image = overlay(finding, report)
            if image is not None:
                pictures[finding.tracking_uid] = image
                name = f"{prefix}_{finding.plugin}_{index + 1:03d}_{_file_word(finding.label)}.png"
                files.append(_save(image, folder / "overlays" / name))
            _tell(progress, sum(len(r.findings) + 1 for r in reports[:number]) + index + 1, total)
        overview = montage(report)
        if overview is not None:
            files.append(_save(overview, folder / "overlays" / f"{prefix}_overview.png"))
        _tell(progress, sum(len(r.findings) + 1 for r in reports[: number + 1]), total)
        sections.append(
            section(
                report,
                montage=overview,
                pictures=pictures,
                truth=truth[number] if truth is not None else None,
            )
        )
    files.append(_text(folder / "measurements.csv", csv_text(rows(reports, truth))))
    html = page(sections, title=title, made_at=made_at, software=f"Nadir {version('nadir')}", truth=truth)
    files.append(_text(folder / "report.html", html))
    return files


def _tell(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)


def _file_word(text: str) -> str:
    """Return a word that is safe as part of a file name: labels and dates come from the network."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[:40] or "unnamed"


def _save(image: Image.Image, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, format="PNG", optimize=False, compress_level=6)
    return path


def _text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    # A file name that is shown may hold bytes that are no text.
    path.write_text(text, encoding="utf-8", errors="replace", newline="")
    return path
