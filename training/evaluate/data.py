"""The data that a model is judged on: a manifest, and the folder that its files lie in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from plugins.errors import Refused
from training.lidc import lidc_manifest
from training.manifest import DataManifest, read_manifest


@dataclass(frozen=True, kw_only=True)
class Data:
    """Cases and their files."""

    manifest: DataManifest
    """Who, which files, which fold."""
    root: Path
    """Where the files are."""


def open_data(path: Path, root: Path | None = None) -> Data:
    """Return the data of a manifest (JSON), or of a folder of nodule crops (or its `nodules.csv`).

    The files of a manifest are looked for in `root`, or beside it. Refuses `bad-manifest`, `changed-manifest`,
    `no-cases`, `no-nodules`, and `missing-files` when they are not there.
    """
    if path.is_dir() or path.name == "nodules.csv":
        folder = path if path.is_dir() else path.parent
        data = Data(manifest=lidc_manifest(folder), root=folder)
    else:
        data = Data(manifest=read_manifest(path), root=root or path.parent)
    if not data.manifest.cases:
        raise Refused("no-cases", f"{path} names no case")
    for case in data.manifest.cases:
        for file in case.files.values():
            if not (data.root / file).is_file():
                raise Refused(
                    "missing-files",
                    f"{file} of case {case.case_id} is not in {data.root}; name its folder with --root",
                )
    return data


__all__ = ["Data", "open_data"]
