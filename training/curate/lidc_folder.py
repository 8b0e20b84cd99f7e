"""A folder of LIDC-IDRI XML files and one of its DICOM series to a data set that models learn from.

Written: `json/<SeriesInstanceUID>.json` (everything a file says), and with DICOM: `manifest.json` with images and masks
in the training form, `nodules.json` (each nodule with every reader's figures), `marks.json` (points: nodules of less
than 3 mm, and what is no nodule), `curation.json` (what came of it, and what was left out).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from plugins.contract import Flag
from plugins.errors import Absent, Refused, Unavailable
from store.walk import files_under
from training.curate.case_files import MARGIN_MM, write_data_set
from training.curate.hold import hold
from training.curate.lidc_cases import Made, make_cases
from training.curate.lidc_json import reading_json
from training.curate.lidc_reading import Reading
from training.curate.lidc_series import find_series, read_series
from training.curate.lidc_xml import read_lidc_xml
from training.manifest import DataManifest


@dataclass(frozen=True, kw_only=True)
class Readings:
    """What a folder of XML files holds."""

    by_series: dict[str, Reading]
    """The readings by Series Instance UID."""
    passed_over: tuple[Flag, ...]
    """Files that are no reading of a CT, or that say the same as another."""
    refused: tuple[Flag, ...]
    """Files that cannot be read, or that contradict another."""


@dataclass(frozen=True, kw_only=True)
class Curated:
    """What became of a folder."""

    readings: Readings
    """What the XML files hold."""
    manifest: DataManifest | None = None
    """The cases; None when only JSON was asked for, or when there was no case."""
    nodules: int = 0
    """Nodules of 3 mm or more, also those that became no case."""
    marks: int = 0
    """Points."""
    without_series: tuple[str, ...] = ()
    """Series that readings speak of and that are not in the DICOM folder."""
    left_out: tuple[Flag, ...] = ()
    """What became no case, and why."""

    def plain(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "readings": len(self.readings.by_series),
            "nodules": self.nodules,
            "marks": self.marks,
            "cases": len(self.manifest.cases) if self.manifest else 0,
            "manifest_sha256": self.manifest.sha256 if self.manifest else None,
            "without_series": list(self.without_series),
            "left_out": [asdict(flag) for flag in self.left_out],
            "passed_over": [asdict(flag) for flag in self.readings.passed_over],
            "refused": [asdict(flag) for flag in self.readings.refused],
        }


def read_folder(folder: Path) -> Readings:
    """Return the readings of all XML files under a folder, or of the one file that it is. Refuses `no-xml`."""
    under, closed = ([folder], []) if folder.is_file() else files_under(folder)
    paths = [path for path in under if folder.is_file() or path.suffix.lower() == ".xml"]
    if not paths:
        raise Refused("no-xml", f"there is no XML file in {folder}")
    by_series: dict[str, Reading] = {}
    passed_over: list[Flag] = []
    refused = [Flag(code=one.code, sentence=one.sentence) for one in closed]
    for path in paths:
        try:
            reading = read_lidc_xml(path)
            earlier = by_series.setdefault(reading.series_instance_uid, reading)
            if earlier is not reading:
                _require_same(reading, earlier, path)
        except Absent as reason:
            passed_over.append(Flag(code=reason.code, sentence=reason.sentence))
        except Refused as reason:
            refused.append(Flag(code=reason.code, sentence=reason.sentence))
    return Readings(by_series=by_series, passed_over=tuple(passed_over), refused=tuple(refused))


def _require_same(reading: Reading, earlier: Reading, path: Path) -> None:
    uid = reading.series_instance_uid
    if reading == earlier:
        raise Absent("same-reading", f"{path.name} says what another file says of series {uid}")
    raise Refused("two-readings", f"{path.name} and another file say different things of series {uid}")


def write_json(readings: Readings, folder: Path) -> None:
    """Write every reading as `json/<SeriesInstanceUID>.json`. Raises Unavailable when that is not possible."""
    for uid, reading in readings.by_series.items():
        _write(folder / "json" / f"{uid}.json", reading_json(reading))


def curate_lidc(
    readings: Readings,
    dicom: Path,
    folder: Path,
    *,
    name: str,
    margin_mm: float = MARGIN_MM,
    least_readers: int = 1,
    tell: Callable[[str], None] = lambda what: None,
) -> Curated:
    """Return what became of the readings after the data set was written. `tell` is called with what is under way.

    A series that cannot be used is in `left_out`; the others go on. Refuses what `hold` refuses, and
    `no-series` (none of them is in the DICOM folder).
    """
    with hold(folder):
        write_json(readings, folder)
        found, damaged = find_series(dicom, readings.by_series, lambda path: tell(f"looking at {path.name}"))
        if not found:
            sentence = f"none of the {len(readings.by_series)} series that were read is in {dicom}"
            raise Refused("no-series", sentence)
        made: list[Made] = []
        left_out = list(damaged)
        for uid in sorted(found):
            tell(f"series {uid}")
            try:
                reading = readings.by_series[uid]
                series = read_series(found[uid], _named(reading))
                made.append(
                    make_cases(reading, series, folder, margin_mm=margin_mm, least_readers=least_readers)
                )
                left_out += made[-1].flags
            except Refused as reason:
                sentence = f"series {uid}: {reason.sentence}"
                left_out.append(Flag(code=reason.code, sentence=sentence, series_instance_uid=uid))
        nodules = [nodule for one in made for nodule in one.nodules]
        marks = [mark for one in made for mark in one.marks]
        cases = [case for one in made for case in one.cases]
        curated = Curated(
            readings=readings,
            manifest=write_data_set(folder, name, cases) if cases else None,
            nodules=len(nodules),
            marks=len(marks),
            without_series=tuple(sorted(readings.by_series.keys() - found.keys())),
            left_out=tuple(left_out),
        )
        for stem, told in (("nodules", nodules), ("marks", marks), ("curation", curated.plain())):
            _write(folder / f"{stem}.json", json.dumps(told, indent=1, allow_nan=False) + "\n")
        return curated


def _named(reading: Reading) -> set[str]:
    """Return the images that a reading names."""
    outlined = {c.sop_instance_uid for _, annotation in reading.annotations() for c in annotation.contours}
    return outlined | {mark.sop_instance_uid for _, mark in reading.marks()}


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Unavailable(f"{path} cannot be written: {error.strerror or error}") from error


__all__ = ["Curated", "Readings", "curate_lidc", "read_folder", "write_json"]
