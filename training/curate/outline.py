"""What a data set holds, in figures: cases, patients, folds, the sides of its split, sizes, scanners."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from plugins.errors import Refused
from training.evaluate.data import manifest_of
from training.manifest import Case, DataManifest
from training.split import SIDES, SPLIT, Split, read_split

WORDS = ("scanner", "kernel", "origin", "region", "doubts")
MOST_WORDS = 12


def outline(path: Path) -> dict[str, Any]:
    """Return what a data set holds as plain data; `split` is None without one, or a sentence when it is not of these.

    Refuses what `training.evaluate.data.manifest_of` refuses.
    """
    manifest, folder = manifest_of(path)
    cases = manifest.cases
    found, doubt = _split(folder, manifest)
    return {
        "name": manifest.name,
        "folder": str(folder),
        "manifest_sha256": manifest.sha256,
        **_part(cases),
        "roles": dict(Counter(role for case in cases for role in case.files)),
        "size_mm": _range(case.size_mm for case in cases),
        "spacing_z_mm": _range(value for case in cases if (value := case.number("spacing_z_mm")) is not None),
        "folds": {str(n): _part(manifest.fold(n)) for n in sorted({case.fold for case in cases})},
        "split": doubt
        if found is None
        else {
            "sha256": found.sha256,
            "shares": list(found.shares),
            "seed": found.seed,
            "by": list(found.by),
            "sides": {side: _part(found.cases(manifest, side)) for side in SIDES},
        },
        "tags": {tag: words for tag in WORDS if (words := _words(tag, cases))},
    }


def _split(folder: Path, manifest: DataManifest) -> tuple[Split | None, str | None]:
    """Return the split of a data set, or why the one that is there cannot be used."""
    if not (folder / SPLIT).is_file():
        return None, None
    try:
        return read_split(folder / SPLIT, manifest), None
    except Refused as reason:
        return None, reason.sentence


def _part(cases: Iterable[Case]) -> dict[str, int]:
    patients = [case.patient_id for case in cases]
    return {"cases": len(patients), "patients": len(set(patients))}


def _range(values: Iterable[float]) -> dict[str, float] | None:
    """Return least, median and greatest of numbers; None when there is none."""
    known = np.array([value for value in values if math.isfinite(value)])
    if known.size == 0:
        return None
    return {"least": float(known.min()), "median": float(np.median(known)), "greatest": float(known.max())}


def _words(tag: str, cases: Iterable[Case]) -> dict[str, int]:
    """Return how often each value of a tag occurs, the most frequent ones; nothing when no case has it."""
    counts = Counter(value for case in cases if isinstance(value := case.tags.get(tag), str) and value)
    return dict(counts.most_common(MOST_WORDS))


__all__ = ["outline"]
