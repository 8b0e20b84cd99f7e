"""Pieces of regions onto the slices of a volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from plugins.contract import BoolArray, Flag, Mask, Volume
from plugins.errors import Refused
from store.dicom.common_voxels import common

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """A rectangle of pixels in one slice."""

    k: int | None
    """Slice; None when there is no slice where it lies."""
    origin: tuple[int, int]
    """Row and column of its first pixel in the slice."""
    pixels: BoolArray
    """Which pixels belong to the region, `(r, c)`."""


def overlap(one: Block, other: Block) -> bool:
    """Return whether two rectangles, on whatever slices, have pixels of a region at the same rows and columns."""
    return common(one.origin, one.pixels, other.origin, other.pixels) > 0


def slice_normal(volume: Volume) -> FloatArray:
    """Return the unit vector along growing K, LPS."""
    step = volume.geometry.affine[:3, 0]
    return np.asarray(step / np.linalg.norm(step), dtype=np.float64)


def slice_distances(points_mm: FloatArray, volume: Volume) -> tuple[NDArray[np.int64], FloatArray]:
    """Return for points `(n, 3)` LPS mm the nearest slice k, and how far along the normal they lie from it, mm."""
    normal = slice_normal(volume)
    planes = np.asarray(volume.slice_positions, dtype=np.float64) @ normal
    along = points_mm @ normal
    nearest = np.abs(along[:, None] - planes[None, :]).argmin(axis=1)
    return nearest, along - planes[nearest]


def frame_doubts(frame_of_reference_uid: str | None, volume: Volume) -> list[Flag]:
    """Return the doubt that a region says it lies in another frame of reference than the images that it names."""
    if not frame_of_reference_uid or frame_of_reference_uid == volume.frame_of_reference_uid:
        return []
    sentence = (
        "its frame of reference is not that of its images; its positions are taken as those of the images"
    )
    return [Flag(code="frame-of-reference-differs", sentence=sentence)]


def mask_of_box(volume: Volume, origin: tuple[int, int, int], box: BoolArray) -> Mask:
    """Return the mask on a volume's grid of a boolean box `(k, r, c)` whose first voxel is at `origin`, cropped."""
    tight = Mask.from_full(box)
    k, r, c = (o + t for o, t in zip(origin, tight.origin, strict=True))
    return Mask(shape=grid_shape(volume), origin=(k, r, c), voxels=tight.voxels)


def grid_shape(volume: Volume) -> tuple[int, int, int]:
    """Return (K, R, C) of a volume."""
    k, r, c = volume.array.shape
    return (int(k), int(r), int(c))


def mask_of_blocks(blocks: Sequence[Block], volume: Volume, outside: str) -> Mask:
    """Return the union of rectangles as a mask. Refuses (`empty-segment`, and `outside` where there is no voxel)."""
    if not blocks:
        raise Refused("empty-segment", "it has no voxels")
    tight = [_tight(block) for block in blocks]
    _, rows, columns = grid_shape(volume)
    for block in tight:
        (r, c), (height, width) = block.origin, block.pixels.shape
        if block.k is None or r < 0 or c < 0 or r + height > rows or c + width > columns:
            raise Refused(outside, "a part of it lies where no image is; its images are missing")
    ks = [block.k for block in tight if block.k is not None]
    low = min(ks), min(b.origin[0] for b in tight), min(b.origin[1] for b in tight)
    high = (
        max(ks) + 1,
        max(b.origin[0] + b.pixels.shape[0] for b in tight),
        max(b.origin[1] + b.pixels.shape[1] for b in tight),
    )
    box = np.zeros([h - o for h, o in zip(high, low, strict=True)], dtype=np.bool_)
    for block in tight:
        r, c = block.origin[0] - low[1], block.origin[1] - low[2]
        height, width = block.pixels.shape
        box[(block.k or 0) - low[0], r : r + height, c : c + width] |= block.pixels
    return mask_of_box(volume, low, box)


def _tight(block: Block) -> Block:
    """Return the rectangle cut to the pixels that belong to the region, of which there is at least one."""
    r, c = np.flatnonzero(block.pixels.any(axis=1)), np.flatnonzero(block.pixels.any(axis=0))
    pixels = block.pixels[r[0] : r[-1] + 1, c[0] : c[-1] + 1]
    return Block(k=block.k, origin=(block.origin[0] + int(r[0]), block.origin[1] + int(c[0])), pixels=pixels)
