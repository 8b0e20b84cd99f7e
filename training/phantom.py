"""A thorax of our own with known truth: one fictitious patient, CT and PET, at two dates.

What it is: a body with lungs, airways, vessels, heart, bones, liver and nodules, made from formulas and one
seed. Each nodule is an ellipsoid, so its axes and volume are known in closed form; uptake is set in SUV.
What it is not: a model of a disease, of a scanner's blur or of breathing. Do not train on it.

All positions are LPS millimetres; arrays are `(K, R, C)` with K from the feet to the head.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from math import pi

import numpy as np
from numpy.typing import NDArray

from training import phantom_anatomy, phantom_tree
from training.phantom_anatomy import FloatArray, Point

LAA_THRESHOLD_HU = -950
PARENCHYMA_HU = -500
MAX_HU, MIN_HU = 3071, -1024


@dataclass(frozen=True, kw_only=True)
class Grid:
    """An axial grid; rows run to the patient's left, columns to the back, slices to the head."""

    shape: tuple[int, int, int]
    """Number of voxels (K, R, C)."""
    spacing_mm: tuple[float, float, float]
    """Distance of voxel centres along (k, r, c), mm."""
    centre_mm: Point = (0.0, 0.0, 0.0)
    """LPS position of the middle of the grid, mm."""

    @property
    def origin_mm(self) -> Point:
        """Return the LPS position of the centre of voxel (0, 0, 0), mm."""
        (k, r, c), (dz, dy, dx) = self.shape, self.spacing_mm
        x, y, z = self.centre_mm
        return (x - dx * (c - 1) / 2, y - dy * (r - 1) / 2, z - dz * (k - 1) / 2)

    def axes_mm(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the LPS positions z (K,), y (R,), x (C,) of the voxel centres, mm."""
        x, y, z = self.origin_mm
        starts = (z, y, x)
        z_mm, y_mm, x_mm = (
            (start + step * np.arange(count)).astype(np.float32)
            for start, step, count in zip(starts, self.spacing_mm, self.shape, strict=True)
        )
        return z_mm, y_mm, x_mm


CT_GRID = Grid(shape=(120, 512, 512), spacing_mm=(2.5, 0.78125, 0.78125))
PET_GRID = Grid(shape=(75, 128, 128), spacing_mm=(4.0, 4.0, 4.0))


@dataclass(frozen=True, kw_only=True)
class Nodule:
    """One nodule: an ellipsoid with one axis along the body and the other two turned in the axial plane."""

    name: str
    """Name that stays the same over the dates."""
    kind: str
    """`solid`, `juxta-pleural` or `juxta-vascular`."""
    centre_mm: Point
    """Centre, LPS mm."""
    diameters_mm: tuple[float, float, float]
    """Long and short diameter in the axial plane, and the diameter along the body, mm."""
    angle_deg: float
    """Angle from the x axis to the long axis, in the axial plane."""
    hu: float
    """Density, HU."""
    suv: float
    """Uptake, SUVbw."""

    @property
    def long_axis_mm(self) -> float:
        """Return the longest diameter in an axial plane, mm."""
        return max(self.diameters_mm[:2])

    @property
    def short_axis_mm(self) -> float:
        """Return the longest axial diameter perpendicular to the long axis, mm."""
        return min(self.diameters_mm[:2])

    @property
    def volume_ml(self) -> float:
        """Return the volume of the ellipsoid, ml."""
        a, b, c = self.diameters_mm
        return pi / 6 * a * b * c / 1000

    @property
    def diameter_mm(self) -> float:
        """Return the diameter of the sphere of equal volume, mm."""
        a, b, c = self.diameters_mm
        return float((a * b * c) ** (1 / 3))

    def end_points_mm(self) -> tuple[Point, Point]:
        """Return the two ends of the long axis, LPS mm."""
        x, y, z = self.centre_mm
        angle = np.deg2rad(self.angle_deg)
        dx, dy = (float(v * self.long_axis_mm / 2) for v in (np.cos(angle), np.sin(angle)))
        return (x - dx, y - dy, z), (x + dx, y + dy, z)


@dataclass(frozen=True, kw_only=True)
class LungTruth:
    """One lung, counted on the parenchyma: its exact mask without airways and without what is denser than -500 HU."""

    side: str
    """`right` or `left`."""
    volume_ml: float
    """Volume, ml."""
    mean_hu: float
    """Mean density, HU."""
    laa_950: float
    """Share of voxels below -950 HU, percent."""
    perc_15: float
    """15th percentile of density, HU."""


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What a perfect analysis would report."""

    nodules: tuple[Nodule, ...]
    """The nodules that are there at this date."""
    lungs: tuple[LungTruth, LungTruth]
    """Right and left lung."""
    liver_mm: Point
    """A place deep in the liver, LPS mm."""
    liver_suv: float
    """Mean uptake of the liver, SUVbw."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Thorax:
    """The patient at one date: arrays, grids and truth."""

    seed: int
    """Seed that anatomy and noise were made from."""
    date_index: int
    """0 for the first date, 1 for the second."""
    acquired_at: datetime
    """Local time at which the CT began; naive, as DICOM dates are."""
    ct_grid: Grid
    """Grid of the CT."""
    ct: NDArray[np.int16]
    """CT `(K, R, C)`, HU."""
    pet_grid: Grid
    """Grid of the PET."""
    pet: FloatArray
    """PET `(K, R, C)`, SUVbw."""
    lungs: NDArray[np.uint8]
    """Exact lung mask `(K, R, C)` on the CT grid: 1 right, 2 left, 0 elsewhere."""
    truth: Truth
    """What a perfect analysis would report."""


DATES = (datetime(2024, 3, 4, 9, 30), datetime(2024, 6, 3, 10, 15))  # noqa: DTZ001 (DICOM local time)
LIVER_MM: Point = (-75.0, -5.0, -110.0)
SHIFTS_MM: tuple[Point, ...] = ((0.0, 0.0, 0.0), (4.0, -4.0, 4.0))

_RIGHT_UPPER = Nodule(
    name="Right upper",
    kind="solid",
    centre_mm=(-82.0, 2.0, 60.0),
    diameters_mm=(24.0, 18.0, 20.0),
    angle_deg=30.0,
    hu=35.0,
    suv=9.0,
)
_LEFT_LATERAL = Nodule(
    name="Left lateral",
    kind="juxta-pleural",
    centre_mm=(0.0, 22.0, 4.0),
    diameters_mm=(14.0, 14.0, 14.0),
    angle_deg=0.0,
    hu=40.0,
    suv=6.0,
)
_RIGHT_LOWER = Nodule(
    name="Right lower",
    kind="juxta-vascular",
    centre_mm=(-86.0, 54.0, -28.0),
    diameters_mm=(12.0, 10.0, 11.0),
    angle_deg=110.0,
    hu=30.0,
    suv=5.0,
)
_LEFT_UPPER = Nodule(
    name="Left upper",
    kind="solid",
    centre_mm=(62.0, -26.0, 64.0),
    diameters_mm=(8.0, 7.0, 7.5),
    angle_deg=60.0,
    hu=20.0,
    suv=1.5,
)
_RIGHT_MIDDLE = Nodule(
    name="Right middle",
    kind="solid",
    centre_mm=(-98.0, -26.0, -8.0),
    diameters_mm=(14.0, 11.0, 12.0),
    angle_deg=150.0,
    hu=30.0,
    suv=7.0,
)


def nodules(date_index: int) -> tuple[Nodule, ...]:
    """Return the nodules of one date, body frame: one shrinks, one grows, two stay, one appears at the second date."""
    chosen: tuple[Nodule, ...]
    first = (_RIGHT_UPPER, _LEFT_LATERAL, _RIGHT_LOWER, _LEFT_UPPER)
    if date_index == 0:
        chosen = first
    elif date_index == 1:
        chosen = (
            replace(_RIGHT_UPPER, diameters_mm=(16.0, 12.0, 14.0), suv=5.0),
            replace(_LEFT_LATERAL, diameters_mm=(20.0, 18.0, 18.0), angle_deg=90.0, suv=8.0),
            _RIGHT_LOWER,
            _LEFT_UPPER,
            _RIGHT_MIDDLE,
        )
    else:
        raise ValueError("the phantom has two dates: 0 and 1")
    return tuple(_at_pleura(n) if n.kind == "juxta-pleural" else n for n in chosen)


def _at_pleura(nodule: Nodule) -> Nodule:
    """Return the nodule moved along x until it just touches the chest wall; it stays whole inside the lung."""
    radius = nodule.diameters_mm[0] / 2 if nodule.angle_deg == 0.0 else nodule.diameters_mm[1] / 2
    _, y, z = nodule.centre_mm
    wall = phantom_anatomy.chest_wall_x_mm(y, z)
    return replace(nodule, centre_mm=(wall - radius - 0.2, y, z))


def phantom(
    seed: int = 0, date_index: int = 0, *, ct_grid: Grid = CT_GRID, pet_grid: Grid = PET_GRID
) -> Thorax:
    """Return the patient at one date.

    The same seed gives the same voxels. Both dates share the anatomy; at the second the patient lies a few
    millimetres elsewhere, as people do. A coarse grid is for fast tests.
    """
    shift = SHIFTS_MM[date_index] if 0 <= date_index < len(SHIFTS_MM) else (0.0, 0.0, 0.0)
    present = nodules(date_index)
    tree = phantom_tree.grow(
        seed, tuple((n.centre_mm, n.long_axis_mm / 2) for d in (0, 1) for n in nodules(d))
    )
    ct, lungs = _render_ct(seed, date_index, ct_grid, shift, present, tree)
    pet = _render_pet(seed, date_index, pet_grid, shift, present)
    moved = tuple(replace(n, centre_mm=_add(n.centre_mm, shift)) for n in present)
    truth = Truth(
        nodules=moved,
        lungs=(_lung_truth("right", ct[lungs == 1], ct_grid), _lung_truth("left", ct[lungs == 2], ct_grid)),
        liver_mm=_add(LIVER_MM, shift),
        liver_suv=phantom_anatomy.SUV["liver"],
    )
    return Thorax(
        seed=seed,
        date_index=date_index,
        acquired_at=DATES[date_index],
        ct_grid=ct_grid,
        ct=ct,
        pet_grid=pet_grid,
        pet=pet,
        lungs=lungs,
        truth=truth,
    )


def _add(a: Point, b: Point) -> Point:
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2])


def _lung_truth(side: str, hu: NDArray[np.int16], grid: Grid) -> LungTruth:
    voxel_ml = float(np.prod(grid.spacing_mm)) / 1000
    hu = hu[hu < PARENCHYMA_HU]
    if hu.size == 0:
        raise ValueError(f"the grid holds no voxel of the {side} lung; take one that covers the chest")
    return LungTruth(
        side=side,
        volume_ml=hu.size * voxel_ml,
        mean_hu=float(hu.mean(dtype=np.float64)),
        laa_950=100.0 * float(np.count_nonzero(hu < LAA_THRESHOLD_HU)) / hu.size,
        perc_15=float(np.percentile(hu, 15)),
    )


def _body_axes(grid: Grid, shift: Point) -> tuple[FloatArray, FloatArray, FloatArray]:
    z, y, x = grid.axes_mm()
    return z - np.float32(shift[2]), y - np.float32(shift[1]), x - np.float32(shift[0])


def _render_ct(
    seed: int, date_index: int, grid: Grid, shift: Point, present: tuple[Nodule, ...], tree: phantom_tree.Tree
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    axes = _body_axes(grid, shift)
    painted = phantom_anatomy.paint_ct(axes, seed)
    airway = phantom_tree.paint(painted.values, axes, tree, phantom_anatomy.HU)
    for nodule in present:
        paint_nodule(painted.values, axes, grid.spacing_mm, nodule, nodule.hu)
    noise = np.random.default_rng((seed, date_index, 1))
    ct = np.empty(grid.shape, dtype=np.int16)
    for k in range(grid.shape[0]):
        slice_hu = painted.values[k] + phantom_anatomy.quantum_noise(noise, grid.shape[1:])
        ct[k] = np.clip(np.rint(slice_hu), MIN_HU, MAX_HU)
    lungs = np.where(airway, np.uint8(0), painted.lungs)
    return ct, lungs


def _render_pet(
    seed: int, date_index: int, grid: Grid, shift: Point, present: tuple[Nodule, ...]
) -> FloatArray:
    axes = _body_axes(grid, shift)
    suv = phantom_anatomy.paint_pet(axes, grid.spacing_mm)
    noise = np.random.default_rng((seed, date_index, 2))
    suv *= 1 + phantom_anatomy.emission_noise(noise, grid.shape)
    for nodule in present:
        paint_nodule(suv, axes, grid.spacing_mm, nodule, nodule.suv)
    return suv


def paint_nodule(
    values: FloatArray,
    axes: tuple[FloatArray, FloatArray, FloatArray],
    spacing_mm: tuple[float, float, float],
    nodule: Nodule,
    value: float,
    *,
    steps: int = 5,
) -> None:
    """Mix a nodule into `values` `(K, R, C)`, each voxel by the share of it that lies inside the ellipsoid.

    The share is counted on `steps`^3 points of the voxel, so the 0.5 level of the edge is the true surface.
    """
    reach = max(nodule.diameters_mm) / 2
    boxes = []
    for axis, centre, step in zip(axes, reversed(nodule.centre_mm), spacing_mm, strict=True):
        near = np.flatnonzero(np.abs(axis - centre) <= reach + step)
        if near.size == 0:
            return
        boxes.append(slice(int(near[0]), int(near[-1]) + 1))
    offsets = (np.arange(steps) + 0.5) / steps - 0.5
    z, y, x = (
        (axis[box, None] + offsets * step).ravel() - centre
        for axis, box, step, centre in zip(axes, boxes, spacing_mm, reversed(nodule.centre_mm), strict=True)
    )
    angle = np.deg2rad(nodule.angle_deg)
    along = x[None, :] * np.cos(angle) + y[:, None] * np.sin(angle)
    across = y[:, None] * np.cos(angle) - x[None, :] * np.sin(angle)
    a, b, c = (d / 2 for d in nodule.diameters_mm)
    inside = (z[:, None, None] / c) ** 2 + ((along / a) ** 2 + (across / b) ** 2)[None] <= 1
    k, r, n = (box.stop - box.start for box in boxes)
    share = inside.reshape(k, steps, r, steps, n, steps).mean(axis=(1, 3, 5), dtype=np.float32)
    region = values[boxes[0], boxes[1], boxes[2]]
    region += share * (np.float32(value) - region)
