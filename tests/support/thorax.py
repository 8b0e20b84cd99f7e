"""A thorax of ellipsoids, tubes and balls with known truth, small enough for tests."""

from __future__ import annotations

from dataclasses import dataclass

import highdicom
import numpy as np
from numpy.typing import NDArray

from plugins import codes
from plugins.contract import Patient, Study, Volume

Point = tuple[float, float, float]
Tube = tuple[Point, Point, float]
Array = NDArray[np.floating]
SERIES = "1.2.826.0.1.3680043.10.999.1"


@dataclass(frozen=True, kw_only=True)
class Ball:
    """A nodule: its centre (x, y, z) in LPS mm, its diameter and its density."""

    centre_mm: Point
    diameter_mm: float
    hu: float = 30.0

    @property
    def volume_ml(self) -> float:
        return np.pi / 6 * self.diameter_mm**3 / 1000


@dataclass(frozen=True, kw_only=True)
class Thorax:
    """The CT `(K, R, C)`, its affine, and the exact lung masks on its grid."""

    hu: NDArray[np.float32]
    affine: NDArray[np.float64]
    left: NDArray[np.bool_]
    right: NDArray[np.bool_]

    def volume(self) -> Volume:
        return ct_volume(self.hu, self.affine)


def ct_volume(
    hu: NDArray[np.float32], affine: NDArray[np.float64], role: str = "ct", frame: str = "1.2.3"
) -> Volume:
    """Return a CT volume of an array `(K, R, C)` in HU."""
    slices = hu.shape[0]
    return Volume(
        array=np.ascontiguousarray(hu, dtype=np.float32),
        geometry=highdicom.VolumeGeometry(
            affine=affine, spatial_shape=hu.shape, coordinate_system="PATIENT", frame_of_reference_uid=frame
        ),
        role=role,
        unit=codes.HU,
        modality="CT",
        series_instance_uid=SERIES,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uids=tuple(f"{SERIES}.{k}" for k in range(slices)),
        slice_positions=tuple(tuple((affine[:3, 3] + k * affine[:3, 0]).tolist()) for k in range(slices)),
    )


def study_of(*volumes: Volume) -> Study:
    return Study(
        study_instance_uid="1.2.4", patient=Patient(patient_id="P"), study_date=None, volumes=volumes
    )


def turned(thorax: Thorax, order: tuple[int, int, int], flipped: tuple[bool, bool, bool]) -> Thorax:
    """Return the same patient on a grid whose axes are taken in another order and direction."""
    affine = thorax.affine[:, [*order, 3]].copy()
    arrays = [a.transpose(order) for a in (thorax.hu, thorax.left, thorax.right)]
    for axis, flip in enumerate(flipped):
        if flip:
            affine[:3, 3] += affine[:3, axis] * (arrays[0].shape[axis] - 1)
            affine[:3, axis] *= -1
            arrays = [np.flip(a, axis) for a in arrays]
    return Thorax(hu=arrays[0], affine=affine, left=arrays[1], right=arrays[2])


def thorax(
    *,
    spacing_mm: Point = (2.5, 1.5, 1.5),
    balls: tuple[Ball, ...] = (),
    vessels: bool = False,
    touching: bool = False,
    sides: str = "LR",
    lung_hu: float = -850.0,
    noise_hu: float = 0.0,
) -> Thorax:
    """Return a body with two lungs, a trachea with main bronchi, ribs on the outside and a table below.

    `touching`: a bridge of lung joins the two in front. `sides`: which lungs are there. `vessels`: a fan of tapering
    tubes in each lung. Edges are mixed over one voxel, so the 0.5 level is the true surface.
    """
    size_mm = (250.0, 290.0, 410.0)
    shape = tuple(round(n / s) for n, s in zip(size_mm, spacing_mm, strict=True))
    origin = [-(n - 1) * s / 2 for n, s in zip(shape, spacing_mm, strict=True)]
    z, y, x = np.ogrid[tuple(slice(0, n) for n in shape)]
    z, y, x = (o + s * a for o, s, a in zip(origin, spacing_mm, (z, y, x), strict=True))
    edge = float(np.mean(spacing_mm))
    hu = np.full(shape, -1000.0, dtype=np.float32)
    _mix(hu, (np.sqrt((x / 180) ** 2 + (y / 115) ** 2) - 1) * 115 + 0 * z, 40.0, edge)
    _mix(hu, np.maximum(np.abs(y - 130) - 4, np.abs(x) - 190) + 0 * z, 100.0, edge)
    masks = {}
    for side, centre in (("R", -75.0), ("L", 75.0)):
        inside = _ellipsoid(z, y, x, (centre, 0.0, 0.0), (52.0, 75.0, 108.0))
        if touching:
            bridge = np.maximum(
                np.maximum(np.abs(y + 40) - 4, np.abs(x - centre / 2) - 38), np.abs(z - 20) - 30
            )
            inside = np.minimum(inside, bridge)
        masks[side] = inside < 0
        if side in sides:
            _mix(hu, inside, lung_hu, edge)
    axes = (z.ravel(), y.ravel(), x.ravel())
    for start, end, radius in _PIPES:
        _paint_tube(hu, axes, (start, end, radius + 1.5), 20.0, edge)
    for pipe in _PIPES:
        _paint_tube(hu, axes, pipe, -1000.0, edge)
    for vessel in _vessels(sides) if vessels else ():
        _paint_tube(hu, axes, vessel, 40.0, edge)
    for ball in balls:
        _paint_tube(hu, axes, (ball.centre_mm, ball.centre_mm, ball.diameter_mm / 2), ball.hu, edge)
    if noise_hu:
        hu += np.random.default_rng(0).normal(0, noise_hu, shape).astype(np.float32)
    dz, dy, dx = spacing_mm
    affine = np.array(
        [[0, 0, dx, origin[2]], [0, dy, 0, origin[1]], [dz, 0, 0, origin[0]], [0, 0, 0, 1]], float
    )
    return Thorax(hu=hu, affine=affine, left=masks["L"], right=masks["R"])


_PIPES: tuple[Tube, ...] = (
    ((0.0, 15.0, 130.0), (0.0, 15.0, 15.0), 9.0),
    ((0.0, 15.0, 15.0), (-34.0, 15.0, -10.0), 6.0),
    ((0.0, 15.0, 15.0), (34.0, 15.0, -10.0), 6.0),
)


def _vessels(sides: str) -> list[Tube]:
    tubes: list[Tube] = []
    for sign, side in ((-1.0, "R"), (1.0, "L")):
        root = (sign * 26.0, 0.0, 0.0)
        for angle in np.deg2rad([-60, -25, 10, 45, 75] if side in sides else []):
            for tilt in (-50.0, 45.0):
                middle = (sign * 70.0, 25 * np.sin(angle), tilt * np.cos(angle))
                end = (sign * 105.0, 50 * np.sin(angle), 1.5 * tilt)
                tubes += [(root, middle, 2.5), (middle, end, 1.2)]
    return tubes


def _ellipsoid(z: Array, y: Array, x: Array, centre: Point, radii: Point) -> Array:
    cx, cy, cz = centre
    a, b, c = radii
    return (np.sqrt(((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 + ((z - cz) / c) ** 2) - 1) * min(radii)


def _paint_tube(
    hu: NDArray[np.float32], axes: tuple[Array, Array, Array], tube: Tube, value: float, edge_mm: float
) -> None:
    """Paint a tube with round ends (a ball when it has no length), in its own box only."""
    start, end, radius = tube
    p, q = np.array(start[::-1]), np.array(end[::-1])
    reach = radius + 2 * edge_mm
    box = []
    for axis, low, high in zip(axes, np.minimum(p, q) - reach, np.maximum(p, q) + reach, strict=True):
        hit = np.flatnonzero((axis >= low) & (axis <= high))
        box.append(slice(int(hit[0]), int(hit[-1]) + 1))
    grid = np.ix_(*(axis[b] for axis, b in zip(axes, box, strict=True)))
    along = (q - p) / max(float((q - p) @ (q - p)), 1e-9)
    t = np.clip(sum((g - o) * u for g, o, u in zip(grid, p, along, strict=True)), 0, 1)
    squares = sum((g - o - t * d) ** 2 for g, o, d in zip(grid, p, q - p, strict=True))
    _mix(hu[tuple(box)], np.sqrt(squares) - radius, value, edge_mm)


def _mix(hu: NDArray[np.float32], distance: Array, value: float, edge_mm: float) -> None:
    share = np.clip(0.5 - distance / edge_mm, 0, 1).astype(np.float32)
    hu += share * (np.float32(value) - hu)
