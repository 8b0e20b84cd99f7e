"""How a body lies and breathes differently at another examination: a known motion from one patient space to another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
STEP_MM = 8.0
"""Distance of the points between which the deformation is interpolated, mm."""
SLIDE_MM = 14.0
"""Over so much (one standard deviation) what the lungs do fades into what lies around them, mm."""
ROUNDS = 40


@dataclass(frozen=True, kw_only=True, eq=False)
class BodyMotion:
    """Where a place of one examination lies at the other: turned, shifted, breathed; positions LPS mm."""

    turn: Floats
    """Rotation from the new to the earlier examination, (3, 3)."""
    about_mm: Floats
    """What it is turned about, (3,)."""
    shift_mm: Floats
    """Shift from the new to the earlier examination, (3,)."""
    bent_mm: NDArray[np.float32]
    """What is added to that at the points of a grid of the new examination, mm, (3, K, R, C): x, y and z of it."""
    origin_mm: Floats
    """Position (z, y, x) of the first of these points, (3,)."""

    def to_earlier(self, points_mm: Floats) -> Floats:
        """Return where points (N, 3) of the new examination lie at the earlier one."""
        rigid = (points_mm - self.about_mm) @ self.turn.T + self.about_mm + self.shift_mm
        return np.asarray(rigid + self._bent(points_mm), dtype=np.float64)

    def to_new(self, points_mm: Floats) -> Floats:
        """Return where points (N, 3) of the earlier examination lie at the new one: the inverse, by iteration."""
        target = np.asarray(points_mm, dtype=np.float64)
        found = target - self.shift_mm
        for _ in range(ROUNDS):
            found = (target - self._bent(found) - self.shift_mm - self.about_mm) @ self.turn + self.about_mm
        return np.asarray(found, dtype=np.float64)

    def _bent(self, points_mm: Floats) -> Floats:
        at = ((points_mm[:, ::-1] - self.origin_mm) / STEP_MM).T
        parts = [ndimage.map_coordinates(part, at, order=1, mode="nearest") for part in self.bent_mm]
        return np.stack(parts, axis=1).astype(np.float64)


@dataclass(frozen=True, kw_only=True)
class Unrest:
    """How much a body moves between two examinations."""

    turn_deg: float = 5.0
    """Largest turn about each axis, degrees."""
    shift_mm: float = 25.0
    """Largest shift along each axis, mm."""
    breath_mm: float = 20.0
    """Largest way of the lowest part of the lungs along the body, mm, either way."""
    sway_mm: float = 1.5
    """What is left, smooth and at random: one standard deviation along each axis, mm."""
    grain_mm: float = 30.0
    """How smooth it is: one standard deviation of its Gaussian, mm."""


def body_motion(
    lungs: BoolArray,
    spacing_mm: tuple[float, float, float],
    origin_mm: Floats,
    rng: np.random.Generator,
    unrest: Unrest,
) -> BodyMotion:
    """Return a motion drawn at random for a body whose lungs `(K, R, C)` lie on a grid along z, y, x from `origin_mm`.

    The lungs move most at their lower end and not at their top; around them it fades, so that the ribs stay behind.
    """
    turn = _turn(np.deg2rad(rng.uniform(-unrest.turn_deg, unrest.turn_deg, 3)))
    shift = rng.uniform(-unrest.shift_mm, unrest.shift_mm, 3)
    extent = np.asarray(lungs.shape) * spacing_mm
    about = (origin_mm + extent / 2)[::-1]
    margin = 2 * unrest.shift_mm
    shape = [int(np.ceil((e + 2 * margin) / STEP_MM)) + 1 for e in extent]
    first = origin_mm - margin
    places = np.stack(
        np.meshgrid(*(o + STEP_MM * np.arange(n) for o, n in zip(first, shape, strict=True)), indexing="ij")
    )
    rigid = (places[::-1].reshape(3, -1).T - about) @ turn.T + about + shift
    index = ((rigid[:, ::-1] - origin_mm) / spacing_mm).T
    soft = ndimage.gaussian_filter(lungs.astype(np.float32), [SLIDE_MM / s for s in spacing_mm])
    weight = ndimage.map_coordinates(soft, index, order=1, mode="nearest").reshape(shape)
    held = np.flatnonzero(lungs.any(axis=(1, 2)))
    low, high = origin_mm[0] + held[[0, -1]] * spacing_mm[0]
    depth = np.clip((high - rigid[:, 2].reshape(shape)) / (high - low), 0, 1)
    breath = rng.uniform(-unrest.breath_mm, unrest.breath_mm)
    away = weight * depth * breath
    bent = np.stack([0.1 * away, 0.3 * away, away])
    for part in bent:
        sway = ndimage.gaussian_filter(rng.standard_normal(shape), unrest.grain_mm / STEP_MM)
        part += unrest.sway_mm * sway / sway.std()
    return BodyMotion(
        turn=turn, about_mm=about, shift_mm=shift, bent_mm=bent.astype(np.float32), origin_mm=first
    )


def _turn(angles: Floats) -> Floats:
    whole = np.eye(3)
    for axis, angle in enumerate(angles):
        one, other = (a for a in range(3) if a != axis)
        part = np.eye(3)
        part[one, one] = part[other, other] = np.cos(angle)
        part[one, other], part[other, one] = -np.sin(angle), np.sin(angle)
        whole = part @ whole
    return whole


__all__ = ["BodyMotion", "Unrest", "body_motion"]
