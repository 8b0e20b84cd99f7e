"""Crops of round nodules in lung, as files with their manifest: a data set that takes no time."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np

from training.manifest import Case, DataManifest, sha256_of

SPACING_MM = (1.25, 0.75, 0.75)


def write_crops(root: Path, patients: int = 6, *, folds: int = 3, seed: int = 0) -> Path:
    """Write one nodule for each patient (two for the first) and return the manifest's path; sizes grow from 7 mm."""
    random = np.random.default_rng(seed)
    cases = []
    for number in range(patients + 1):
        patient = f"P{max(0, number - 1):02d}"
        name = f"{patient}_nodule{number:02d}"
        radius_mm = 3.5 + number
        files = {role: f"{name}_{role}.nii.gz" for role in ("image", "mask")}
        half = [int(np.ceil((radius_mm + 3) / s)) for s in SPACING_MM]
        grids = np.meshgrid(
            *[np.arange(-h, h + 1) * s for h, s in zip(half, SPACING_MM, strict=True)], indexing="ij"
        )
        mask = sum(g**2 for g in grids) <= radius_mm**2
        hu = np.where(mask, 30.0, -850.0) + random.normal(0, 20, mask.shape)
        affine = np.diag([SPACING_MM[2], SPACING_MM[1], SPACING_MM[0], 1.0])
        for role, voxels in (("image", hu.astype(np.int16)), ("mask", mask.astype(np.uint8))):
            nibabel.save(nibabel.Nifti1Image(voxels.transpose(2, 1, 0), affine), root / files[role])
        cases.append(
            Case(
                case_id=name,
                patient_id=patient,
                files=files,
                sha256={role: sha256_of(root / file) for role, file in files.items()},
                fold=max(0, number - 1) % folds,
                size_mm=2 * radius_mm,
                tags={"scanner": "A" if number % 2 else "B"},
            )
        )
    manifest = root / "manifest.json"
    DataManifest(name="round nodules", cases=tuple(cases)).write(manifest)
    return manifest


__all__ = ["SPACING_MM", "write_crops"]
