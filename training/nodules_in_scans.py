"""Nodule crops and whole scans of one folder as one data set: patients in their folds, each scan in its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from plugins.errors import Refused
from store.file_hash import sha256_of
from training.lidc import lidc_manifest
from training.manifest import Case, DataManifest
from training.scans import SCANS, present, sources

CROPS = "lidc_nodules"
"""Folder of the crops."""
IN_SCANS = "nodules_in_scans"
"""Name of crops and scans together."""


def nodules_in_scans(root: Path) -> DataManifest:
    """Return crops and scans of a folder as one manifest; a scan is a patient of its own."""
    names = present(root)
    if len(names) < 2:
        raise Refused("no-scan", f"{root} holds {len(names)} of the scans {', '.join(SCANS)}: two are needed")
    crops = [
        replace(case, files={role: f"{CROPS}/{path}" for role, path in case.files.items()})
        for case in lidc_manifest(root / CROPS).cases
    ]
    cases = [*crops, *(_scan_case(name, root) for name in names)]
    return DataManifest(name=IN_SCANS, cases=tuple(sorted(cases, key=lambda case: case.case_id)))


def is_crop(case: Case) -> bool:
    """Return whether a case of the manifest is a nodule crop, not a whole scan."""
    return "mask" in case.files


def _scan_case(name: str, root: Path) -> Case:
    paths = sources(name, root)
    return Case(
        case_id=name,
        patient_id=name,
        files={f"file{n:04d}": str(path.relative_to(root)) for n, path in enumerate(paths)},
        sha256={f"file{n:04d}": sha256_of(path) for n, path in enumerate(paths)},
        fold=list(SCANS).index(name),
        size_mm=0.0,
    )


__all__ = ["CROPS", "IN_SCANS", "is_crop", "nodules_in_scans"]
