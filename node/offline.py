"""The node without a network: a folder in, the same pipeline, files out."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from node.child import run_in_child
from node.pipeline import Analysed, Answer, Task
from node.settings import Settings
from plugins.errors import Refused
from plugins.registry import load_plugins
from store.dicom.series import group_by_study
from store.findings import Found, Told
from store.part10 import scan_header
from store.studies import manifest_hash


def analyse_folder(
    path: Path, out: Path, settings: Settings, *, plugins: Sequence[str] | None = None
) -> dict[str, Any]:
    """Return what every analysis found in the studies of a folder, after results are written to `out`.

    The answer has `findings`, `refused`, `flags`, `outputs` and `failed` (True when every analysis of a study was
    refused). Refuses `no-such-path`, `no-dicom` and `unknown-plugin`.
    """
    names = tuple(p.name for p in load_plugins(settings.plugins, plugins or settings.enabled))
    _make(out)
    analysed: list[Analysed] = []
    pages: list[str] = []
    for number, files in enumerate(_studies(path).values(), start=1):
        target = out if number == 1 else _make(out / f"study-{number}")
        answer = _run(files, target, names, settings, mask=None)
        analysed += answer.analysed
        pages += answer.pages
    report = summary(analysed)
    report["outputs"] += pages
    return report


def measure_mask(path: Path, mask: Path, settings: Settings) -> dict[str, Any]:
    """Return the measurements of the regions of a SEG, RTSTRUCT or NIfTI mask on the images of a folder.

    The answer is that of `analyse_folder`, without outputs. Refuses `no-such-path`, `no-dicom`, `several-studies`
    and what the mask's reader refuses.
    """
    if not mask.is_file():
        raise Refused("no-such-path", f"the mask {mask} does not exist")
    studies = _studies(path)
    if len(studies) > 1:
        raise Refused("several-studies", f"{path} holds {len(studies)} studies; name the folder of one")
    with tempfile.TemporaryDirectory(prefix="nadir-") as scratch:
        (files,) = studies.values()
        return summary(_run(files, Path(scratch), ("contours",), settings, mask=mask).analysed)


def summary(analysed: Iterable[Analysed]) -> dict[str, Any]:
    """Return analyses as plain data: findings, refused, flags, outputs, failed."""
    analysed = tuple(analysed)
    told: dict[bool, dict[tuple[str, str, str | None], Told]] = {True: {}, False: {}}
    ran: dict[str, bool] = {}
    for a in analysed:
        for t in (*a.results.told, *(flag for found in a.results.found for flag in found.flags)):
            told[t.refused].setdefault((t.code, t.sentence, t.series_instance_uid), t)
        ran[a.study_instance_uid] = ran.get(a.study_instance_uid, False) or a.error_code is None
    return {
        "findings": [_finding(f, a) for a in analysed for f in a.results.found],
        "refused": [_plain(t) for t in told[True].values()],
        "flags": [_plain(t) for t in told[False].values()],
        "outputs": [w.path for a in analysed for w in a.results.written],
        "failed": not all(ran.values()),
    }


def _run(
    files: Sequence[Path], out: Path, plugins: tuple[str, ...], settings: Settings, *, mask: Path | None
) -> Answer:
    task = Task(
        files=tuple(str(f) for f in files),
        manifest_sha256=manifest_hash(_pairs(files)),
        plugins=plugins,
        plugin_settings={name: settings.plugins.get(name, {}) for name in plugins},
        out=str(out),
        started_at=datetime.now(UTC).isoformat(),
        predecessors={},
        mask=None if mask is None else str(mask),
        pages=mask is None,
    )
    with tempfile.TemporaryDirectory(prefix="nadir-") as scratch:
        plain = run_in_child(
            task.to_json(),
            Path(scratch),
            memory_bytes=settings.job_memory_bytes,
            seconds=settings.job_seconds,
        )
    return Answer.from_json(plain)


def _studies(path: Path) -> Mapping[str, Sequence[Path]]:
    if not path.exists():
        raise Refused("no-such-path", f"{path} does not exist")
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    studies = group_by_study(files)
    if not studies:
        raise Refused("no-dicom", f"{path} holds no DICOM file that can be read")
    return studies


def _pairs(files: Iterable[Path]) -> list[tuple[str, str]]:
    """Return (SOP Instance UID, sha256) of each file that has one, for the manifest."""
    pairs = []
    for file in files:
        with file.open("rb") as opened:
            sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
        try:
            uid = scan_header(file).sop_instance_uid
        except Refused:
            uid = ""
        pairs.append((uid, sha256))
    return pairs


def _finding(f: Found, analysed: Analysed) -> dict[str, Any]:
    return {
        "label": f.label,
        "plugin": analysed.plugin,
        "study_instance_uid": analysed.study_instance_uid,
        "series_instance_uid": f.series_instance_uid,
        "segment_number": f.segment_number,
        "tracking_identifier": f.tracking_identifier,
        "tracking_uid": f.tracking_uid,
        "confidence": f.confidence,
        "centroid_mm": list(f.centroid_mm),
        "measurements": {
            m.name: {
                "value": m.value,
                "unit": m.unit,
                "method": m.method,
                **({"end_points_mm": [list(p) for p in m.end_points_mm]} if m.end_points_mm else {}),
            }
            for m in f.measurements
        },
        "flags": [_plain(flag) for flag in f.flags],
    }


def _plain(told: Told) -> dict[str, Any]:
    return {"code": told.code, "sentence": told.sentence, "series_instance_uid": told.series_instance_uid}


def _make(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused("bad-folder", f"the folder {folder} cannot be made: {error.strerror}") from error
    return folder
