"""What it costs to say that a present lesion is an earlier one: by place, shape, volume, kind and site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log, sqrt

import highdicom
import numpy as np
from numpy.typing import NDArray

from plugins import codes
from store.tracking.lesion import EarlierLesion, PresentLesion
from store.tracking.overlap import WIDEST_MM, Body, Overlap, overlap

Floats = NDArray[np.float64]
CONTAINS: Mapping[str, frozenset[str]] = {
    codes.CHEST.value: frozenset(
        code.value
        for code in (
            codes.LUNG,
            codes.MEDIASTINUM,
            codes.HEART,
            codes.PLEURA,
            codes.CHEST_WALL,
            codes.ESOPHAGUS,
        )
    ),
    codes.HEAD.value: frozenset({codes.BRAIN.value}),
}
"""Regions and the organs in them: one may be told where the other was told before."""
ANYWHERE = frozenset({codes.LYMPH_NODE.value, codes.VERTEBRA.value, codes.BLOOD_VESSEL.value})
"""Sites that say what something is rather than where: they forbid nothing."""
TOLD_COUNTS, MANY = 4, 3
MEDIAN_OF_NORM = 1.538
"""Median length of a vector of three independent normal numbers of standard deviation 1 (chi, 3 degrees)."""


@dataclass(frozen=True, kw_only=True)
class Gates:
    """What may be the same lesion."""

    scale_mm: float = 20.0
    """A distance that costs 1."""
    volume_weight: float = 0.1
    """What a volume that is e times as large, or as small, costs."""
    type_cost: float = 0.2
    """What another type costs."""
    gate_mm: tuple[float, float] = (20.0, 30.0)
    """No link over a longer distance unless the lesions overlap: with a good registration, and at most."""
    dearest: tuple[float, float, float] = (1.25, 0.15, 2.3)
    """A pair that costs more is no pair, unless one lies in the other: so much, so much more for each mm of standard
    deviation of the expected place, and at most."""
    wider_mm: float = 2.0
    """So much more is granted to that standard deviation until the neighbours have told how far they are off."""
    inside: float = 0.5
    """A lesion lies in another one when at least this share of it does."""
    neighbour_mm: float = 100.0
    """How far around a lesion its neighbours tell how much the registration is off: one standard deviation, mm."""
    like: float = 8.0
    """A lesion whose volume is more times what it was, or less than the inverse, tells nothing of that."""
    dilated_mm: float = 1.0
    """Masks are dilated by so much and one standard deviation of the expected place before they are compared."""
    whole: float = 1.25
    """A part is at most so many times as large as the whole was; what parts became has at least the inverse of it."""
    in_view: float = 0.8
    """An earlier lesion of which less is expected in the field of view cannot be said to be gone."""
    visible: float = 0.5
    """An earlier lesion that is at least so surely still seen was missed, and is not gone."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """How well an earlier and a present lesion fit."""

    distance_mm: float
    """From where the earlier one was expected to where the present one is, mm."""
    overlap: Overlap
    """How they lie in each other."""
    ratio: float | None
    """Volume of the present one over that of the earlier one; None when one of them is not known."""
    cost: float
    """What the link costs less what it may cost at most: never above 0 for a pair that may be."""
    may_be: bool
    """False when it is forbidden: by site, by distance, by its cost."""

    @property
    def words(self) -> str:
        """Return the numbers for people."""
        times = "" if self.ratio is None else f", volume {self.ratio:.2g} times"
        return f"{self.distance_mm:.1f} mm from where it was expected, overlap {self.overlap.iou:.2f}{times}"


Pairs = Mapping[tuple[int, int], Pair]


@dataclass(frozen=True, kw_only=True, eq=False)
class Expected:
    """Where the earlier lesions are expected, and how surely."""

    at_mm: Floats
    """Centres of gravity (N, 3), LPS mm."""
    shift_mm: Floats
    """What was added to what the registration told, (N, 3), mm."""
    sd_mm: Floats
    """One standard deviation along an axis (N,), mm."""


def as_told(before: Sequence[EarlierLesion], gates: Gates) -> Expected:
    """Return the places that the registration told, trusted a little less than it says."""
    at = np.array([lesion.expected_mm for lesion in before], dtype=np.float64).reshape(-1, 3)
    sd = np.array([lesion.expected_sd_mm for lesion in before], dtype=np.float64)
    return Expected(at_mm=at, shift_mm=np.zeros_like(at), sd_mm=sd + gates.wider_mm)


def as_neighbours_tell(
    before: Sequence[EarlierLesion], now: Sequence[PresentLesion], chosen: Mapping[int, int], gates: Gates
) -> Expected:
    """Return the places after what the registration is off at the other lesions that have a partner (`chosen`).

    The shift is the median, axis by axis, of how far these are off, weighted by how near they are, with one unit of
    weight for no shift; it takes two others. What they still scatter around it is pooled with the standard deviation,
    as if that came from four lesions; three or more replace it when they scatter more. Lesions that a person
    linked from afar, and those whose volume is not what it was, are not asked.
    """
    at = as_told(before, gates).at_mm
    shift = np.zeros_like(at)
    sd = np.array([lesion.expected_sd_mm for lesion in before], dtype=np.float64)
    off = {
        i: np.subtract(now[j].centroid_mm, at[i])
        for j, i in chosen.items()
        if _tells(before[i], now[j], gates)
    }
    for i in range(len(before)):
        others = [k for k in sorted(off) if k != i]
        if len(others) < 2:
            continue
        away = np.linalg.norm(at[others] - at[i], axis=1)
        weights = np.append(np.exp(-((away / gates.neighbour_mm) ** 2) / 2), 1.0)
        ways = np.array([*(off[k] for k in others), np.zeros(3)])
        shift[i] = [_median(ways[:, axis], weights) for axis in range(3)]
        scatter = float(np.median(np.linalg.norm(ways[:-1] - shift[i], axis=1))) / MEDIAN_OF_NORM
        pooled = (TOLD_COUNTS * sd[i] ** 2 + len(others) * scatter**2) / (TOLD_COUNTS + len(others))
        sd[i] = sqrt(pooled) if len(others) < MANY else max(sqrt(pooled), scatter)
    return Expected(at_mm=at + shift, shift_mm=shift, sd_mm=sd)


def _tells(lesion: EarlierLesion, other: PresentLesion, gates: Gates) -> bool:
    """Return whether a lesion and its partner tell how much the registration is off."""
    is_near = np.linalg.norm(np.subtract(lesion.expected_mm, other.centroid_mm)) <= gates.gate_mm[1]
    volumes = sorted((lesion.volume_mm3, other.volume_mm3))
    return bool(is_near) and (volumes[0] <= 0 or volumes[1] <= gates.like * volumes[0])


def _median(values: Floats, weights: Floats) -> float:
    """Return the weighted median."""
    order = np.argsort(values, kind="stable")
    below = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(below, below[-1] / 2)])


class Bodies:
    """What earlier and present lesions fill, on one grid."""

    def __init__(
        self,
        before: Sequence[EarlierLesion],
        now: Sequence[PresentLesion],
        geometry: highdicom.VolumeGeometry,
    ) -> None:
        self._before, self._now = before, now
        self._old = [
            Body(
                volume_mm3=lesion.volume_mm3,
                mask=lesion.expected_mask if lesion.expected_mask and lesion.expected_mask.count else None,
                geometry=geometry,
            )
            for lesion in before
        ]
        self._new = [Body(volume_mm3=p.volume_mm3, mask=p.mask, geometry=geometry) for p in now]

    def pairs(self, expected: Expected, gates: Gates) -> Pairs:
        """Return the pair of each earlier with each present lesion, by their places in the two lists."""
        every = ((i, j) for i in range(len(self._old)) for j in range(len(self._new)))
        return {(i, j): self._pair(i, j, expected, gates) for i, j in every}

    def _pair(self, i: int, j: int, expected: Expected, gates: Gates) -> Pair:
        lesion, other, old, new = self._before[i], self._now[j], self._old[i], self._new[j]
        sd_mm, shift_mm = float(expected.sd_mm[i]), expected.shift_mm[i]
        distance_mm = float(np.linalg.norm(expected.at_mm[i] - other.centroid_mm))
        found = overlap(old, new, distance_mm, min(gates.dilated_mm + sd_mm, WIDEST_MM), shift_mm)
        ratio = new.volume_mm3 / old.volume_mm3 if old.volume_mm3 > 0 and new.volume_mm3 > 0 else None
        cost = distance_mm / gates.scale_mm + (1 - found.iou)
        cost += gates.volume_weight * abs(log(ratio)) if ratio else 0.0
        cost += gates.type_cost if lesion.type and other.type and lesion.type != other.type else 0.0
        base, more, most = gates.dearest
        dearest = min(base + more * sd_mm, most)
        gate_mm = min(gates.gate_mm[0] + sd_mm, gates.gate_mm[1])
        within = max(found.held, found.covered) >= gates.inside
        if within:
            cost = min(cost, dearest)
        near = within or (distance_mm <= gate_mm and cost <= dearest)
        fits = near and may_be(lesion.site, other.site)
        return Pair(distance_mm=distance_mm, overlap=found, ratio=ratio, cost=cost - dearest, may_be=fits)


def may_be(site: str | None, other: str | None) -> bool:
    """Return whether what is told to lie in one site may be what is told to lie in the other (code values)."""
    if site is None or other is None or site == other or {site, other} & ANYWHERE:
        return True
    return other in CONTAINS.get(site, ()) or site in CONTAINS.get(other, ())


__all__ = ["Bodies", "Expected", "Gates", "Pair", "Pairs", "as_neighbours_tell", "as_told", "may_be"]
