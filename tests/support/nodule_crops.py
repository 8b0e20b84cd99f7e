"""Balls in lung as NIfTI files with a manifest: two for the first patient, one for each other, of two scanners."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
from ball_nodules import ball_nodule

from store.file_hash import sha256_of
from training.manifest import DataManifest


def write_crops(root: Path, patients: int = 6, *, folds: int = 3) -> Path:
    """Write the crops and return the path of their manifest; diameters grow from 7 mm by 2 mm."""
    cases = []
    for number in range(patients + 1):
        whose = max(0, number - 1)
        nodule = ball_nodule(7.0 + 2 * number, (1.25, 0.75, 0.75), number, f"P{whose:02d}", whose % folds)
        name = f"P{whose:02d}_nodule{number:02d}"
        files = {role: f"{name}_{role}.nii.gz" for role in ("image", "mask")}
        for role, voxels in (("image", nodule.image), ("mask", nodule.mask)):
            written = nibabel.Nifti1Image(
                voxels.transpose(2, 1, 0).astype(np.int16), np.diag([0.75, 0.75, 1.25, 1.0])
            )
            nibabel.save(written, root / files[role])
        sha256 = {role: sha256_of(root / file) for role, file in files.items()}
        tags = {"scanner": "A" if number % 2 else "B"}
        cases.append(replace(nodule.case, case_id=name, files=files, sha256=sha256, tags=tags))
    manifest = root / "manifest.json"
    DataManifest(name="round nodules", cases=tuple(cases)).write(manifest)
    return manifest


__all__ = ["write_crops"]
