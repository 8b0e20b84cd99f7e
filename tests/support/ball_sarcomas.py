"""Tumours that are balls on PET, one of them with CT: a data set in the shape of `patients.csv`."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np

TINY = """
name: tiny
model: petct_multitask
seed: 1
folds: [0]
architecture:
  {kind: multitask, out_channels: 1, channels: [8, 16, 32], strides: [2, 2], num_res_units: 1, head_features: 8}
schedule: {steps: STEPS, batch: 4, learning_rate: 0.01, warm_up: 5, average: 0.9, judge_every: 1000}
task:
  made: 0
  view: {shape: [16, 16, 16], voxel_mm: 8.0, near_mm: 20.0, point_sigma_mm: 10.0, passes: 2}
  augmentation: {jitter_mm: 4.0}
"""
"""An experiment on them that is done in seconds."""
PET_MM, CT_MM = (4.0, 5.0, 5.0), (4.0, 1.25, 1.25)


def write_sarcomas(root: Path, patients: int = 7) -> Path:
    """Write balls of 15 to 33 mm radius, SUV 4 to 10 in 0.5, with 50 mm around; the first with CT (50 in -100 HU)."""
    root.mkdir(parents=True)
    rows = []
    for n in range(patients):
        name, radius, uptake = f"STS_{n:03d}", 15.0 + 3.0 * n, 4.0 + n
        folder = root / name
        folder.mkdir()
        suv, mask = _ball(radius, PET_MM, uptake, 0.5)
        _write(folder / f"{name}_pet_suv.nii.gz", suv, PET_MM)
        _write(folder / f"{name}_pet_mask.nii.gz", mask.astype(np.float32), PET_MM)
        if n == 0:
            _write(folder / f"{name}_ct.nii.gz", _ball(radius, CT_MM, 50.0, -100.0)[0], CT_MM)
        volume_ml = float(mask.sum()) * math.prod(PET_MM) / 1000
        rows.append(
            {"patient": name, "gtv_pet_volume_ml": volume_ml, "suv_max": float(suv.max()), "suv_mean": uptake}
        )
    with (root / "patients.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0].keys())
        table.writeheader()
        table.writerows(rows)
    return root


def _ball(
    radius: float, spacing_mm: tuple[float, float, float], inside: float, outside: float
) -> tuple[np.ndarray, np.ndarray]:
    reach = radius + 50.0
    axes = [np.arange(-round(reach / s), round(reach / s) + 1) * s for s in spacing_mm]
    far = sum(g**2 for g in np.meshgrid(*axes, indexing="ij"))
    mask = far <= radius**2
    return np.where(mask, inside, outside).astype(np.float32), mask


def _write(path: Path, array: np.ndarray, spacing_mm: tuple[float, float, float]) -> None:
    """Write `(K, R, C)` as the data set does: axes to the left, the back and the head; the ball's middle is 0 mm."""
    import nibabel

    k, r, c = spacing_mm
    affine = np.diag([-c, -r, k, 1.0])
    middle = (np.asarray(array.shape[::-1]) - 1) / 2
    affine[:3, 3] = -affine[:3, :3] @ middle
    nibabel.save(nibabel.Nifti1Image(array.transpose(2, 1, 0), affine), path)
