"""The data that a model is judged on: a manifest, and the folder that its files lie in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from plugins.errors import Refused
from training.lidc import lidc_manifest
from training.manifest import Case, DataManifest, read_manifest
from training.nodules_in_scans import CROPS, nodules_in_scans
from training.scans import present
from training.sts import sts_manifest

MANIFEST = "manifest.json"
"""A folder that holds one is read by it."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """Cases and their files."""

    manifest: DataManifest
    """Who, which files, which fold."""
    root: Path
    """Where the files are."""
    folds: tuple[int, ...] = ()
    """Only cases of these folds are judged; all when empty."""
    scans: Path | None = None
    """Folder of data sets with whole CTs, to set lesions into; None for none."""

    @property
    def cases(self) -> tuple[Case, ...]:
        """Return the cases that are judged."""
        return tuple(case for case in self.manifest.cases if not self.folds or case.fold in self.folds)


def open_data(path: Path, root: Path | None = None, folds: Sequence[int] = ()) -> Data:
    """Return the data of a manifest (JSON), or of a folder of nodule crops (or its `nodules.csv`), or another set.

    Other sets are sarcomas (`training.sts`) and `lidc_nodules` beside whole scans (`training.nodules_in_scans`). The
    files of a manifest are looked for in `root`, or beside it; only cases of `folds` are judged, when given.
    Refuses `bad-manifest`, `changed-manifest`, `no-cases`, `no-nodules`, and `missing-files` when they are not there.
    """
    if (path / MANIFEST).is_file():
        path = path / MANIFEST
    if path.is_dir() or path.name == "nodules.csv":
        folder = path if path.is_dir() else path.parent
        data = Data(manifest=_manifest_of(folder), root=folder, folds=tuple(folds))
    else:
        data = Data(manifest=read_manifest(path), root=root or path.parent, folds=tuple(folds))
    if not data.cases:
        raise Refused("no-cases", f"{path} names no case{' of these folds' if folds else ''}")
    for case in data.cases:
        for file in case.files.values():
            if not (data.root / file).is_file():
                raise Refused(
                    "missing-files",
                    f"{file} of case {case.case_id} is not in {data.root}; name its folder with --root",
                )
    return data


def _manifest_of(folder: Path) -> DataManifest:
    if (folder / "patients.csv").is_file():
        return sts_manifest(folder)
    if (folder / CROPS).is_dir() and present(folder):
        return nodules_in_scans(folder)
    return lidc_manifest(folder)


__all__ = ["Data", "open_data"]
