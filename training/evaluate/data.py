"""The data that a model is judged on: a manifest, and the folder that its files lie in."""

from __future__ import annotations

import os.path
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from plugins.errors import Refused
from training.lidc import lidc_manifest
from training.manifest import Case, DataManifest, read_manifest, require_images_apart
from training.nodules_in_scans import CROPS, IN_SCANS, nodules_in_scans
from training.scans import present
from training.split import SIDES, SPLIT, TRAIN, VALIDATION, Split, split_of
from training.sts import sts_manifest

MANIFEST = "manifest.json"
"""A folder that holds one is read by it."""
REPORT = "report.json"
"""The file of a report that is put in place first and taken away last; its manifest says what was judged."""
NODULES, PATIENTS = "nodules.csv", "patients.csv"
"""Tables by which folders of crops and of sarcomas are known."""
UNFINISHED = "unfinished"
"""A data set beside which this lies is not whole (`training.curate.hold`)."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """Cases and their files."""

    manifest: DataManifest
    """Who, which files, which fold."""
    called: str = ""
    """What people call the data; empty for the name in the manifest."""
    root: Path
    """Where the files are."""
    folds: tuple[int, ...] = ()
    """Only cases of these folds are judged; all when empty."""
    scans: Path | None = None
    """Folder of data sets with whole CTs, to set lesions into; None for none."""
    split: Split | None = None
    """Who is learned from and who is not; None when the folder holds no split."""

    @property
    def name(self) -> str:
        """Return what a report calls the data; the hash of the manifest, not this, says which they are."""
        return self.called or self.manifest.name

    @property
    def cases(self) -> tuple[Case, ...]:
        """Return the cases that are judged."""
        return tuple(case for case in self.manifest.cases if not self.folds or case.fold in self.folds)

    def to_learn(self, left_out: Sequence[int]) -> tuple[Case, ...]:
        """Return the cases that a network may learn from which leaves some folds out: those to train on, by a split."""
        return tuple(case for case in self._on(TRAIN) if case.fold not in left_out)

    def to_watch(self, fold: int) -> tuple[Case, ...]:
        """Return the cases that the curve of a training is drawn on: those to validate on, else those of the fold."""
        return (self._on(VALIDATION) if self.split else ()) or self.manifest.fold(fold)

    def _on(self, side: str) -> tuple[Case, ...]:
        split = self.split
        return tuple(c for c in self.manifest.cases if split is None or split.side_of(c.patient_id) == side)


def open_data(
    path: Path, root: Path | None = None, folds: Sequence[int] = (), sides: Sequence[str] = ()
) -> Data:
    """Return the data of a manifest (JSON), or of a folder of nodule crops (or its `nodules.csv`), or another set.

    Other sets are sarcomas (`training.sts`) and `lidc_nodules` beside whole scans (`training.nodules_in_scans`). The
    files of a manifest are looked for in `root`, or beside it; only cases of `folds` are judged, when given, and only
    those of `sides` of the split beside it are in the manifest, which then has another hash.
    Refuses `bad-manifest`, `changed-manifest`, `image-of-two-patients`, `no-cases`, `no-data-set`, `no-split`,
    `no-such-side`, `unfinished`, what `training.split.read_split` refuses, and `missing-files` when they are not there.
    """
    manifest, folder = manifest_of(path)
    split, called = split_of(folder, manifest), _called(path, folder, manifest)
    if sides:
        manifest = _part(manifest, split, sides, folder)
        called = _with_sides(called, sides)
    data = Data(manifest=manifest, called=called, root=root or folder, folds=tuple(folds), split=split)
    if not data.cases:
        raise Refused(
            "no-cases", f"{path} names no case{' of these folds or sides' if folds or sides else ''}"
        )
    for case in data.cases:
        for file in case.files.values():
            if not (data.root / file).is_file():
                raise Refused(
                    "missing-files",
                    f"{file} of case {case.case_id} is not in {data.root}; name its folder with --root",
                )
    return data


def table_of(folder: Path) -> str | None:
    """Return the file by which a folder is one of data, or None; a manifest beside a report is the report's."""
    for name in (SPLIT, NODULES, PATIENTS):
        if (folder / name).exists():
            return name
    is_own = (folder / MANIFEST).exists() and not (folder / REPORT).exists()
    return MANIFEST if is_own else None


def manifest_of(path: Path) -> tuple[DataManifest, Path]:
    """Return the manifest of what `open_data` opens, and the folder that it is in. Refuses as that, save for files."""
    if (path / MANIFEST).is_file():
        path = path / MANIFEST
    folder = path if path.is_dir() else path.parent
    if (folder / UNFINISHED).exists():
        raise Refused(
            "unfinished", f"the data set in {folder} was not finished; run the command again that makes it"
        )
    manifest = _of_folder(folder) if _is_set(path) else read_manifest(path)
    require_images_apart(manifest.cases)
    return manifest, folder


def _is_set(path: Path) -> bool:
    """Return whether a path names a set that is known by its table, and no manifest."""
    return path.name == NODULES or (path.is_dir() and not (path / MANIFEST).is_file())


def _called(path: Path, folder: Path, manifest: DataManifest) -> str:
    """Return the name of the folder where a table alone says what is in it, else the manifest's."""
    own = _is_set(path) and manifest.name != IN_SCANS
    return Path(os.path.abspath(folder)).name if own else manifest.name


def _with_sides(name: str, sides: Sequence[str]) -> str:
    return f"{name}, {' and '.join(side for side in SIDES if side in sides)}"


def open_learnable(path: Path) -> Data:
    """Return the data of a folder without the patients that its split keeps for the test. Refuses as `open_data`."""
    data = open_data(path)
    return data if data.split is None else open_data(path, sides=(TRAIN, VALIDATION))


def _part(manifest: DataManifest, split: Split | None, sides: Sequence[str], folder: Path) -> DataManifest:
    if unknown := set(sides).difference(SIDES):
        raise Refused("no-such-side", f"'{min(unknown)}' is no side of a split; sides are {', '.join(SIDES)}")
    if split is None:
        raise Refused("no-split", f"{folder} holds no split; make one with 'nadir curate split'")
    return replace(manifest, name=_with_sides(manifest.name, sides), cases=split.cases(manifest, *sides))


def _of_folder(folder: Path) -> DataManifest:
    if (folder / PATIENTS).is_file():
        return sts_manifest(folder)
    if (folder / CROPS).is_dir() and present(folder):
        return nodules_in_scans(folder)
    if not (folder / NODULES).is_file():
        raise Refused(
            "no-data-set",
            f"there is no data set in {folder}: neither {MANIFEST} nor {NODULES} nor {PATIENTS}",
        )
    return lidc_manifest(folder)


__all__ = ["Data", "manifest_of", "open_data", "open_learnable", "table_of"]
