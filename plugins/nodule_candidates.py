"""Points in the lungs that look like the middle of a blob, whatever its size: where to try to draw a nodule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
Spacing = tuple[float, float, float]
Index = tuple[int, int, int]

GRID_MM = 1.3
LUNG_HU = -850.0
CEILING_HU = 200.0
STEP = 1.45


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A blob in scale space."""

    index: Index
    """Voxel (k, r, c) of its middle."""
    diameter_mm: float
    """Diameter of the ball that would answer most strongly at this scale."""
    response_hu: float
    """Answer of the normalised Laplacian; a ball of contrast C answers about 0.9 C."""
    roundness: float
    """Weakest curvature over strongest, 0 (tube, sheet) to 1 (ball)."""


def candidates(
    hu: Array,
    inside: BoolArray,
    spacing_mm: Spacing,
    *,
    diameters_mm: tuple[float, float],
    lowest_response_hu: float,
    lowest_roundness: float,
    at_most: int,
) -> tuple[Candidate, ...]:
    """Return bright blobs of the CT `hu` `(K, R, C)` whose middle lies `inside` the lungs, the strongest first.

    Multi-scale Laplacian of Gaussian from the first to the last of `diameters_mm`; everything outside the lungs counts
    as lung, so that walls give no answer. Tubes and sheets are dropped by the eigenvalues of the Hessian. A candidate
    within the radius of a stronger one is dropped.
    """
    factors = tuple(max(1, round(GRID_MM / s)) for s in spacing_mm)
    image = _shrink(np.where(inside, np.clip(hu, -1000.0, CEILING_HU), LUNG_HU).astype(np.float32), factors)
    lung = _shrink(inside.astype(np.float32), factors) > 0.5
    grid = tuple(s * f for s, f in zip(spacing_mm, factors, strict=True))
    found: list[Candidate] = []
    diameter = diameters_mm[0]
    while diameter <= diameters_mm[1] * 1.01:
        skip = tuple(max(1, int(diameter / 3.46 / 2.0 / s)) for s in grid)
        small, small_lung = _shrink(image, skip), _shrink(lung.astype(np.float32), skip) > 0.3
        steps = tuple(g * s for g, s in zip(grid, skip, strict=True))
        total = tuple(f * s for f, s in zip(factors, skip, strict=True))
        for place, response, roundness in _blobs(small, small_lung, steps, diameter, lowest_response_hu):
            if roundness >= lowest_roundness:
                index = tuple(
                    min(i * t + t // 2, n - 1) for i, t, n in zip(place, total, hu.shape, strict=True)
                )
                found.append(
                    Candidate(
                        index=(index[0], index[1], index[2]),
                        diameter_mm=diameter,
                        response_hu=response,
                        roundness=roundness,
                    )
                )
        diameter *= STEP
    return _strongest(found, spacing_mm, at_most)


def _shrink(array: Array, factors: tuple[int, ...]) -> Array:
    """Return the block means; a rest at the far edge that fills no block is left out."""
    if all(f == 1 for f in factors):
        return array
    (fk, fr, fc), (nk, nr, nc) = factors, [n // f for n, f in zip(array.shape, factors, strict=True)]
    out: Array = array[: nk * fk, : nr * fr, : nc * fc].reshape(nk, fk, nr, fr, nc, fc).mean(axis=(1, 3, 5))
    return out


def _blobs(
    image: Array,
    lung: BoolArray,
    spacing_mm: tuple[float, ...],
    diameter_mm: float,
    lowest_response_hu: float,
) -> list[tuple[Index, float, float]]:
    """Return place, response and roundness of the local maxima of the normalised Laplacian at one scale."""
    sigma_mm = diameter_mm / (2.0 * np.sqrt(3.0))
    smooth = ndimage.gaussian_filter(
        image, sigma=[sigma_mm / s for s in spacing_mm], mode="nearest", truncate=3.0
    )
    laplace = np.zeros_like(smooth)
    for axis, step in enumerate(spacing_mm):
        if smooth.shape[axis] >= 3:
            laplace += ndimage.correlate1d(smooth, [1.0, -2.0, 1.0], axis=axis, mode="nearest") / step**2
    response = -(sigma_mm**2) * laplace
    peaks = lung & (response > lowest_response_hu)
    peaks &= response >= ndimage.maximum_filter(np.where(peaks, response, 0), size=3)
    places = np.argwhere(peaks)
    answers, roundness = response[peaks], _roundness(smooth, places, spacing_mm)
    return [
        ((int(k), int(r), int(c)), float(answer), float(value))
        for (k, r, c), answer, value in zip(places, answers, roundness, strict=True)
    ]


def _roundness(
    smooth: Array, places: NDArray[np.int64], spacing_mm: tuple[float, ...]
) -> NDArray[np.float64]:
    """Return weakest over strongest curvature of bright blobs at `places` `(N, 3)`, 0 where one is not bright."""
    near = [np.clip(places[:, [a]] + (-1, 0, 1), 0, n - 1) for a, n in enumerate(smooth.shape)]
    k, r, c = near
    cube = smooth[k[:, :, None, None], r[:, None, :, None], c[:, None, None, :]].astype(np.float64)
    hessian = np.zeros((len(places), 3, 3))
    for a in range(3):
        before, here, after = (np.take(cube, step, axis=a + 1) for step in range(3))
        hessian[:, a, a] = (before - 2 * here + after)[:, 1, 1] / spacing_mm[a] ** 2
        slope = (after - before) / (2 * spacing_mm[a])
        for b in range(a):
            rise = np.take(slope, 2, axis=b + 1) - np.take(slope, 0, axis=b + 1)
            hessian[:, a, b] = hessian[:, b, a] = rise[:, 1] / (2 * spacing_mm[b])
    curvatures = -np.linalg.eigvalsh(hessian)
    weakest, strongest = curvatures[:, 2], curvatures[:, 0]
    return np.where(weakest <= 0, 0.0, weakest / np.where(weakest <= 0, 1.0, strongest))


def _strongest(found: list[Candidate], spacing_mm: Spacing, at_most: int) -> tuple[Candidate, ...]:
    """Return the candidates in falling strength, without those inside the radius of a stronger one."""
    kept: list[Candidate] = []
    places = np.empty((0, 3))
    radii = np.empty(0)
    for one in sorted(found, key=lambda c: (-c.response_hu * (0.5 + c.roundness), c.index)):
        place = np.asarray(one.index) * np.asarray(spacing_mm)
        if len(kept) == at_most:
            break
        if kept and bool((np.linalg.norm(places - place, axis=1) < radii).any()):
            continue
        kept.append(one)
        places = np.vstack([places, place])
        radii = np.append(radii, max(one.diameter_mm / 2.0, 2.0))
    return tuple(kept)
