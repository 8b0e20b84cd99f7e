"""A hash of which voxels of a grid a region is: a SEG then tells whether they are those that it was made with."""

from __future__ import annotations

import hashlib

import numpy as np

from plugins.contract import Mask


def voxel_hash(mask: Mask) -> str:
    """Return the sha256 of the tight box of a mask: first voxel and shape as 32-bit little endian, then its bits.

    Equal for equal voxels, however large the box is that the mask is kept in.
    """
    tight = Mask.from_full(mask.voxels)
    first = np.add(mask.origin, tight.origin)
    found = hashlib.sha256(np.array([*first, *tight.voxels.shape], dtype="<i4").tobytes())
    found.update(np.packbits(tight.voxels).tobytes())
    return found.hexdigest()


__all__ = ["voxel_hash"]
