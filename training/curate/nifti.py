"""A folder of NIfTI images and masks to a data set: each label of a mask is a case.

Which mask belongs to which image, and both to whom, is said by a table (CSV: `image`, `mask`, `patient`, any other
column becomes a tag, but for `OWN`) or by the names of the files (`Names`). Nobody guesses it: two images of one
patient that pass for two patients would end on both sides of a split. A mask has to lie on the voxels of its image;
nothing is resampled.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from plugins.contract import Drawn, Volume
from plugins.errors import Refused
from store.dicom.nifti import is_nifti, read_nifti
from store.dicom.nifti_image import read_image
from store.walk import files_under
from training.curate.case_files import Tags
from training.curate.curation import Curation, Gathering, LeftOut
from training.curate.hold import hold
from training.curate.wanted import Wanted
from training.table import read_rows

COLUMNS = ("image", "mask", "patient")
OWN = ("spacing_x_mm", "spacing_z_mm", "origin", "label", "doubts")
"""Tags that image and mask themselves say."""
RESAMPLED = "mask-resampled"
PLACE = re.compile(r"\{([a-z_]+)\}|(\*)")
BESIDE = re.compile(r"(\{[a-z_]+\}|\*){2,}")
Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One image with one mask."""

    image: Path
    """The image."""
    mask: Path
    """Its mask."""
    patient_id: str
    """Whose they are."""
    tags: Tags = field(default_factory=dict)
    """What else is known of them."""


@dataclass(frozen=True, kw_only=True)
class Names:
    """How files are named: paths within the folder, with places such as `{patient}` and `{scan}`.

    `{patient}` has to be in both; an image and a mask belong together when all places hold the same. A place takes as
    few characters as it can, and no slash; `*` stands for anything but a slash and is not compared.
    """

    image: str
    """Name of the images: `imagesTr/{patient}_0000.nii.gz`."""
    mask: str
    """Name of the masks: `labelsTr/{patient}.nii.gz`."""

    def __post_init__(self) -> None:
        places = [{name for name, _ in PLACE.findall(one) if name} for one in (self.image, self.mask)]
        if "patient" not in places[0] or places[0] != places[1]:
            raise Refused(
                "bad-names",
                f"'{self.image}' and '{self.mask}' have to hold the same places, and {{patient}} among them",
            )
        if touching := BESIDE.search(f"{self.image} {self.mask}"):
            raise Refused(
                "bad-names", f"where one place of '{touching[0]}' ends and the next begins is not told"
            )


def pairs_by_name(folder: Path, names: Names) -> tuple[list[Pair], list[LeftOut]]:
    """Return the pairs of a folder, in order of the masks, and files that have no partner. Refuses `no-such-path`."""
    if not folder.is_dir():
        raise Refused("no-such-path", f"there is no folder {folder}")
    under, closed = files_under(folder)
    files = [path for path in under if is_nifti(path)]
    masks = _named(files, names.mask, folder)
    images = _named([file for file in files if file not in masks], names.image, folder)
    by_places: dict[tuple[tuple[str, str], ...], list[Path]] = {}
    for file, places in images.items():
        by_places.setdefault(places, []).append(file)
    pairs: list[Pair] = []
    left_out = [_left(one.code, one.sentence, folder, folder) for one in closed]
    for mask, places in masks.items():
        found = by_places.get(places, [])
        if len(found) == 1:
            pairs.append(Pair(image=found[0], mask=mask, patient_id=dict(places)["patient"]))
        else:
            code = "several-images" if found else "no-image"
            sentence = f"{len(found)} images are named like it" if found else "no image is named like it"
            left_out.append(_left(code, sentence, mask, folder))
    paired = {pair.image for pair in pairs}
    left_out += [
        _left("no-mask", "no mask is named like it", file, folder) for file in images if file not in paired
    ]
    left_out += [
        _left("other-files", "its name is neither that of an image nor that of a mask", file, folder)
        for file in files
        if file not in masks and file not in images
    ]
    return pairs, left_out


def pairs_of_table(folder: Path, table: Path) -> tuple[list[Pair], list[LeftOut]]:
    """Return the pairs of a CSV, whose paths are relative to the folder, and rows that name no file or nobody.

    Refuses `bad-table`: what `training.table` refuses, a column of `OWN`, a mask that is named twice, a file of two
    patients.
    """
    pairs, left_out = [], []
    lines: dict[Path, tuple[str, str]] = {}
    rows = read_rows(table, COLUMNS, "bad-table")
    if own := [name for name in OWN if any(name in row for _, row in rows)]:
        raise Refused(
            "bad-table",
            f"{table} has a column {', '.join(own)}, which image and mask tell themselves; leave it out, or rename it",
        )
    for number, row in rows:
        where = f"{table.name}, line {number}"
        try:
            pair = _pair(folder, row)
        except Refused as reason:
            left_out.append(LeftOut(code=reason.code, sentence=reason.sentence, where=where))
            continue
        for path in (pair.image, pair.mask):
            whose, before = lines.setdefault(path, (pair.patient_id, where))
            if whose != pair.patient_id:
                raise Refused("bad-table", f"{before} and {where} give {path.name} to two patients")
        if lines[pair.mask][1] != where:
            raise Refused("bad-table", f"{lines[pair.mask][1]} and {where} name the same mask")
        pairs.append(pair)
    return pairs, left_out


def _pair(folder: Path, row: Mapping[str, str]) -> Pair:
    """Return the pair of a row. Refuses `outside`, `no-file` and `no-patient-id`."""
    image, mask, patient = (row[name].strip() for name in COLUMNS)
    for name in (image, mask):
        if not Path(os.path.abspath(folder / name)).is_relative_to(os.path.abspath(folder)):
            raise Refused("outside", f"'{name}' is not in {folder}, to which paths are relative")
        if not name or not (folder / name).is_file():
            raise Refused("no-file", f"there is no file '{name}' in {folder}")
    if not patient:
        raise Refused("no-patient-id", "it names no patient")
    tags = {name: _value(word) for name, word in row.items() if name and name not in COLUMNS}
    return Pair(image=folder / image, mask=folder / mask, patient_id=patient, tags=tags)


def curate_nifti(
    source: Path,
    folder: Path,
    pairs: Iterable[Pair],
    wanted: Wanted,
    name: str,
    *,
    labels: Sequence[int] = (),
    left_out: Sequence[LeftOut] = (),
    tell: Tell = lambda what: None,
) -> Curation:
    """Return what became of pairs of NIfTI files, after the data set was written: a case for each label of each mask.

    `labels` are those that are wanted, all when empty. Refuses what `hold` refuses and `no-pairs`; raises Unavailable
    when the data set cannot be written.
    """
    with hold(folder):
        by_image: dict[Path, list[Pair]] = {}
        for pair in pairs:
            by_image.setdefault(pair.image, []).append(pair)
        if not by_image:
            said = f": {left_out[0].where}: {left_out[0].sentence}" if left_out else ""
            raise Refused("no-pairs", f"there is no image with its mask in {source}{said}")
        gathering = Gathering(folder=folder, wanted=wanted, left_out=list(left_out))
        for image, members in by_image.items():
            tell(f"reading {image.name}")
            try:
                volume = read_image(image, wanted.modality).volume
            except Refused as reason:
                gathering.leave(reason, _where(image, source))
                continue
            for pair in members:
                _take_pair(pair, volume, gathering, source, labels)
        return gathering.finish(name)


def _take_pair(pair: Pair, volume: Volume, gathering: Gathering, source: Path, labels: Sequence[int]) -> None:
    where = _where(pair.mask, source)
    try:
        found = read_nifti(pair.mask, (volume,))
        if any(flag.code == RESAMPLED for drawn in found for flag in drawn.flags):
            raise Refused("unequal-grids", f"it does not lie on the voxels of {pair.image.name}; resample it")
    except Refused as reason:
        gathering.leave(reason, where)
        return
    for drawn in found:
        try:
            _take(pair, drawn, volume, gathering, where, labels)
        except Refused as reason:
            gathering.leave(reason, where, drawn.label)


def _take(
    pair: Pair, drawn: Drawn, volume: Volume, gathering: Gathering, where: str, labels: Sequence[int]
) -> None:
    if labels and drawn.number not in labels:
        raise Refused("not-asked", f"only {', '.join(map(str, labels))} was asked for")
    gathering.take(
        volume,
        drawn.mask,
        patient_id=pair.patient_id,
        region=drawn.label,
        made_of=f"{where}/{drawn.number}",
        where=where,
        tags={**pair.tags, "origin": drawn.source, "label": float(drawn.number)},
        doubts=drawn.flags,
    )


def _named(files: Sequence[Path], name: str, folder: Path) -> Mapping[Path, tuple[tuple[str, str], ...]]:
    """Return the files that are named so, with what their places hold, sorted."""
    pattern, at = "", 0
    seen: set[str] = set()
    for found in PLACE.finditer(name):
        pattern += re.escape(name[at : found.start()])
        place, at = found[1], found.end()
        if place is None:
            pattern += "[^/]*"
        elif place in seen:
            pattern += f"(?P={place})"
        else:
            pattern += f"(?P<{place}>[^/]+?)"
            seen.add(place)
    whole = re.compile(pattern + re.escape(name[at:]))
    matches = ((file, whole.fullmatch(file.relative_to(folder).as_posix())) for file in files)
    return {file: tuple(sorted(match.groupdict().items())) for file, match in matches if match}


def _left(code: str, sentence: str, file: Path, folder: Path) -> LeftOut:
    return LeftOut(code=code, sentence=sentence, where=_where(file, folder))


def _where(file: Path, folder: Path) -> str:
    return str(file.relative_to(folder)) if file.is_relative_to(folder) else str(file)


def _value(word: str) -> float | str | None:
    """Return what a cell of a table holds: a number, a word, or None for nothing."""
    word = word.strip()
    try:
        number = float(word)
    except ValueError:
        return word or None
    return number if math.isfinite(number) else word


__all__ = ["Names", "Pair", "curate_nifti", "pairs_by_name", "pairs_of_table"]
