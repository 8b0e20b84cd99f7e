"""Spheres and ellipsoids on grids of any spacing and orientation, with their closed-form truth."""

from __future__ import annotations

from dataclasses import dataclass

import highdicom
import numpy as np
from numpy.typing import NDArray
from pydicom.sr.coding import Code
from pydicom.uid import CTImageStorage, PositronEmissionTomographyImageStorage

from plugins.contract import Mask, Volume

ORIENTATIONS: dict[str, tuple[float, ...]] = {
    "axial": (1, 0, 0, 0, 1, 0),
    "coronal": (1, 0, 0, 0, 0, -1),
    "sagittal": (0, 1, 0, 0, 0, -1),
}
_UNITS = {"ct": Code("[hnsf'U]", "UCUM", "Hounsfield unit"), "pet_suv": Code("g/ml{SUVbw}", "UCUM", "SUVbw")}


def rotation(degrees: tuple[float, float, float]) -> NDArray[np.float64]:
    """Return the rotation matrix (3, 3) about x, then y, then z."""
    a, b, c = np.radians(degrees)
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return z @ y @ x


def grid(
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    orientation: str = "axial",
    *,
    tilt_degrees: tuple[float, float, float] = (0, 0, 0),
    start_mm: tuple[float, float, float] = (-31.0, 17.0, -205.0),
    role: str = "ct",
    array: NDArray[np.float32] | None = None,
    slice_positions: tuple[tuple[float, float, float], ...] | None = None,
    frame_of_reference_uid: str = "1.2.3.4",
    series_instance_uid: str = "1.2.3.5",
) -> Volume:
    """Return a volume `(K, R, C)` whose first voxel lies at `start_mm`, K along row cosine x column cosine."""
    turned = rotation(tilt_degrees)
    row_cosine = turned @ np.array(ORIENTATIONS[orientation][:3], dtype=float)
    column_cosine = turned @ np.array(ORIENTATIONS[orientation][3:], dtype=float)
    affine = np.eye(4)
    affine[:3, 0] = np.cross(row_cosine, column_cosine) * spacing_mm[0]
    affine[:3, 1] = column_cosine * spacing_mm[1]
    affine[:3, 2] = row_cosine * spacing_mm[2]
    affine[:3, 3] = start_mm
    positions = slice_positions or tuple(
        (float(p[0]), float(p[1]), float(p[2]))
        for p in (affine[:3, 3] + affine[:3, 0] * k for k in range(shape[0]))
    )
    return Volume(
        array=np.zeros(shape, dtype=np.float32) if array is None else array.astype(np.float32),
        geometry=highdicom.VolumeGeometry(
            affine, shape, coordinate_system="PATIENT", frame_of_reference_uid=frame_of_reference_uid
        ),
        role=role,
        unit=_UNITS.get(role, Code("1", "UCUM", "no units")),
        modality="PT" if role.startswith("pet") else "CT",
        series_instance_uid=series_instance_uid,
        sop_class_uid=PositronEmissionTomographyImageStorage if role.startswith("pet") else CTImageStorage,
        sop_instance_uids=tuple(f"{series_instance_uid}.{k + 1}" for k in range(shape[0])),
        slice_positions=positions,
    )


@dataclass(frozen=True, kw_only=True)
class Ellipsoid:
    """An ellipsoid in patient space."""

    centre_mm: tuple[float, float, float]
    semi_axes_mm: tuple[float, float, float]
    turn: NDArray[np.float64]

    @property
    def volume_mm3(self) -> float:
        return float(4 / 3 * np.pi * np.prod(self.semi_axes_mm))

    @property
    def form(self) -> NDArray[np.float64]:
        """Return Q with x' Q x <= 1 inside."""
        return self.turn @ np.diag(1 / np.square(self.semi_axes_mm)) @ self.turn.T

    def inside(self, volume: Volume, shift: tuple[float, float, float] = (0, 0, 0)) -> NDArray[np.bool_]:
        """Return which voxel centres, shifted by a fraction of a voxel, lie inside; `(K, R, C)`."""
        index = np.stack(np.indices(volume.array.shape), axis=-1) + np.asarray(shift)
        x = volume.to_mm(index) - np.asarray(self.centre_mm)
        return np.einsum("...i,ij,...j->...", x, self.form, x) <= 1

    def mask(self, volume: Volume) -> Mask:
        """Return the voxels whose centre lies inside."""
        return Mask.from_full(self.inside(volume))

    def section_axes_mm(self, volume: Volume, slice_index: int | None = None) -> tuple[float, float]:
        """Return long and short axis of the ellipse cut by one slice plane; by the central plane when None."""
        basis = np.stack([volume.geometry.affine[:3, i] / volume.spacing_mm[i] for i in (1, 2)], axis=1)
        normal = np.cross(basis[:, 0], basis[:, 1])
        semi = 1 / np.sqrt(np.linalg.eigvalsh(basis.T @ self.form @ basis))
        if slice_index is None:
            scale = 1.0
        else:
            height = (np.asarray(volume.slice_positions[slice_index]) - np.asarray(self.centre_mm)) @ normal
            reach = np.sqrt(normal @ np.linalg.inv(self.form) @ normal)
            scale = np.sqrt(max(0.0, 1 - (height / reach) ** 2))
        return float(2 * semi.max() * scale), float(2 * semi.min() * scale)

    def largest_section_axes_mm(self, volume: Volume) -> tuple[float, float]:
        """Return the axes of the largest ellipse that any slice plane of the volume cuts."""
        return max(self.section_axes_mm(volume, k) for k in range(volume.array.shape[0]))


def around(
    semi_axes_mm: tuple[float, float, float],
    spacing_mm: tuple[float, float, float],
    orientation: str = "axial",
    *,
    turn_degrees: tuple[float, float, float] = (0, 0, 0),
    tilt_degrees: tuple[float, float, float] = (0, 0, 0),
    offset_voxels: tuple[float, float, float] = (0.0, 0.0, 0.0),
    role: str = "ct",
    values: tuple[float, float] = (-800.0, 40.0),
) -> tuple[Volume, Mask, Ellipsoid]:
    """Return a volume just large enough for one ellipsoid, its mask, and the ellipsoid; values outside, inside."""
    reach = max(semi_axes_mm)
    shape = tuple(int(np.ceil(2 * reach / s)) + 6 for s in spacing_mm)
    volume = grid(shape, spacing_mm, orientation, tilt_degrees=tilt_degrees, role=role)  # type: ignore[arg-type]
    middle = (np.asarray(shape) - 1) / 2 + np.asarray(offset_voxels)
    centre = volume.to_mm(middle)
    body = Ellipsoid(
        centre_mm=(float(centre[0]), float(centre[1]), float(centre[2])),
        semi_axes_mm=semi_axes_mm,
        turn=rotation(turn_degrees),
    )
    inside = body.inside(volume)
    volume.array[...] = np.where(inside, values[1], values[0])
    return volume, Mask.from_full(inside), body
