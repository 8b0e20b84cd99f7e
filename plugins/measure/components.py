"""The connected components of a mask as cropped masks: what is empty is looked at once, and only to see that."""

from __future__ import annotations

from typing import Final, Literal

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from plugins.contract import BoolArray, Mask

BLOCK: Final = 8
_TOUCHING: Final = np.ones((3, 3, 3), dtype=np.bool_)


def components(mask: BoolArray, connectivity: Literal[6, 18, 26] = 26) -> tuple[Mask, ...]:
    """Return the connected components of a whole-grid mask `(K, R, C)`, in the order of their first voxels.

    Equals labelling the whole grid. Voxels of two components lie in blocks of 8 x 8 x 8 that do not touch, or in one
    group of blocks, which is labelled by itself: time and memory go with what is in the mask.
    """
    blocks = _blocks(mask)
    groups, _ = ndimage.label(blocks, structure=_TOUCHING)
    found: list[tuple[tuple[int, ...], Mask]] = []
    for number, box in enumerate(ndimage.find_objects(groups), start=1):
        whole = tuple(
            slice(s.start * BLOCK, min(s.stop * BLOCK, n)) for s, n in zip(box, mask.shape, strict=True)
        )
        part = mask[whole]
        own = groups[box] == number
        if not own.all():
            for axis in range(3):
                own = own.repeat(BLOCK, axis=axis).take(range(part.shape[axis]), axis=axis)
            part = part & own
        found += _within(mask.shape, tuple(s.start for s in whole), part, connectivity)
    return tuple(component for _, component in sorted(found, key=lambda pair: pair[0]))


def _within(
    shape: tuple[int, ...], start: tuple[int, ...], part: BoolArray, connectivity: int
) -> list[tuple[tuple[int, ...], Mask]]:
    """Return the components of a part of the grid, each with the index of its first voxel."""
    # cc3d 4.1 fails on boolean arrays that are one voxel wide in two directions, not on bytes, and on read-only ones
    octets = np.require(part, requirements=["C", "W"]).view(np.uint8)
    labels: NDArray[np.integer] = np.asarray(cc3d.connected_components(octets, connectivity=connectivity))
    found = []
    for number, inner in enumerate(ndimage.find_objects(labels), start=1):
        voxels = labels[inner] == number
        k, r, c = (int(o + s.start) for o, s in zip(start, inner, strict=True))
        first = np.unravel_index(int(voxels.argmax()), voxels.shape)
        at = tuple(int(o + i) for o, i in zip((k, r, c), first, strict=True))
        size = (int(shape[0]), int(shape[1]), int(shape[2]))
        found.append((at, Mask(shape=size, origin=(k, r, c), voxels=voxels)))
    return found


def _blocks(mask: BoolArray) -> BoolArray:
    """Return which blocks of 8 x 8 x 8 voxels hold a voxel of the mask."""
    columns = mask.shape[2]
    whole = mask if columns % BLOCK == 0 else np.pad(mask, ((0, 0), (0, 0), (0, -columns % BLOCK)))
    words = np.ascontiguousarray(whole).view(np.uint64)
    rows = np.bitwise_or.reduceat(words, np.arange(0, mask.shape[1], BLOCK), axis=1)
    held = np.bitwise_or.reduceat(rows, np.arange(0, mask.shape[0], BLOCK), axis=0)
    return np.asarray(held != 0)
