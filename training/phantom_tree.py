"""The branching airways and vessels of the thorax phantom.

Targets are strewn in each lung and joined one by one to the nearest node of the tree; radii follow from the
number of leaves behind a node (r^2.9 adds up, after Murray, PNAS 1926;12:207). Body frame, LPS millimetres.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.phantom_anatomy import Axes, FloatArray, Point, lung

MURRAY = 2.9
STEP_MM = 7.0
LAYERS = 4
THINNEST_AIRWAY_MM = 1.4
WALL_SHARE, WALL_MM = 0.18, 0.7
HILUM: Mapping[str, Point] = {"right": (-36.0, 18.0, 8.0), "left": (40.0, 20.0, 2.0)}
CARINA: Point = (0.0, 27.0, 36.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Branch:
    """A round piece of a tube whose radius changes evenly."""

    start: Point
    """One end, mm."""
    end: Point
    """Other end, mm."""
    radii_mm: tuple[float, float]
    """Radius at either end, mm; the inner one for an airway."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Tree:
    """Everything that branches."""

    vessels: tuple[Branch, ...]
    """Arteries and veins."""
    airways: tuple[Branch, ...]
    """Trachea and bronchi."""


Keep = tuple[Point, float]


def grow(seed: int, keep_clear: Sequence[Keep]) -> Tree:
    """Return the tree of one seed; only the feeding vessel of the third nodule comes near (centre, radius) spheres."""
    vessels: list[Branch] = []
    airways = [
        Branch(start=(0.0, 21.0, 175.0), end=CARINA, radii_mm=(8.5, 8.5)),
        Branch(start=CARINA, end=HILUM["right"], radii_mm=(7.0, 6.0)),
        Branch(start=CARINA, end=HILUM["left"], radii_mm=(6.5, 5.5)),
    ]
    for number, side in enumerate(("right", "left")):
        x, y, z = HILUM[side]
        inner = -1.0 if side == "left" else 1.0
        rng = np.random.default_rng((seed, 21, number))
        vessels += _trunk((18.0, -14.0, 16.0), (x, y - 13, z + 6))
        vessels += _fill(rng, side, (x, y - 13, z + 6), 420, 0.66, keep_clear)
        vessels += _fill(rng, side, (x + inner * 6, y - 8, z - 16), 340, 0.66, keep_clear)
        bronchi = _fill(rng, side, (x, y, z), 40, 1.0, keep_clear)
        airways += [b for b in bronchi if b.radii_mm[0] >= THINNEST_AIRWAY_MM]
    vessels += _feeder(keep_clear[2])
    return Tree(vessels=tuple(vessels), airways=tuple(airways))


def _trunk(start: Point, end: Point) -> list[Branch]:
    """Return a main pulmonary artery; at its end it is as wide as the tree that begins there."""
    return [Branch(start=start, end=end, radii_mm=(9.0, 5.6))]


def _feeder(target: Keep) -> list[Branch]:
    """Return a vessel that passes the nodule and touches it."""
    (x, y, z), radius = target
    beside = (x, y - radius - 0.4, z)
    hilum = HILUM["right"]
    return [
        Branch(start=(hilum[0] - 6, hilum[1] + 4, hilum[2] - 6), end=beside, radii_mm=(2.0, 1.6)),
        Branch(start=beside, end=(x - 12, y + 6, z - 22), radii_mm=(1.6, 1.0)),
    ]


def _strew(rng: np.random.Generator, side: str, count: int) -> NDArray[np.float64]:
    """Return `count` points `(N, 3)` at least 5 mm inside one lung."""
    kept: list[NDArray[np.float64]] = []
    found = 0
    while found < count:
        points = rng.uniform((-135, -95, -125), (135, 95, 130), size=(4000, 3))
        x, y, z = (points[:, i].astype(np.float32) for i in range(3))
        inside = points[lung(x, y, z, side) < -5]
        kept.append(inside)
        found += len(inside)
    return np.concatenate(kept)[:count]


def _fill(
    rng: np.random.Generator, side: str, root: Point, count: int, leaf_mm: float, keep_clear: Sequence[Keep]
) -> list[Branch]:
    targets = _strew(rng, side, count)
    targets = targets[np.argsort(np.linalg.norm(targets - np.asarray(root), axis=1))]
    nodes = [np.asarray(root, dtype=np.float64)]
    parents = [-1]
    for target in targets:
        all_nodes = np.asarray(nodes)
        nearest = int(np.argmin(np.linalg.norm(all_nodes - target, axis=1)))
        gap = target - nodes[nearest]
        length = float(np.linalg.norm(gap))
        if length < 4 or _touches(nodes[nearest], target, keep_clear):
            continue
        pieces = max(1, round(length / STEP_MM))
        bend = rng.normal(0, 0.05 * length, 3)
        parent = nearest
        for piece in range(1, pieces + 1):
            t = piece / pieces
            nodes.append(nodes[nearest] + gap * t + bend * 4 * t * (1 - t))
            parents.append(parent)
            parent = len(nodes) - 1
    return _branches(nodes, parents, leaf_mm)


def _touches(start: NDArray[np.float64], end: NDArray[np.float64], keep_clear: Sequence[Keep]) -> bool:
    gap = end - start
    for centre, radius in keep_clear:
        t = np.clip(np.dot(np.asarray(centre) - start, gap) / max(float(np.dot(gap, gap)), 1e-9), 0, 1)
        if np.linalg.norm(start + t * gap - np.asarray(centre)) < radius + 5:
            return True
    return False


def _branches(nodes: Sequence[NDArray[np.float64]], parents: Sequence[int], leaf_mm: float) -> list[Branch]:
    load = np.zeros(len(nodes))
    children = np.bincount([p for p in parents if p >= 0], minlength=len(nodes))
    for index in range(len(nodes) - 1, 0, -1):
        if children[index] == 0:
            load[index] += leaf_mm**MURRAY
        load[parents[index]] += load[index]
    radii = load ** (1 / MURRAY)
    return [
        Branch(
            start=_point(nodes[parents[i]]), end=_point(nodes[i]), radii_mm=(float(radii[i]), float(radii[i]))
        )
        for i in range(1, len(nodes))
    ]


def _point(values: NDArray[np.float64]) -> Point:
    return (float(values[0]), float(values[1]), float(values[2]))


def paint(values: FloatArray, axes: Axes, tree: Tree, table: Mapping[str, float]) -> NDArray[np.bool_]:
    """Paint vessels and airways into `values` `(K, R, C)`; return where the airways are, walls included."""
    airway = np.zeros(values.shape, dtype=np.bool_)
    dark = np.float32(table["blood"])
    for branch in tree.vessels:
        found = _share(axes, branch, 0.0)
        if found is not None:
            box, share = found
            region = values[box]
            np.maximum(region, region + share * (dark - region), out=region)
    for branch in tree.airways:
        found = _share(axes, branch, WALL_MM + WALL_SHARE * branch.radii_mm[0], layers=LAYERS)
        if found is not None:
            box, share = found
            region = values[box]
            np.maximum(region, region + share * (np.float32(table["airway wall"]) - region), out=region)
            airway[box] |= share > 0.5
    for branch in tree.airways:
        found = _share(axes, branch, 0.0, layers=LAYERS)
        if found is not None:
            box, share = found
            values[box] += share * (np.float32(table["airway"]) - values[box])
    return airway


def _share(
    axes: Axes, branch: Branch, thicker_mm: float, *, layers: int = 1
) -> tuple[tuple[slice, slice, slice], FloatArray] | None:
    """Return the box of a branch and the share of each of its voxels that the branch fills (approximate).

    `layers` is in how many planes within a slice it is asked: a wall thinner than a slice must not have holes.
    """
    start, end = np.asarray(branch.start), np.asarray(branch.end)
    reach = max(branch.radii_mm) + thicker_mm + 1.5 + (float(axes[0][1] - axes[0][0]) if layers > 1 else 0.0)
    boxes: list[slice] = []
    for axis, a, b in zip(axes, start[::-1], end[::-1], strict=True):
        low, high = np.searchsorted(axis, [min(a, b) - reach, max(a, b) + reach])
        if low == high:
            return None
        boxes.append(slice(int(low), int(high)))
    box = (boxes[0], boxes[1], boxes[2])
    z, y, x = (axis[part] for axis, part in zip(axes, box, strict=True))
    if layers > 1:
        within = ((np.arange(layers) + 0.5) / layers - 0.5) * float(axes[0][1] - axes[0][0])
        z = np.asarray((z[:, None] + within).ravel(), dtype=np.float32)
    gap = (end - start).astype(np.float32)
    dx, dy, dz = x[None, None, :] - start[0], y[None, :, None] - start[1], z[:, None, None] - start[2]
    along = np.clip((dx * gap[0] + dy * gap[1] + dz * gap[2]) / max(float(gap @ gap), 1e-9), 0, 1)
    square = (dx - along * gap[0]) ** 2 + (dy - along * gap[1]) ** 2 + (dz - along * gap[2]) ** 2
    radius = branch.radii_mm[0] + along * (branch.radii_mm[1] - branch.radii_mm[0]) + thicker_mm
    edge = np.float32(max(1.0, abs(float(axes[2][1] - axes[2][0]))))
    share = np.clip(np.float32(0.5) - (np.sqrt(square) - radius) / edge, 0, 1)
    planes = share.reshape(-1, layers, *share.shape[1:]).mean(axis=1)
    return box, np.asarray(planes, dtype=np.float32)
