"""Nodules that are balls in noisy lung: a data set in the shape of `nodules.csv`, whose truth is known."""

from __future__ import annotations

import csv
from pathlib import Path
from types import MappingProxyType

import numpy as np

from training.lidc import Nodule
from training.manifest import Case

TINY = """
name: tiny
model: nodule_segmenter
seed: 1
folds: [0]
architecture: {kind: unet, out_channels: 1, channels: [8, 16], strides: [1], num_res_units: 1, stem: 2, dropout: 0.1}
schedule: {steps: STEPS, batch: 4, learning_rate: 0.01, warm_up: 5, average: 0.9, judge_every: 1000}
task:
  view:
    {shape: [16, 16, 16], voxels_mm: [1.25], fits_mm: [], first: 0, windows_hu: [[-1000, 400]], point_sigma_mm: 3.0}
"""
"""An experiment on them that is done in seconds."""
TAGS = ("malignancy", "subtlety", "texture", "spiculation", "margin")


def ball_nodule(
    diameter_mm: float, spacing_mm: tuple[float, float, float], seed: int, patient: str = "P0", fold: int = 0
) -> Nodule:
    """Return a ball of 40 HU in lung of -850 HU; the crop reaches one slice and six pixels beyond it."""
    random = np.random.default_rng(seed)
    half = [int(np.ceil(diameter_mm / 2 / s)) + m for s, m in zip(spacing_mm, (1, 6, 6), strict=True)]
    at = np.meshgrid(
        *[np.arange(-h, h + 1) * s for h, s in zip(half, spacing_mm, strict=True)], indexing="ij"
    )
    distance = np.sqrt(sum(a**2 for a in at))
    inside = 1 / (1 + np.exp(np.clip((distance - diameter_mm / 2) / 0.2, -50, 50)))
    image = -850 + 890 * inside + random.normal(0, 20, distance.shape)
    case = Case(
        case_id=f"{patient}-{seed}",
        patient_id=patient,
        files=MappingProxyType({}),
        sha256=MappingProxyType({}),
        fold=fold,
        size_mm=diameter_mm,
    )
    return Nodule(
        case=case, image=image.astype(np.float32), mask=distance <= diameter_mm / 2, spacing_mm=spacing_mm
    )


def write_crops(folder: Path, patients: int = 10) -> Path:
    """Write one ball for each patient as images, masks and `nodules.csv`; return the folder."""
    import nibabel

    rows = []
    for number in range(patients):
        nodule = ball_nodule(6.0 + number, (1.25, 0.7, 0.7), seed=number)
        affine = np.diag([-0.7, -0.7, 1.25, 1.0])
        row = {"patient_id": f"P{number}", "nodule_id": "1", "diameter_mm": f"{6.0 + number}"}
        for role, voxels in (("image", nodule.image), ("mask", nodule.mask)):
            name = f"{role}s/P{number}_{role}.nii.gz"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(
                nibabel.Nifti1Image(voxels.transpose(2, 1, 0).astype(np.int16), affine), folder / name
            )
            row[f"{role}_file"] = name
        rows.append({**row, "spacing_x_mm": "0.7", "spacing_z_mm": "1.25", **dict.fromkeys(TAGS, "3")})
    with (folder / "nodules.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder
