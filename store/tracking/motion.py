"""How positions of an earlier study go over into a new one, and whether that can be believed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float64]

INVERSE_STEPS = 40
INVERSE_TOLERANCE_MM = 0.01


class Trust(StrEnum):
    """What a registration is good for."""

    GOOD = "good"
    DOUBTFUL = "doubtful"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Numbers that say whether a motion can be believed, and the verdict on them."""

    trust: Trust
    """The verdict."""
    sentence: str
    """The verdict in words, with the numbers that decided it."""
    confidence: float
    """0 to 1: what a link that rests on this motion may claim at most."""
    similarity_before: float
    """Correlation of both images where both were seen, at the positions of the headers, -1 to 1."""
    similarity_rigid: float
    """The same after the rigid motion."""
    similarity: float
    """The same after the whole motion."""
    overlap: float
    """Share of the earlier body that lies in the view of the new study."""
    translation_mm: float
    """Length of the way of the body's centre by the rigid motion."""
    rotation_deg: float
    """Angle of the rigid motion."""
    deformation_mm: float = 0.0
    """95th percentile, in the body, of what the deformation adds to the rigid motion."""
    residual_mm: float | None = None
    """Mean distance, in the body, between a position and where it comes back to, registered to and fro."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Deformation:
    """Displacements on a grid along the patient's axes in the earlier study, linear between, constant beyond."""

    mm: NDArray[np.float32]
    """`(3, K, R, C)`: x, y, z displacement in mm at each grid point; K along z, R along y, C along x."""
    origin_mm: tuple[float, float, float]
    """LPS position of grid point (0, 0, 0)."""
    spacing_mm: float
    """Distance of grid points."""

    def at(self, points_mm: Floats) -> Floats:
        """Return the displacements (N, 3), mm, at points (N, 3), LPS mm."""
        index = ((points_mm - np.asarray(self.origin_mm)) / self.spacing_mm)[:, ::-1].T
        parts = [ndimage.map_coordinates(part, index, order=1, mode="nearest") for part in self.mm]
        return np.stack(parts, axis=1).astype(np.float64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Motion:
    """The way from the earlier study to the new one: `p -> rigid(p + deformation(p))`, LPS mm."""

    matrix: Floats
    """(4, 4) rigid motion, LPS mm of the earlier study to LPS mm of the new one."""
    deformation: Deformation | None
    """What is added before the rigid motion; None for a rigid one."""
    quality: Quality
    """Whether it can be believed."""

    @property
    def rigid(self) -> Motion:
        """Return the motion without its deformation."""
        return replace(self, deformation=None)

    def to_new(self, points_mm: Floats) -> Floats:
        """Return where positions (N, 3) of the earlier study are in the new one (N, 3), LPS mm."""
        points = np.asarray(points_mm, dtype=np.float64).reshape(-1, 3)
        if self.deformation is not None:
            points = points + self.deformation.at(points)
        return np.asarray(points @ self.matrix[:3, :3].T + self.matrix[:3, 3], dtype=np.float64)

    def to_earlier(self, points_mm: Floats) -> Floats:
        """Return where positions (N, 3) of the new study were in the earlier one (N, 3), LPS mm.

        The deformation is inverted by fixed-point iteration (Chen et al., Med Phys 35 (2008) 81) to 0.01 mm; where it
        folds there is no one inverse, and what is reached in 40 steps is returned.
        """
        points = np.asarray(points_mm, dtype=np.float64).reshape(-1, 3)
        back = np.linalg.inv(self.matrix)
        goal = points @ back[:3, :3].T + back[:3, 3]
        if self.deformation is None:
            return np.asarray(goal, dtype=np.float64)
        found = goal - self.deformation.at(goal)
        for _ in range(INVERSE_STEPS):
            step = goal - self.deformation.at(found) - found
            found += step
            if not step.size or float(np.abs(step).max()) < INVERSE_TOLERANCE_MM:
                break
        return np.asarray(found, dtype=np.float64)


__all__ = ["Deformation", "Motion", "Quality", "Trust"]
