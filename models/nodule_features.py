"""What is measured of a drawn nodule to judge its malignancy: size, shape, density, margin; no opinion of any reader.

Everything beyond the nodule's own slices, or further than `REACH_MM` from it in plane, is left unseen: a crop and a
whole scan give the same numbers, and how a data set was cut tells nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
Floats = NDArray[np.float64]

REACH_MM = 2.5
"""How far beyond the nodule is looked, in plane, mm."""
LUNG_HU = -850.0
"""What lung has where nothing of it can be seen."""
FEATURES = (
    "log2 volume",
    "log2 longest extent",
    "flatness",
    "elongation",
    "fullness",
    "solidity",
    "roundness of outline",
    "spread of radius",
    "mean HU",
    "spread of HU",
    "10th percentile HU",
    "median HU",
    "90th percentile HU",
    "99th percentile HU",
    "part above 200 HU",
    "part below -300 HU",
    "part of fat",
    "mean HU of the core",
    "mean HU of the rim",
    "mean HU around",
    "part of tissue around",
    "step at the margin",
)
"""Names of the features, in order."""


def features(image: Array, mask: BoolArray, spacing_mm: Sequence[float]) -> Floats:
    """Return the features of a nodule, `(F,)` as `FEATURES` names them.

    `image` in HU and `mask` are `(K, R, C)`, spacing (k, r, c) in mm. Volumes in mm^3, extents in mm; the extents are
    those of the ellipsoid of equal moments. Raises ValueError when the mask is empty or of another shape.
    """
    hu, drawn, looked_at = seen(image, mask, spacing_mm)
    inside = hu[drawn]
    depth = _depth_mm(drawn, spacing_mm)
    pixel_mm = max(spacing_mm[1:])
    around = _or_lung(hu[looked_at & ~drawn])
    near = _or_lung(hu[~drawn & (_beyond_mm(drawn, spacing_mm) <= pixel_mm)])
    rim = hu[drawn & (depth <= pixel_mm)]
    core = hu[drawn & (depth >= 0.6 * depth.max())]
    quantiles = np.percentile(inside, [10, 50, 90, 99])
    return np.asarray(
        [
            *_size_and_shape(drawn, depth, spacing_mm),
            inside.mean(),
            inside.std(),
            *quantiles,
            (inside > 200).mean(),
            (inside < -300).mean(),
            ((inside > -120) & (inside < -30)).mean(),
            core.mean(),
            rim.mean(),
            around.mean(),
            (around > -400).mean(),
            rim.mean() - near.mean(),
        ],
        dtype=np.float64,
    )


def seen(image: Array, mask: BoolArray, spacing_mm: Sequence[float]) -> tuple[Array, BoolArray, BoolArray]:
    """Return HU (cut at -1000 and 1000), mask, and what may be looked at, on the slices of the mask, framed in plane.

    Raises ValueError when the mask is empty or of another shape.
    """
    if image.shape != mask.shape or not mask.any():
        raise ValueError(
            "a nodule that is judged has a mask on the grid of its image, with at least one voxel"
        )
    held = np.argwhere(mask)
    low, high = held.min(axis=0), held.max(axis=0) + 1
    frame = [0, *(math.ceil(REACH_MM / s) + 1 for s in spacing_mm[1:])]
    box = tuple(slice(max(0, a - f), b + f) for a, b, f in zip(low, high, frame, strict=True))
    hu, drawn = np.clip(image[box], -1000.0, 1000.0), mask[box]
    return hu, drawn, _beyond_mm(drawn, spacing_mm) <= REACH_MM


def _or_lung(hu: Array) -> Array:
    """Return values, or the one of lung when a mask fills its image and leaves none."""
    return hu if hu.size else np.full(1, LUNG_HU, dtype=np.float32)


def _beyond_mm(drawn: BoolArray, spacing_mm: Sequence[float]) -> Floats:
    """Return how far each voxel lies from the mask in its own plane, mm; infinite where a plane holds none of it."""
    far = [
        ndimage.distance_transform_edt(~plane, sampling=spacing_mm[1:])
        if plane.any()
        else np.full(plane.shape, np.inf)
        for plane in drawn
    ]
    return np.stack(far)


def _depth_mm(drawn: BoolArray, spacing_mm: Sequence[float]) -> Floats:
    """Return how far each voxel of the mask lies from what is not of it in its own plane, mm."""
    far = [ndimage.distance_transform_edt(np.pad(plane, 1), sampling=spacing_mm[1:]) for plane in drawn]
    return np.stack(far)[:, 1:-1, 1:-1]


def _size_and_shape(drawn: BoolArray, depth: Floats, spacing_mm: Sequence[float]) -> tuple[float, ...]:
    voxel_mm3 = float(np.prod(spacing_mm))
    volume = drawn.sum() * voxel_mm3
    short, middle, long = _extents_mm(drawn, spacing_mm)
    plane = int(drawn.sum(axis=(1, 2)).argmax())
    solidity, roundness, spread = _outline(drawn[plane], spacing_mm[1:])
    area_radius = math.sqrt(float(drawn[plane].sum()) * spacing_mm[1] * spacing_mm[2] / math.pi)
    return (
        math.log2(volume),
        math.log2(long),
        short / middle,
        middle / long,
        float(depth[plane].max()) / area_radius,
        solidity,
        roundness,
        spread,
    )


def _extents_mm(drawn: BoolArray, spacing_mm: Sequence[float]) -> tuple[float, float, float]:
    """Return the axes, shortest first, of the ellipsoid with the second moments of a mask, mm."""
    points = np.argwhere(drawn) * np.asarray(spacing_mm)
    centred = points - points.mean(axis=0)
    own = np.diag(np.asarray(spacing_mm) ** 2) / 12.0
    a, b, c = 2.0 * np.sqrt(5.0 * np.linalg.eigvalsh(centred.T @ centred / len(points) + own))
    return (float(a), float(b), float(c))


def _outline(plane: BoolArray, spacing_mm: Sequence[float]) -> tuple[float, float, float]:
    """Return area over that of the convex hull, 4 pi area over squared length, and spread of the radius over its mean.

    Of the outline of one plane; the convex hull is that of the corners of the pixels.
    """
    from scipy.spatial import ConvexHull

    r, c = np.nonzero(plane)
    corners = np.concatenate([np.stack([r + i, c + j], 1) for i in (-0.5, 0.5) for j in (-0.5, 0.5)])
    hull = ConvexHull(corners * np.asarray(spacing_mm))
    area = len(r) * spacing_mm[0] * spacing_mm[1]
    edge = plane & ~ndimage.binary_erosion(plane)
    at = np.argwhere(edge) * np.asarray(spacing_mm)
    radius = np.linalg.norm(at - at.mean(axis=0), axis=1)
    length = _length_mm(plane, spacing_mm)
    return (
        area / float(hull.volume),
        4 * math.pi * area / length**2,
        float(radius.std() / max(radius.mean(), 1e-6)),
    )


def _length_mm(plane: BoolArray, spacing_mm: Sequence[float]) -> float:
    """Return the length of the outline by Cauchy and Crofton: edges met along rows, columns and both diagonals."""
    padded = np.pad(plane, 1)
    a, b = spacing_mm
    diagonal = math.hypot(a, b)
    met = (
        np.count_nonzero(padded[1:] ^ padded[:-1]) * b,
        np.count_nonzero(padded[:, 1:] ^ padded[:, :-1]) * a,
        np.count_nonzero(padded[1:, 1:] ^ padded[:-1, :-1]) * a * b / diagonal,
        np.count_nonzero(padded[1:, :-1] ^ padded[:-1, 1:]) * a * b / diagonal,
    )
    return math.pi / 2 * float(np.mean(met))
