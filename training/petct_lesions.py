"""Made lesions on PET: ellipsoids of known volume and uptake in a background with other hot places.

The survival head learns from these beside real tumours: 41 patients are too few to tell hazards apart.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from models.uptake_outline import FWHM_IN_SIGMAS
from training.sts import Sarcoma

SPACING_MM = 5.0
MARGIN_MM = 50.0
BLUR_MM = 6.5
"""Width at half height of what a scanner makes of a point."""
VOLUME_ML, SUV = (15.0, 2500.0), (1.5, 30.0)


def made_lesion(number: int) -> Sarcoma:
    """Return the lesion of a number: always the same one, 5 cm of background around it, no CT.

    Volume and uptake are drawn evenly on a logarithmic scale; every other one has a cold core.
    """
    rng = np.random.default_rng([7, number])
    volume_ml = np.exp(rng.uniform(*np.log(VOLUME_ML)))
    uptake = np.exp(rng.uniform(*np.log(SUV)))
    stretch = np.exp(rng.normal(0, 0.25, 3))
    radii = (3000 * volume_ml / (4 * np.pi)) ** (1 / 3) * stretch / np.prod(stretch) ** (1 / 3)
    half = np.ceil((radii + MARGIN_MM) / SPACING_MM).astype(int)
    grid = list(np.meshgrid(*[np.arange(-h, h + 1) * SPACING_MM for h in half], indexing="ij"))
    depth = np.sqrt(sum((g / r) ** 2 for g, r in zip(grid, radii, strict=True)))
    background = 0.3 + 0.5 * rng.random()
    suv = np.full(depth.shape, background) * (1 + 0.3 * _texture(depth.shape, 3.0, rng))
    mask = depth <= 1
    if number % 2:
        inner = uptake * np.where(depth < rng.uniform(0.3, 0.8), rng.uniform(0.1, 0.6), 1.0)
    else:
        inner = np.full(depth.shape, uptake)
    suv[mask] = (inner * (1 + 0.25 * _texture(depth.shape, 2.0, rng)))[mask]
    _add_hot_places(suv, depth, grid, rng)
    sigma = BLUR_MM / FWHM_IN_SIGMAS / SPACING_MM
    suv = ndimage.gaussian_filter(suv, sigma) * (1 + 0.06 * rng.standard_normal(suv.shape))
    return Sarcoma(
        case_id=f"made-{number}",
        suv=np.maximum(suv, 0).astype(np.float32),
        mask=mask,
        hu=None,
        spacing_mm=(SPACING_MM,) * 3,
    )


def _texture(shape: tuple[int, ...], sigma: float, rng: np.random.Generator) -> np.typing.NDArray[np.float64]:
    """Return smooth noise of deviation 1."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), sigma)
    return np.asarray(noise / max(float(noise.std()), 1e-9))


def _add_hot_places(
    suv: np.typing.NDArray[np.float64],
    depth: np.typing.NDArray[np.float64],
    grid: list[np.typing.NDArray[np.float64]],
    rng: np.random.Generator,
) -> None:
    """Put up to two hot balls, as a bladder or a vessel is, where the lesion is not."""
    for _ in range(rng.integers(0, 3)):
        middle = [rng.uniform(g.min(), g.max()) for g in grid]
        radius = rng.uniform(6, 25)
        ball = np.sqrt(sum((g - m) ** 2 for g, m in zip(grid, middle, strict=True))) <= radius
        suv[ball & (depth > 1.15)] = rng.uniform(1, 15)
