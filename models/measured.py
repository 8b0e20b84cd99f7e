"""What of an image was measured: padding holds one value or repeats what lies beside it, as no measured plane does."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Box = tuple[slice, slice, slice]

NOISY = 0.7
"""Where more than this part of neighbouring voxels differ there is noise, in which no plane equals another by chance.
It is 0.85 to 0.99 of CT in HU; slices that were doubled reach 2/3, a smooth phantom its surface alone."""

MANY = 64
"""So many lines along each side of a plane tell whether there is noise."""


def measured_extent(image: NDArray[Any]) -> Box:
    """Return the part of an image `(K, R, C)` that was measured: all but what was put around it, the whole if nothing.

    Put around it are outermost planes that equal the next inner one bit for bit, or that hold one value throughout. An
    axis along which what is left has no noise (`NOISY`) stays whole: a phantom, a rod along it, one image many times.
    """
    k, r, c = (_between(np.moveaxis(image, axis, 0)) for axis in range(3))
    inner = image[k, r, c]
    k, r, c = (
        slice(0, n) if side.stop - side.start < n and not _is_noisy(np.moveaxis(inner, axis, 0)) else side
        for axis, (side, n) in enumerate(zip((k, r, c), image.shape, strict=True))
    )
    return (k, r, c)


def _between(planes: NDArray[Any]) -> slice:
    """Return which planes are left when the outermost are taken off for as long as they tell nothing; one at least."""
    low, high = 0, len(planes)
    while high - low > 1 and _tells_nothing(planes[low], planes[low + 1]):
        low += 1
    while high - low > 1 and _tells_nothing(planes[high - 1], planes[high - 2]):
        high -= 1
    return slice(low, high)


def _tells_nothing(plane: NDArray[Any], inner: NDArray[Any]) -> bool:
    return np.array_equal(plane, inner) or bool((plane == plane.flat[0]).all())


def _is_noisy(planes: NDArray[Any]) -> bool:
    """Return whether more than `NOISY` of neighbours across the planes differ; of large planes some lines are asked."""
    r, c = (1 + n // MANY for n in planes.shape[1:])
    seen = planes[:, ::r, ::c]
    return len(seen) > 1 and float(np.mean(seen[1:] != seen[:-1])) > NOISY


__all__ = ["measured_extent"]
