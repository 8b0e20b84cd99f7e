"""Volumes of one body that was moved in a known way, on whatever grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import highdicom
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from plugins.contract import Volume

Floats = NDArray[np.float64]
Displacement = Callable[[Floats], Floats]


def still(points: Floats) -> Floats:
    return np.zeros_like(points)


@dataclass(frozen=True, kw_only=True)
class KnownMotion:
    """`new p -> back(p) + bend(back(p))` is the earlier position; `bend` is smooth and small against its own extent."""

    matrix: Floats
    bend: Displacement = still

    def to_earlier(self, points: Floats) -> Floats:
        back = np.linalg.inv(self.matrix)
        straight = points @ back[:3, :3].T + back[:3, 3]
        return straight + self.bend(straight)

    def to_new(self, points: Floats) -> Floats:
        straight = points.copy()
        for _ in range(60):
            straight = points - self.bend(straight)
        return straight @ self.matrix[:3, :3].T + self.matrix[:3, 3]


def turned(
    centre_mm: Floats, degrees: tuple[float, float, float], shift_mm: tuple[float, float, float]
) -> Floats:
    """Return the (4, 4) matrix that turns about a centre and shifts."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    matrix[:3, 3] = centre_mm - matrix[:3, :3] @ centre_mm + np.asarray(shift_mm)
    return matrix


def breathing(centre_mm: Floats, amplitude_mm: float, reach_mm: float = 90.0) -> Displacement:
    """Return a displacement towards the head below the centre, with some rise of the chest wall."""

    def bend(points: Floats) -> Floats:
        away = (points - centre_mm - np.array([0.0, 0.0, -60.0])) / reach_mm
        share = np.exp(-0.5 * (away**2).sum(axis=1))
        return amplitude_mm * share[:, None] * np.array([0.15, -0.35, 0.92])

    return bend


def moved(
    volume: Volume, motion: KnownMotion, affine: Floats, shape: tuple[int, int, int], noise: float
) -> Volume:
    """Return the body of a volume after a motion on another grid, with noise, in another frame of reference."""
    rows = np.indices(shape[1:]).reshape(2, -1)
    array = np.empty(shape, dtype=np.float32)
    most = np.asarray(volume.array.shape) - 1
    for k in range(shape[0]):
        index = np.stack([np.full(rows.shape[1], k), *rows], axis=1)
        at = volume.to_index(motion.to_earlier(index @ affine[:3, :3].T + affine[:3, 3]))
        at = np.where((at > -0.5) & (at < most + 0.5), np.clip(at, 0, most), at)
        lowest = float(volume.array.min())
        array[k] = ndimage.map_coordinates(volume.array, at.T, order=1, cval=lowest).reshape(shape[1:])
    array += np.random.default_rng(3).normal(0, noise, shape).astype(np.float32)
    return on_grid(volume, array, affine)


def on_grid(volume: Volume, array: NDArray[np.float32], affine: Floats) -> Volume:
    geometry = highdicom.VolumeGeometry(
        affine=affine,
        spatial_shape=array.shape,
        frame_of_reference_uid="1.2.3.9",
        coordinate_system="PATIENT",
    )
    positions = tuple(tuple(float(v) for v in affine[:3, 3] + k * affine[:3, 0]) for k in range(len(array)))
    uids = tuple(f"1.2.3.8.{k}" for k in range(len(array)))
    return replace(volume, array=array, geometry=geometry, slice_positions=positions, sop_instance_uids=uids)


def part(volume: Volume, first: int, stop: int) -> Volume:
    """Return some slices of a volume."""
    affine = volume.geometry.affine.copy()
    affine[:3, 3] += first * affine[:3, 0]
    return on_grid(volume, np.ascontiguousarray(volume.array[first:stop]), affine)


def grid_of(
    volume: Volume, matrix: Floats, spacing_mm: tuple[float, float, float]
) -> tuple[Floats, tuple[int, int, int]]:
    """Return affine and shape of a grid over the volume's box, shifted by the motion of its centre."""
    middle = volume.to_mm((np.asarray(volume.array.shape) - 1) / 2)
    sides = np.asarray(volume.array.shape) * volume.spacing_mm
    k, r, c = (round(float(n / s)) for n, s in zip(sides, spacing_mm, strict=True))
    affine = np.eye(4)
    affine[:3, :3] = volume.geometry.affine[:3, :3] / np.asarray(volume.spacing_mm) * np.asarray(spacing_mm)
    centre = matrix[:3, :3] @ middle + matrix[:3, 3]
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.array([k, r, c]) - 1) / 2)
    return affine, (k, r, c)
