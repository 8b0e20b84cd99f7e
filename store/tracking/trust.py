"""Whether a registration can be believed: numbers, and a verdict on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from store.tracking.deforming import local_likeness
from store.tracking.motion import Deformation, Motion, Quality, Trust
from store.tracking.thinned import Array, BoolArray, Thinned

Floats = NDArray[np.float64]

GOOD_LIKENESS, LEAST_LIKENESS = 0.68, 0.58
"""Mean local correlation. Two chest CTs of one body have 0.76 (noisy, thick) to 0.95, of two bodies 0.42 to 0.53."""
GOOD_OVERLAP, LEAST_OVERLAP = 0.15, 0.05
GOOD_RESIDUAL_MM = 6.0
MOST_ROTATION_DEG = 45.0
MOST_FOLDED = 0.01
EVERY = 3
"""Voxels from one position of a to-and-fro comparison to the next."""


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """How alike two images are under a motion."""

    correlation: float
    """In the earlier body as far as the new image shows it, -1 to 1."""
    local: float
    """Mean of the correlations in neighbourhoods of 20 mm that have structure."""
    overlap: float
    """Share of the earlier body that the new image shows."""


def likeness(
    new: Thinned, earlier: Thinned, matrix: Floats, deformation: Deformation | None = None
) -> Likeness:
    """Return how alike two images are under a motion of the earlier one."""
    grid = earlier.around_body()
    points = grid.points()
    if deformation is not None:
        points += deformation.at(points.reshape(3, -1).T.astype(np.float64)).T.reshape(points.shape)
    turned = np.tensordot(matrix[:3, :3], points, axes=1) + matrix[:3, 3].reshape(3, 1, 1, 1)
    warped = new.at(turned.astype(np.float32))
    seen = grid.body & np.isfinite(warped)
    local = local_likeness(grid.values, warped, seen)
    told = np.isfinite(local)
    return Likeness(
        correlation=correlation(grid.values[seen], warped[seen]),
        local=float(local[told].mean()) if told.any() else 0.0,
        overlap=float(seen.sum() / grid.body.sum()),
    )


def correlation(a: Array, b: Array) -> float:
    """Return Pearson's correlation of two arrays of one length; 0 when one of them has one value only."""
    if a.size < 2:
        return 0.0
    x, y = a - a.mean(dtype=np.float64), b - b.mean(dtype=np.float64)
    size = float(np.sqrt(np.sum(x * x) * np.sum(y * y)))
    return float(np.sum(x * y) / size) if size > 1e-9 else 0.0


def residual_mm(there: Motion, back: Motion, new: Thinned, earlier: Thinned) -> float | None:
    """Return the mean distance between positions in the body and where they come back to; None when none is in view."""
    grid = earlier.around_body()
    chosen = np.zeros_like(grid.body)
    chosen[::EVERY, ::EVERY, ::EVERY] = grid.body[::EVERY, ::EVERY, ::EVERY]
    points = grid.points()[:, chosen].T.astype(np.float64)
    moved = there.to_new(points)
    shown = np.isfinite(new.at(moved.T.astype(np.float32)))
    if not shown.any():
        return None
    return float(np.linalg.norm(back.to_new(moved[shown]) - points[shown], axis=1).mean())


def judge(
    before: Likeness,
    rigid: Likeness,
    after: Likeness,
    motion: Motion,
    earlier: Thinned,
    residual: float | None,
) -> Quality:
    """Return the verdict on a motion, with the numbers that decided it."""
    centre = earlier.centre_mm
    turn, shift = motion.matrix[:3, :3], motion.matrix[:3, 3]
    angle = float(np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))))
    moved, folded = _deformed(motion.deformation, earlier)
    way = float(np.linalg.norm(turn @ centre + shift - centre))
    numbers = (
        f"local correlation {after.local:.2f} (rigid {rigid.local:.2f}, before {before.local:.2f}), "
        f"{100 * after.overlap:.0f} % of the earlier body in view, "
        f"moved {way:.0f} mm, turned {angle:.0f} degrees"
    )
    failures, doubts = _reasons(after, angle, residual, folded)
    trust = Trust.FAILED if failures else Trust.DOUBTFUL if doubts else Trust.GOOD
    said = {Trust.GOOD: "can be believed", Trust.DOUBTFUL: "is in doubt", Trust.FAILED: "cannot be believed"}[
        trust
    ]
    why = f" ({'; '.join(failures + doubts)})" if failures or doubts else ""
    return Quality(
        trust=trust,
        sentence=f"the registration {said}{why}: {numbers}",
        confidence={Trust.GOOD: min(0.98, after.local), Trust.DOUBTFUL: 0.5, Trust.FAILED: 0.1}[trust],
        similarity_before=before.correlation,
        similarity_rigid=rigid.correlation,
        similarity=after.correlation,
        overlap=after.overlap,
        translation_mm=way,
        rotation_deg=angle,
        deformation_mm=moved,
        residual_mm=residual,
    )


def _reasons(
    after: Likeness, angle_deg: float, residual_mm: float | None, folded: float
) -> tuple[list[str], list[str]]:
    """Return why a motion cannot be believed, and why it is in doubt."""
    failures: list[str] = []
    doubts: list[str] = []
    if after.overlap < GOOD_OVERLAP:
        (failures if after.overlap < LEAST_OVERLAP else doubts).append(
            "the images show little of the same body"
        )
    if after.local < GOOD_LIKENESS:
        (failures if after.local < LEAST_LIKENESS else doubts).append("the images are not alike")
    if angle_deg > MOST_ROTATION_DEG:
        failures.append("the body is turned more than it can be")
    if residual_mm is not None and residual_mm > GOOD_RESIDUAL_MM:
        doubts.append(f"to and fro differ by {residual_mm:.1f} mm")
    if folded > MOST_FOLDED:
        doubts.append("the deformation folds")
    return failures, doubts


def _deformed(deformation: Deformation | None, earlier: Thinned) -> tuple[float, float]:
    """Return the 95th percentile of the displacements in the body, mm, and the share of grid points that fold."""
    if deformation is None:
        return 0.0, 0.0
    inside: BoolArray = ndimage.binary_erosion(earlier.body)
    points = earlier.points()[:, inside if inside.any() else earlier.body].T.astype(np.float64)
    lengths = np.linalg.norm(deformation.at(points), axis=1)
    slopes = [
        np.stack(list(np.gradient(part, deformation.spacing_mm))[::-1], axis=-1) for part in deformation.mm
    ]
    jacobian = np.linalg.det(np.eye(3, dtype=np.float32) + np.stack(slopes, axis=-2))
    return float(np.percentile(lengths, 95)), float((jacobian <= 0).mean())


__all__ = ["Likeness", "correlation", "judge", "likeness", "residual_mm"]
