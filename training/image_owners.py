"""Images that stand under two patients: a study that came under a clinical PatientID and, once more, pseudonymised.

An image is known by the bytes of its crop, and where it was collected on a node by the voxels of its whole series
(`VOXELS`), whatever box was cut out of it. Cases that earlier releases collected, and curated ones, have the crop
alone: of these the same image around another mask is not seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from plugins.contract import Volume
from training.manifest import IMAGES, Case, DataManifest

if TYPE_CHECKING:
    from training.frozen import Gathered

VOXELS = "voxels_sha256"
"""Tag of a case: hash of the voxels of the series that it was cut out of."""


class Owners:
    """Whose each image is: of the patient of the first case that shows it."""

    def __init__(self, cases: Iterable[Case] = ()) -> None:
        self._patients: dict[str, str] = {}
        for case in cases:
            self._take(case)

    def other(self, case: Case) -> str | None:
        """Return whose the images of a case are already, when that is another patient than its own."""
        named = (self._patients.get(image) for image in _images(case))
        return next((one for one in named if one not in (None, case.patient_id)), None)

    def apart(self, cases: Iterable[Case]) -> tuple[Case, ...]:
        """Return the cases whose images are of no other patient; these are theirs from now on."""
        kept = []
        for case in cases:
            if self.other(case) is None:
                self._take(case)
                kept.append(case)
        return tuple(kept)

    def _take(self, case: Case) -> None:
        for image in _images(case):
            self._patients.setdefault(image, case.patient_id)


def sha256_of_voxels(volume: Volume) -> str:
    """Return the hash of the voxels of a series as they were read."""
    return hashlib.sha256(np.ascontiguousarray(volume.array).data).hexdigest()


def one_patient_each(gathered: Gathered, before: Collection[Case]) -> Gathered:
    """Return what was gathered with each image under one patient, and tell what was left out.

    Nobody is judged on images that another patient's case taught `before`, nor learned from on those of the hold-out.
    """
    judge = _part(gathered.judge, Owners(before))
    learn = _part(gathered.learn, Owners(judge.cases if judge else ()))
    told = [
        f"{count} masks are not {use}: their images are, byte for byte, those of another patient; let them be one"
        for use, count in (
            ("learned from", _count(gathered.learn) - _count(learn)),
            ("judged on", _count(gathered.judge) - _count(judge)),
        )
        if count
    ]
    return replace(gathered, learn=learn, judge=judge, told=(*gathered.told, *told))


def _part(manifest: DataManifest | None, owners: Owners) -> DataManifest | None:
    """Return a manifest with the cases whose images are of no other patient; None when there is none."""
    kept = owners.apart(manifest.cases) if manifest else ()
    return replace(manifest, cases=kept) if manifest and kept else None


def _count(manifest: DataManifest | None) -> int:
    return len(manifest.cases) if manifest else 0


def _images(case: Case) -> set[str]:
    """Return the hashes by which the images of a case are known."""
    voxels = case.tags.get(VOXELS)
    crops = {case.sha256[role] for role in IMAGES & case.files.keys()}
    return crops | ({voxels} if isinstance(voxels, str) else set())


__all__ = ["VOXELS", "Owners", "one_patient_each", "sha256_of_voxels"]
