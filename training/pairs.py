"""Two examinations of one body with known lesions in the lungs: which of them is which is the truth, not a reading.

What it is: a real chest CT (or the phantom) shown twice, the second time turned, shifted, breathed, on another grid,
with other noise and another kernel; ellipsoids of tissue are set into the lungs of both, and grow, shrink, part, fuse,
vanish, appear or leave the field of view by a seed. What it is not: a model of disease. Do not train on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import highdicom
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from plugins import codes
from plugins.contract import Mask, Point, Volume
from plugins.errors import Refused
from plugins.lungs import lungs
from store.tracking.link import Kind
from training.body_motion import BodyMotion, Unrest, body_motion
from training.lesion_families import Family, Parts, draw_family
from training.phantom import Grid, paint_nodule, phantom

Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
Floats = NDArray[np.float64]
BASE_MM = 2.0
"""In-plane voxels of the grounds are not finer than this, mm."""
IN_PLANE_MM = 2.5
BODY_MM = 50.0
"""What is shown around the lungs in the plane, mm."""
PHANTOM_GRID = Grid(shape=(110, 180, 180), spacing_mm=(2.5, 2.2, 2.2))
EARLIER_SLICES_MM, NEW_SLICES_MM = (2.5, 3.0), (2.5, 3.0, 4.0)
THIN_MM = 3.0
NOISE_HU = (8.0, 30.0)
APART_MM = 8.0
"""Families of lesions are at least so far apart, mm."""
TRIES = 200
SMALLEST_VOXELS = 4
LEAST_SHARE = 0.25
"""A lesion of which less is in the field of view is not there."""
SHIFTED_VIEW = 0.35
"""How often the new examination shows less of the body."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Ground:
    """A chest CT in which lesions are placed."""

    name: str
    """Where it comes from."""
    volume: Volume
    """The CT in HU."""
    inside: BoolArray
    """Its lungs, `(K, R, C)`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PlacedLesion:
    """A lesion at one of the two examinations."""

    name: str
    """Its name at this examination; names of the two have nothing to do with each other."""
    mask: Mask
    """Where it is, on the grid of that examination."""
    centre_mm: Point
    """Centre of what was placed, LPS mm; of the whole lesion, also when only a part of it is in the field of view."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ScanPair:
    """Two examinations and the truth about them."""

    name: str
    """Ground and seed."""
    earlier: Volume
    """The first examination."""
    new: Volume
    """The second examination."""
    motion: BodyMotion
    """Where a place of the one is in the other."""
    before: tuple[PlacedLesion, ...]
    """Lesions of the first."""
    now: tuple[PlacedLesion, ...]
    """Lesions of the second."""
    links: frozenset[tuple[str, str]]
    """(name before, name now) of what is the same, of parts, and of what fused."""
    unseen: frozenset[str]
    """Names before of lesions whose place the second examination does not show."""

    def fate(self, name: str) -> Kind:
        """Return what became of an earlier lesion."""
        children = [now for before, now in self.links if before == name]
        if not children:
            return Kind.OUT_OF_VIEW if name in self.unseen else Kind.GONE
        return Kind.SPLIT if len(children) > 1 else self.origin(children[0])

    def origin(self, name: str) -> Kind:
        """Return where a present lesion comes from."""
        parents = [before for before, now in self.links if now == name]
        if len(parents) != 1:
            return Kind.MERGED if parents else Kind.NEW
        return Kind.SPLIT if sum(before == parents[0] for before, _ in self.links) > 1 else Kind.SAME


def ground_of(name: str, volume: Volume) -> Ground:
    """Return a CT as ground: thinned out in the plane to about 2 mm, with its lungs.

    Refuses as `plugins.lungs.lungs` does.
    """
    factors = (1, *(max(1, round(BASE_MM / s)) for s in volume.spacing_mm[1:]))
    kept = tuple(n // f * f for n, f in zip(volume.array.shape, factors, strict=True))
    k, r, c = (n // f for n, f in zip(kept, factors, strict=True))
    array = (
        volume.array[: kept[0], : kept[1], : kept[2]]
        .reshape(k, r, factors[1], c, factors[2])
        .mean(axis=(2, 4))
    )
    affine = volume.geometry.affine.copy()
    affine[:3, 3] = volume.to_mm(((factors[0] - 1) / 2, (factors[1] - 1) / 2, (factors[2] - 1) / 2))
    affine[:3, :3] *= factors
    small = _volume(array.astype(np.float32), affine, name)
    found = lungs(small)
    return Ground(name=name, volume=small, inside=found.left.full() | found.right.full())


def phantom_ground(seed: int = 0, grid: Grid = PHANTOM_GRID) -> Ground:
    """Return the thorax phantom as ground, with its own nodules as part of the body."""
    made = phantom(seed, ct_grid=grid, pet_grid=Grid(shape=(4, 8, 8), spacing_mm=(60.0, 60.0, 60.0)))
    volume = _on_grid(made.ct.astype(np.float32), made.ct_grid, f"phantom {seed}")
    return Ground(name=f"phantom {seed}", volume=volume, inside=made.lungs > 0)


def scan_pair(
    ground: Ground,
    seed: int,
    *,
    unrest: Unrest | None = None,
    families: tuple[int, int] = (4, 9),
    coarser: float = 1.0,
) -> ScanPair:
    """Return a pair drawn by the seed, with about so many families of lesions (fewer when the lungs have no place).

    Voxels are 2.5 mm in the plane and 2.5 to 4 mm between slices, times `coarser`.
    Refuses `no-place` when not one lesion found a place.
    """
    rng = np.random.default_rng((seed, sum(ground.name.encode())))
    spans, origin = _extent(ground)
    inside, step = _on_axes(ground, spans, origin)
    motion = body_motion(inside, step, origin[::-1], rng, unrest or Unrest())
    placed = _placed(inside, step, origin, int(rng.integers(families[0], families[1] + 1)), rng)
    if not placed:
        raise Refused("no-place", f"the lungs of {ground.name} have no place for a lesion")
    first = _grid(spans, origin, coarser * float(rng.choice(EARLIER_SLICES_MM)), coarser * IN_PLANE_MM)
    second = _moved_grid(first, spans, motion, coarser * float(rng.choice(NEW_SLICES_MM)))
    if rng.random() < SHIFTED_VIEW:
        second = _less(second, placed, motion, rng)
    before = _scan(ground, first, None, [n for f in placed for n in f.before], rng)
    now = _scan(ground, second, motion, [n for f in placed for n in f.now], rng)
    return _told(f"{ground.name} {seed}", before, now, placed, motion)


def _extent(ground: Ground) -> tuple[Floats, Floats]:
    """Return size and lower corner (x, y, z), mm, of what is shown: all slices, in the plane what is near the lungs."""
    held = [
        np.flatnonzero(ground.inside.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)
    ]
    low, high = _corners(ground.volume, [(0, n - 1) for n in ground.inside.shape])
    lung_low, lung_high = _corners(ground.volume, [(int(h[0]), int(h[-1])) for h in held])
    room = np.array([BODY_MM, BODY_MM, np.inf])
    low, high = np.maximum(low, lung_low - room), np.minimum(high, lung_high + room)
    return high - low, low


def _corners(volume: Volume, ends: Sequence[tuple[int, int]]) -> tuple[Floats, Floats]:
    """Return the lowest and highest position (x, y, z), mm, between indices (k, r, c)."""
    places = volume.to_mm(np.stack(np.meshgrid(*ends, indexing="ij")).reshape(3, -1).T.astype(np.float64))
    return places.min(axis=0), places.max(axis=0)


def _on_axes(ground: Ground, spans: Floats, origin: Floats) -> tuple[BoolArray, tuple[float, float, float]]:
    """Return the lungs on a grid of 4 mm along the patient's axes (z, y, x)."""
    k, r, c = (int(n // 4) + 1 for n in spans[::-1])
    index = np.indices((k, r, c)).reshape(3, -1).T[:, ::-1]
    at = np.rint(ground.volume.to_index(origin + 4.0 * index)).astype(int)
    at = np.clip(at, 0, np.asarray(ground.inside.shape) - 1)
    return ground.inside[tuple(at.T)].reshape(k, r, c), (4.0, 4.0, 4.0)


def _placed(
    inside: BoolArray, step: tuple[float, float, float], origin: Floats, count: int, rng: np.random.Generator
) -> list[Family]:
    """Return families at places in the lungs that are deep enough for them and apart from each other."""
    depth = ndimage.distance_transform_edt(inside, sampling=step)
    placed: list[Family] = []
    taken: list[tuple[Floats, float]] = []
    for family in (draw_family(rng) for _ in range(count)):
        reach = family.radius_mm
        deep = np.argwhere(depth >= max(4.0, 0.6 * reach))
        for index in rng.integers(0, max(len(deep), 1), TRIES if len(deep) else 0):
            middle = origin + (deep[index] * step)[::-1]
            if all(np.linalg.norm(middle - other) >= reach + far + APART_MM for other, far in taken):
                x, y, z = middle.tolist()
                placed.append(family.at((x, y, z)))
                taken.append((middle, reach))
                break
    return placed


def _grid(spans: Floats, origin: Floats, slice_mm: float, in_plane_mm: float) -> Grid:
    x, y, z = (origin + spans / 2).tolist()
    columns, rows = (int(n // in_plane_mm) + 1 for n in spans[:2])
    spacing = (slice_mm, in_plane_mm, in_plane_mm)
    return Grid(shape=(int(spans[2] // slice_mm) + 1, rows, columns), spacing_mm=spacing, centre_mm=(x, y, z))


def _moved_grid(first: Grid, spans: Floats, motion: BodyMotion, slice_mm: float) -> Grid:
    """Return the grid of the new examination: what the first shows, where it lies now."""
    x, y, z = motion.to_new(np.asarray([first.centre_mm]))[0].tolist()
    shape = (int(spans[2] // slice_mm) + 1, *first.shape[1:])
    return Grid(shape=shape, spacing_mm=(slice_mm, *first.spacing_mm[1:]), centre_mm=(x, y, z))


def _less(grid: Grid, placed: Sequence[Family], motion: BodyMotion, rng: np.random.Generator) -> Grid:
    """Return a grid with fewer slices, so that one of the first lesions is left out (never more than 40 %)."""
    lesions = [n for f in placed for parts in f.before for n in parts]
    slices, step = grid.shape[0], grid.spacing_mm[0]
    low = grid.origin_mm[2]
    for index in rng.permutation(len(lesions)):
        z = float(motion.to_new(np.asarray([lesions[index].centre_mm]))[0, 2])
        radius = max(lesions[index].diameters_mm) / 2
        from_below = int(np.ceil((z + radius - low) / step)) + 1
        from_above = slices - int(np.floor((z - radius - low) / step)) + 1
        cut = min(from_below, from_above)
        if 0 < cut <= 0.4 * slices:
            shift = (cut if from_below == cut else -cut) * step / 2
            x, y, middle = grid.centre_mm
            return replace(grid, shape=(slices - cut, *grid.shape[1:]), centre_mm=(x, y, middle + shift))
    return grid


def _scan(
    ground: Ground, grid: Grid, motion: BodyMotion | None, lesions: Sequence[Parts], rng: np.random.Generator
) -> tuple[Volume, list[tuple[Point, Mask]]]:
    """Return an examination with lesions set in, and the place and mask (empty when out of view) of each."""
    hu = _shown(ground.volume, grid, motion)
    axes = grid.axes_mm()
    told: list[tuple[Point, Mask]] = []
    for parts in lesions:
        lies = np.zeros(grid.shape, dtype=np.float32)
        for nodule in parts:
            x, y, z = (
                motion.to_new(np.asarray([nodule.centre_mm]))[0].tolist() if motion else nodule.centre_mm
            )
            there = replace(nodule, centre_mm=(x, y, z))
            paint_nodule(hu, axes, grid.spacing_mm, there, nodule.hu)
            paint_nodule(lies, axes, grid.spacing_mm, there, 1.0)
        told.append((_middle(parts, motion), _mask_of(lies, grid, parts)))
    kernel = rng.uniform(-0.5, 0.8)
    hu += np.float32(kernel) * (hu - ndimage.gaussian_filter(hu, (0, 0.7, 0.7)))
    hu += np.float32(rng.uniform(*NOISE_HU)) * rng.standard_normal(hu.shape, dtype=np.float32)
    return _on_grid(hu, grid, f"{ground.name} {'later' if motion else 'first'}"), told


def _shown(volume: Volume, grid: Grid, motion: BodyMotion | None) -> Array:
    """Return what a grid shows of a body that moved; thick slices are the mean of two planes."""
    z, y, x = (axis.astype(np.float64) for axis in grid.axes_mm())
    hu = np.zeros(grid.shape, dtype=np.float32)
    parts = (0.0,) if grid.spacing_mm[0] <= THIN_MM else (-0.25, 0.25)
    for part in parts:
        planes = np.meshgrid(x, y, z + part * grid.spacing_mm[0], indexing="ij")
        points = np.stack([p.transpose(2, 1, 0).ravel() for p in planes], axis=1)
        at = volume.to_index(motion.to_earlier(points) if motion else points).T
        hu += ndimage.map_coordinates(volume.array, at, order=1, mode="nearest").reshape(grid.shape) / len(
            parts
        )
    return hu


def _middle(parts: Parts, motion: BodyMotion | None) -> Point:
    """Return the centre of gravity of the parts of a lesion, by their volumes, LPS mm."""
    weights = np.array([n.volume_ml for n in parts])
    centres = np.array([n.centre_mm for n in parts])
    moved = motion.to_new(centres) if motion else centres
    x, y, z = (weights @ moved / weights.sum()).tolist()
    return (x, y, z)


def _mask_of(lies: Array, grid: Grid, parts: Parts) -> Mask:
    """Return the voxels that are at least half lesion, at least four; none when too little of it is in view."""
    volume_mm3 = 1000 * sum(n.volume_ml for n in parts)
    if lies.sum() * np.prod(grid.spacing_mm) < LEAST_SHARE * volume_mm3:
        return Mask.from_full(np.zeros(grid.shape, dtype=np.bool_))
    fourth = np.sort(lies[lies > 0])[-SMALLEST_VOXELS:][0]
    return Mask.from_full(lies >= min(0.5, float(fourth)))


def _told(
    name: str,
    before: tuple[Volume, list[tuple[Point, Mask]]],
    now: tuple[Volume, list[tuple[Point, Mask]]],
    placed: Sequence[Family],
    motion: BodyMotion,
) -> ScanPair:
    """Return the pair with its truth, without what neither examination shows."""
    links: set[tuple[str, str]] = set()
    first, second = 0, 0
    for family in placed:
        links |= {(f"before {first + i}", f"now {second + j}") for i, j in family.links}
        first, second = first + len(family.before), second + len(family.now)
    shown = [_lesions("before", before[1]), _lesions("now", now[1])]
    names = {lesion.name for lesions in shown for lesion in lesions}
    low, high = _bounds(now[0])
    at = motion.to_new(np.asarray([lesion.centre_mm for lesion in shown[0]]).reshape(-1, 3))
    outside = np.any((at < low) | (at > high), axis=1).tolist()
    return ScanPair(
        name=name,
        earlier=before[0],
        new=now[0],
        motion=motion,
        before=shown[0],
        now=shown[1],
        links=frozenset((a, b) for a, b in links if a in names and b in names),
        unseen=frozenset(lesion.name for lesion, out in zip(shown[0], outside, strict=True) if out),
    )


def _lesions(word: str, told: Sequence[tuple[Point, Mask]]) -> tuple[PlacedLesion, ...]:
    return tuple(
        PlacedLesion(name=f"{word} {n}", mask=mask, centre_mm=centre)
        for n, (centre, mask) in enumerate(told)
        if mask.count
    )


def _bounds(volume: Volume) -> tuple[Floats, Floats]:
    """Return the lowest and highest position (x, y, z) that a volume on axial axes shows, mm."""
    half = np.asarray(volume.spacing_mm[::-1]) / 2
    low = volume.to_mm((0.0, 0.0, 0.0)) - half
    return low, low + np.asarray(volume.array.shape[::-1]) * volume.spacing_mm[::-1]


def _on_grid(array: Array, grid: Grid, name: str) -> Volume:
    z0, y0, x0 = reversed(grid.origin_mm)
    dz, dy, dx = grid.spacing_mm
    affine = np.array([[0, 0, dx, x0], [0, dy, 0, y0], [dz, 0, 0, z0], [0, 0, 0, 1]], dtype=np.float64)
    return _volume(array, affine, name)


def _volume(array: Array, affine: Floats, name: str) -> Volume:
    geometry = highdicom.VolumeGeometry(affine=affine, spatial_shape=array.shape, coordinate_system="PATIENT")
    steps = np.arange(array.shape[0])[:, None] * affine[:3, 0] + affine[:3, 3]
    return Volume(
        array=np.ascontiguousarray(array, dtype=np.float32),
        geometry=geometry,
        role="ct",
        unit=codes.HU,
        modality="CT",
        series_instance_uid=name,
        sop_class_uid="",
        sop_instance_uids=("",) * array.shape[0],
        slice_positions=tuple((float(x), float(y), float(z)) for x, y, z in steps),
    )


__all__ = ["Ground", "PlacedLesion", "ScanPair", "ground_of", "phantom_ground", "scan_pair"]
