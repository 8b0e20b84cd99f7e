"""Balls in lung as NIfTI files with a manifest: two for the first patient, one for each other, of two scanners."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
from ball_nodules import ball_nodule

from store.file_hash import sha256_of
from training.manifest import DataManifest, read_manifest


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


def write_readers(manifest: Path) -> Path:
    """Write what two readers drew of every second case, the mask and its lower half; return the manifest's path."""
    plain = read_manifest(manifest)
    cases = []
    for number, case in enumerate(plain.cases):
        files = dict(case.files)
        for reader in (1, 2) if number % 2 == 0 else ():
            files[f"mask_reader{reader}"] = f"{case.case_id}_reader{reader}.nii.gz"
            mask = nibabel.load(manifest.parent / case.files["mask"])
            voxels = np.asarray(mask.dataobj).copy()
            if reader == 2:
                voxels[..., voxels.shape[2] // 2 :] = 0
            nibabel.save(
                nibabel.Nifti1Image(voxels, mask.affine), manifest.parent / files[f"mask_reader{reader}"]
            )
        sha256 = {role: sha256_of(manifest.parent / file) for role, file in files.items()}
        cases.append(replace(case, files=files, sha256=sha256))
    told = manifest.with_name("readers.json")
    DataManifest(name=plain.name, cases=tuple(cases)).write(told)
    return told


__all__ = ["write_crops", "write_readers"]
