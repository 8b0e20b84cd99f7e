"""The lungs and the large airways of a chest CT, by classical means that need no weights.

Coarse work (what is outside, which air is lung, left from right, closing) runs on a grid of about 2 mm; the edge
is then drawn again at full resolution. The patient's own axes decide what is left, whatever the orientation of
the slices; nothing assumes that the patient lies on the back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.morphology import convex_hull_image
from skimage.segmentation import watershed

from plugins.airways import grow, trachea
from plugins.contract import Flag, Mask, Volume
from plugins.errors import Absent, Refused
from plugins.patient_axes import PatientAxes
from plugins.shapes import bounding_box, closing_by_ball, deeper_than, depth_in_mm, without_holes

Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
Labels = NDArray[np.uint8]
Spacing = tuple[float, float, float]

AIR_HU = -400.0
"""Denser than this is tissue."""
ROOM_HU = -930.0
"""Thinner than this, averaged over some millimetres, is the air of the room."""
GAS_HU = -980.0
"""A large piece of enclosed air whose inside has a median below this is gas (bowel), not lung."""
COARSE_MM = 2.0
SMALLEST_ML = 20.0
PLAUSIBLE_ML = (1500.0, 9000.0)
LEAST_ML = {True: 100.0, False: 400.0}
"""Less air than this, with and without airways, is a fold of skin, the bowel or the gap between legs."""
VESSEL_CLOSING_MM = 8.0
PLEURAL_CLOSING_MM = 36.0
BONE_HU = 200.0
"""Gaps are not filled with a piece that is denser than this and larger than 1 ml, nor just beside it: bone."""
BORDER_WINDOW_MM = (15.0, 20.0)
"""How far (Z, Y) the border towards the mediastinum is looked for when a mass may hide it."""
RIGHT, LEFT = 1, 2
IN_PLANE = np.array([[[0, 0, 0]] * 3, [[0, 1, 0], [1, 1, 1], [0, 1, 0]], [[0, 0, 0]] * 3], dtype=np.bool_)


@dataclass(frozen=True, kw_only=True, eq=False)
class Lungs:
    """The lungs of one CT on its own grid."""

    left: Mask
    """The patient's left lung; empty when there is none."""
    right: Mask
    """The patient's right lung; empty when there is none."""
    airways: Mask
    """Lumen of trachea and main bronchi, in neither lung; empty when it was not found."""
    flags: tuple[Flag, ...] = ()
    """Doubts: implausible volume, lungs cut by the field of view, one lung, airways not found."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Coarse:
    """The CT in patient axes (Z to the head, Y to the back, X to the left), averaged to about 2 mm."""

    hu: Array
    factors: tuple[int, int, int]
    spacing_mm: Spacing

    @property
    def voxel_ml(self) -> float:
        return float(np.prod(self.spacing_mm)) / 1000.0


def lungs(volume: Volume, *, include_pleural: bool = True) -> Lungs:
    """Return both lungs and the large airways of a CT in HU, as masks `(K, R, C)` on the grid of the volume.

    The lungs are closed: vessels inside them belong to them. With `include_pleural`, larger dents are filled as well
    (a pleural nodule; most of a mass of a few centimetres), no nearer to the mediastinum than the lung comes within
    some millimetres; parts of aorta, hilum and diaphragm then belong to the lungs too. With False only gaps under
    16 mm are filled. Bone is in neither.
    Refuses (`not-ct`, `no-lungs`).
    An approximation by thresholds and shape: a consolidated lung, a large effusion or a mass as large as a lobe is
    missed in part, and a mass that has grown into the mediastinum is cut near where the lung once ended.
    """
    if volume.role != "ct":
        raise Refused("not-ct", "lungs are looked for only in a CT in HU", where=volume.series_instance_uid)
    axes = PatientAxes.of(volume)
    hu = axes.to_patient(volume.array)
    spacing = axes.spacing(volume.spacing_mm)
    coarse = _coarsen(hu, spacing)
    inner, lung, is_cut = _lung_air(coarse)
    if not lung.any():
        sentence = "no lung was found in this CT: nothing inside the body has the density and size of a lung"
        raise Absent("no-lungs", sentence, where=volume.series_instance_uid)
    middle = _middle(coarse, inner)
    tube, flags = _airways(hu, spacing, coarse, _upper_half(inner, lung), middle)
    sides, more = _sides(coarse, lung & ~_shrunk(tube, coarse), middle)
    closed = _closed_sides(sides, coarse, include_pleural)
    full = _refined(hu, coarse, sides, closed, tube)
    total_ml = np.count_nonzero(full) * float(np.prod(spacing)) / 1000.0
    if total_ml < LEAST_ML[bool(tube.any())]:
        sentence = f"no lung was found in this CT: {total_ml:.0f} ml of air is too little to be one"
        raise Absent("no-lungs", sentence, where=volume.series_instance_uid)
    flags += [*more, *_doubts(total_ml, sides)]
    if is_cut:
        sentence = "the field of view cuts through a lung at its side: volumes are of the part in view"
        flags.append(Flag(code="lungs-cut-by-view", sentence=sentence))
    back = axes.from_patient(full)
    return Lungs(
        left=Mask.from_full(back == LEFT),
        right=Mask.from_full(back == RIGHT),
        airways=Mask.from_full(axes.from_patient(tube)),
        flags=tuple(replace(flag, series_instance_uid=volume.series_instance_uid) for flag in flags),
    )


def _coarsen(hu: Array, spacing_mm: Spacing) -> _Coarse:
    """Return the block means; a rest at the far edge that fills no block is left out."""
    factors = [max(1, min(round(COARSE_MM / s), n)) for s, n in zip(spacing_mm, hu.shape, strict=True)]
    fz, fy, fx = factors
    out = block_means(hu, factors)
    spacing = (spacing_mm[0] * fz, spacing_mm[1] * fy, spacing_mm[2] * fx)
    return _Coarse(hu=out, factors=(fz, fy, fx), spacing_mm=spacing)


def block_means(array: NDArray[Any], factors: Sequence[int]) -> Array:
    """Return the means of blocks of so many voxels; a rest at the far edge that fills no block is left out."""
    fz, fy, fx = factors
    nz, ny, nx = (n // f for n, f in zip(array.shape, factors, strict=True))
    out = np.empty((nz, ny, nx), dtype=np.float32)
    for z in range(nz):
        block = array[z * fz : (z + 1) * fz, : ny * fy, : nx * fx]
        out[z] = block.mean(axis=0).reshape(ny, fy, nx, fx).mean(axis=(1, 3))
    return out


def _lung_air(coarse: _Coarse) -> tuple[BoolArray, BoolArray, bool]:
    """Return the air that the body encloses in each slice, its part that is lung, and whether the view cuts it."""
    air = coarse.hu < AIR_HU
    inner = air & ~_open_to_border(air)
    lung = _lung_like(inner, coarse)
    at_edge = _edge_of_view(coarse) & ~air
    enough = np.count_nonzero(lung) * coarse.voxel_ml > PLAUSIBLE_ML[0]
    if enough and np.count_nonzero(at_edge.any(axis=(1, 2))) < 0.1 * at_edge.shape[0]:
        return inner, lung, False
    cut = inner | _cut_lung(coarse, air)
    cut_lung = _lung_like(cut, coarse)
    if np.count_nonzero(cut_lung) > (1.05 if enough else 1.3) * np.count_nonzero(lung):
        return cut, cut_lung, True
    return inner, lung, False


def _edge_of_view(coarse: _Coarse) -> BoolArray:
    """Return the voxels at the in-plane edge of what was imaged: of the grid, or of the padding around a circle."""
    edge = np.zeros(coarse.hu.shape, dtype=np.bool_)
    edge[:, [0, -1]] = True
    edge[:, :, [0, -1]] = True
    lowest = float(coarse.hu.min())
    padding = _open_to_border(coarse.hu <= lowest + 0.5)
    if lowest < -1010.0 and np.count_nonzero(padding) > 0.01 * padding.size:
        edge |= ndimage.binary_dilation(padding, structure=IN_PLANE, iterations=2) & ~padding
    return edge


def _cut_lung(coarse: _Coarse, air: BoolArray) -> BoolArray:
    """Return the air inside the body when the field of view may cut through a lung.

    Then only air as thin as that of the room, where it reaches the edge of its slice, counts as outside, and the
    body is the convex hull of its tissue in each slice: the foam of the table is not lung.
    """
    smooth = ndimage.gaussian_filter(np.maximum(coarse.hu, -1000.0), sigma=[0.7, 1.5, 1.5])
    outside = ndimage.binary_dilation(_open_to_border(smooth < ROOM_HU), structure=IN_PLANE, iterations=4)
    tissue = ndimage.binary_opening(~air, structure=IN_PLANE, iterations=3)
    labels = cc3d.connected_components(tissue, connectivity=6)
    counts = np.bincount(labels.ravel())
    counts[0] = 0
    body = labels == int(counts.argmax())
    hull = np.zeros_like(air)
    for z in np.flatnonzero(body.any(axis=(1, 2))):
        hull[z] = convex_hull_image(body[z])
    hull = ndimage.binary_erosion(hull, structure=IN_PLANE, iterations=6, border_value=1)
    inner: BoolArray = air & ~outside & hull
    return inner


def _open_to_border(air: BoolArray) -> BoolArray:
    """Return the air that reaches the edge of its own axial slice: an open mouth does not drain the lungs."""
    labels, count = ndimage.label(air, structure=IN_PLANE)
    edge = np.zeros(count + 1, dtype=np.bool_)
    for side in (labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1]):
        edge[np.unique(side)] = True
    edge[0] = False
    found: BoolArray = edge[labels]
    return found


def _lung_like(air: BoolArray, coarse: _Coarse) -> BoolArray:
    """Return the pieces of enclosed air that are lung: large, and inside denser than gas."""
    labels = cc3d.connected_components(air, connectivity=6)
    ml = np.bincount(labels.ravel()) * coarse.voxel_ml
    keep = np.zeros(ml.size, dtype=np.bool_)
    for label in np.flatnonzero(ml >= SMALLEST_ML):
        if label == 0:
            continue
        piece = labels == label
        core = coarse.hu[piece & deeper_than(piece, 5.0, coarse.spacing_mm)]
        limit = GAS_HU if ml[label] >= 500.0 else GAS_HU + 20.0
        keep[label] = core.size > 20 and float(np.median(core)) > limit
    found: BoolArray = keep[labels]
    return found


def _middle(coarse: _Coarse, inner: BoolArray) -> float:
    """Return the index along X of the middle of the trunk: of tissue and what it encloses, without the room."""
    trunk = (coarse.hu > AIR_HU) | inner
    trunk = ndimage.binary_opening(trunk, structure=IN_PLANE, iterations=4)
    labels = cc3d.connected_components(trunk, connectivity=6)
    counts = np.bincount(labels.ravel())
    counts[0] = 0
    if counts.sum() == 0:
        return float(coarse.hu.shape[2] - 1) / 2
    profile = np.count_nonzero(labels == int(counts.argmax()), axis=(0, 1))
    return float(np.sum(np.arange(profile.size) * profile) / profile.sum())


def _airways(
    hu: Array, spacing_mm: Spacing, coarse: _Coarse, inner: BoolArray, middle: float
) -> tuple[BoolArray, list[Flag]]:
    seed = trachea(coarse.hu, inner, coarse.spacing_mm, middle)
    if seed is None:
        sentence = "the trachea was not found: the large airways are not removed from the lungs"
        return np.zeros(hu.shape, dtype=np.bool_), [Flag(code="airways-not-found", sentence=sentence)]
    fz, fy, fx = coarse.factors
    points = tuple((z * fz + fz // 2, y * fy + fy // 2, x * fx + fx // 2) for z, y, x in seed.points)
    return grow(hu, replace(seed, points=points), spacing_mm), []


def _upper_half(inner: BoolArray, lung: BoolArray) -> BoolArray:
    """Return the enclosed air from the middle of the lungs upwards: gas further down is no trachea."""
    heights = np.flatnonzero(lung.any(axis=(1, 2)))
    upper = inner.copy()
    upper[: int(heights[0] + heights[-1]) // 2] = False
    return upper


def _shrunk(tube: BoolArray, coarse: _Coarse) -> BoolArray:
    """Return the airways with about 2 mm of wall on the coarse grid."""
    fz, fy, fx = coarse.factors
    nz, ny, nx = coarse.hu.shape
    blocks = tube[: nz * fz, : ny * fy, : nx * fx].reshape(nz, fz, ny, fy, nx, fx).any(axis=(1, 3, 5))
    wall: BoolArray = ndimage.binary_dilation(blocks, structure=IN_PLANE)
    return wall


def _sides(coarse: _Coarse, lung: BoolArray, middle: float) -> tuple[Labels, list[Flag]]:
    """Return which side each lung voxel belongs to: RIGHT, LEFT or 0.

    The lungs are eroded step by step until a large piece lies on either side of the middle; the pieces then
    flood back. Where they never part, the plane through the middle of the trunk parts them, and a flag says so.
    """
    depth = depth_in_mm(lung, coarse.spacing_mm)
    x_mm = (np.arange(lung.shape[2]) - middle) * coarse.spacing_mm[2]
    total = np.count_nonzero(lung)
    for erosion_mm in (0.0, 2.0, 4.0, 6.0, 8.0, 11.0, 14.0, 18.0):
        labels = cc3d.connected_components(depth > erosion_mm, connectivity=6)
        counts = np.bincount(labels.ravel())
        counts[0] = 0
        big = [
            int(n) for n in np.flatnonzero(counts > max(0.02 * total, 20)) if counts[n] > 0.01 * counts.sum()
        ]
        markers = np.zeros(lung.shape, dtype=np.int32)
        straddles = False
        for label in big:
            across = np.count_nonzero(labels == label, axis=(0, 1))
            right = across[x_mm < 0].sum() / across.sum()
            straddles = straddles or (0.1 < right < 0.9 and across.sum() > 0.2 * counts.sum())
            markers[labels == label] = RIGHT if right > 0.5 else LEFT
        if big and not straddles:
            return _flooded(markers, depth, lung), _one_lung(markers)
    sentence = (
        "left and right lung could not be told apart by shape: they are parted at the middle of the trunk"
    )
    sides = np.where(lung, np.where(x_mm < 0, RIGHT, LEFT), 0).astype(np.uint8)
    return sides, [Flag(code="lungs-not-parted", sentence=sentence)]


def _flooded(markers: NDArray[np.int32], depth: Array, lung: BoolArray) -> Labels:
    box = bounding_box(lung, 1)
    sides = np.zeros(lung.shape, dtype=np.uint8)
    grown = watershed(-depth[box], markers=markers[box], mask=lung[box])
    missed = lung[box] & (grown == 0)
    if missed.any():
        nearest = ndimage.distance_transform_edt(grown == 0, return_distances=False, return_indices=True)
        grown[missed] = grown[tuple(nearest)][missed]
    sides[box] = grown
    return sides


def _one_lung(markers: NDArray[np.int32]) -> list[Flag]:
    right, left = np.count_nonzero(markers == RIGHT), np.count_nonzero(markers == LEFT)
    if min(right, left) > 0.1 * max(right, left):
        return []
    side = "left" if right > left else "right"
    sentence = f"hardly any air was found in the {side} lung: removed, collapsed, consolidated or out of view"
    return [Flag(code="one-lung", sentence=sentence)]


def _closed_sides(sides: Labels, coarse: _Coarse, include_pleural: bool) -> Labels:
    """Return the closed lungs on the coarse grid: small gaps on all sides, large ones only towards the ribs."""
    closed = sides.copy()
    bone = _bone(coarse)
    for side in (RIGHT, LEFT):
        lung = sides == side
        if not lung.any():
            continue
        filled = closing_by_ball(lung, VESSEL_CLOSING_MM, coarse.spacing_mm)
        if include_pleural:
            wide = closing_by_ball(lung, PLEURAL_CLOSING_MM, coarse.spacing_mm)
            filled |= wide & _rib_side(lung, side, coarse.spacing_mm)
        filled = without_holes(filled & ~bone)
        closed[filled & (closed == 0)] = side
    return closed


def _bone(coarse: _Coarse) -> BoolArray:
    """Return large pieces of bone (or of vessels full of contrast) with about 2 mm around them."""
    dense = coarse.hu > BONE_HU
    labels = cc3d.connected_components(dense, connectivity=26)
    large = np.bincount(labels.ravel()) * coarse.voxel_ml > 1.0
    large[0] = False
    found: BoolArray = ndimage.binary_dilation(large[labels], structure=IN_PLANE)
    return found


def _rib_side(lung: BoolArray, side: int, spacing_mm: Spacing) -> BoolArray:
    """Return the voxels no nearer to the mediastinum than the lung comes within some millimetres of their row."""
    inward = lung if side == LEFT else lung[:, :, ::-1]
    first = np.where(inward.any(axis=2), inward.argmax(axis=2), lung.shape[2])
    window = [2 * round(mm / s) + 1 for mm, s in zip(BORDER_WINDOW_MM, spacing_mm[:2], strict=True)]
    border = ndimage.minimum_filter(first, size=window)
    found: BoolArray = np.arange(lung.shape[2])[None, None, :] >= border[:, :, None]
    return found if side == LEFT else found[:, :, ::-1]


def _refined(hu: Array, coarse: _Coarse, sides: Labels, closed: Labels, tube: BoolArray) -> Labels:
    """Return the sides at full resolution: air near the coarse lung, and what the closing added."""
    full = np.zeros(hu.shape, dtype=np.uint8)
    owner = np.maximum(closed, ndimage.grey_dilation(sides, footprint=np.ones((1, 3, 3))))
    added = ndimage.binary_dilation((closed > 0) & (sides == 0)) & (closed > 0)
    solid = added | ndimage.binary_erosion(closed > 0, structure=IN_PLANE, border_value=1)
    walls = _shrunk(tube, coarse)
    box = bounding_box(owner > 0, 1)
    fz, fy, fx = coarse.factors
    cut = (slice(box[1].start * fy, box[1].stop * fy), slice(box[2].start * fx, box[2].stop * fx))
    rows, columns = _between(box[1], fy), _between(box[2], fx)
    for z in range(box[0].start * fz, min(box[0].stop * fz, hu.shape[0])):
        near, wall, bulk = (a[z // fz, box[1], box[2]] for a in (owner, walls, solid))
        inside = (hu[z][cut] < AIR_HU) & ~_repeated(wall, fy, fx)
        inside |= (rows @ bulk.astype(np.float32) @ columns.T) > 0.5
        full[z][cut] = np.where(inside & ~tube[z][cut], _repeated(near, fy, fx), 0)
    labels = cc3d.connected_components(full > 0, connectivity=6)
    voxel_ml = coarse.voxel_ml / (fz * fy * fx)
    crumbs = np.bincount(labels.ravel()) * voxel_ml < 1.0
    full[crumbs[labels]] = 0
    return full


def _repeated(array: NDArray[Any], rows: int, columns: int) -> NDArray[Any]:
    repeated: NDArray[Any] = np.repeat(np.repeat(array, rows, axis=0), columns, axis=1)
    return repeated


def _between(bounds: slice, factor: int) -> Array:
    """Return the matrix that interpolates block means linearly to the fine grid of the same extent."""
    count = bounds.stop - bounds.start
    fine = np.clip((np.arange(count * factor) + 0.5) / factor - 0.5, 0, count - 1)
    weights = 1.0 - np.abs(fine[:, None] - np.arange(count)[None, :])
    return np.maximum(weights, 0.0).astype(np.float32)


def _doubts(total_ml: float, sides: Labels) -> list[Flag]:
    flags: list[Flag] = []
    ends = [np.count_nonzero(sides[z]) * 4 > np.count_nonzero(sides, axis=(1, 2)).max() for z in (0, -1)]
    if any(ends):
        where = " and ".join(word for word, cut in zip(("lower", "upper"), ends, strict=True) if cut)
        sentence = f"the {where} end of the image cuts through the lungs: volumes are of the part in view"
        flags.append(Flag(code="lungs-incomplete", sentence=sentence))
    if not PLAUSIBLE_ML[0] <= total_ml <= PLAUSIBLE_ML[1]:
        sentence = (
            f"the lungs measure {total_ml:.0f} ml, outside the plausible 1500 to 9000 ml: look at the mask"
        )
        flags.append(Flag(code="implausible-lung-volume", sentence=sentence))
    return flags
