"""Where a lesion on PET ends: boosted trees over what the network says of each voxel and what PET and CT have there.

A network on voxels of 6 mm that few patients taught knows where a lesion is better than where it ends. The trees see
its answer beside the uptake of the PET's own voxels, each against that of the whole lesion and of what surrounds it,
and say anew how probable each voxel is. They were taught on answers for patients that the network had not seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.closed_in import MOST, THREE_QUARTERS, closed_in, seen
from models.files import BadModel
from models.nodule_passes import nearest_piece, sigmoid
from models.surroundings import box_around

Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
FEATURES = (
    "logit",
    "logit within 8 mm",
    "logit within 20 mm",
    "log SUV",
    "log SUV within 8 mm",
    "log SUV within 18 mm",
    "SUV over the hottest",
    "SUV within 8 mm over the hottest",
    "SUV over the mean",
    "SUV within 8 mm over the mean",
    "contrast",
    "slope over the hottest, per mm",
    "depth, mm",
    "log ml",
    "log hottest SUV",
    "log mean SUV",
    "mean over hottest SUV",
    "HU",
    "HU within 10 mm",
    "from the middle, mm",
    "from the middle over the size",
    "from the point, mm",
    "from the point over the size",
    "logit seen in most directions",
    "SUV over that around seen in most directions",
    "SUV over that around seen in three quarters of the directions",
)
"""What is told of each voxel, in order; HU is NaN without CT."""
CERTAIN = 13.0
"""Logits are told as far as this; a voxel whose logit is below its negative belongs to no lesion."""
AROUND_MM = (10.0, 40.0)
"""What surrounds a lesion: so far from it."""
EMPTY_SUV = 0.3
"""Uptake around a lesion where nothing of it can be seen."""
SEEN_MM = 4.0
"""No direction is looked along in steps much finer than this."""
FWHM_IN_SIGMAS = 2.355
"""Full width of a Gaussian at half its height."""


@dataclass(frozen=True, kw_only=True, eq=False)
class UptakeTrees:
    """Boosted trees, each of at most N nodes; node 0 is the root, a leaf has feature -1."""

    feature: NDArray[np.int16]
    """Which of `FEATURES` a node asks for, `(T, N)`."""
    level: NDArray[np.float64]
    """A voxel with at most this goes left, `(T, N)`."""
    left: NDArray[np.int16]
    """Where it goes, `(T, N)`."""
    right: NDArray[np.int16]
    """Where others go, `(T, N)`."""
    unknown_left: BoolArray
    """Whether NaN goes left, `(T, N)`."""
    value: NDArray[np.float64]
    """What a leaf adds to the logit, `(T, N)`."""
    begin: NDArray[np.float64]
    """The logit before any tree, `(1,)`."""

    @classmethod
    def of(cls, numbers: Mapping[str, NDArray[np.generic]]) -> UptakeTrees:
        """Return the trees of a file. Raises BadModel (`bad-trees`) when they lead nowhere."""
        try:
            found = cls(**{name: np.asarray(numbers[name]) for name in cls.__dataclass_fields__})
        except KeyError as error:
            raise BadModel("bad-trees", f"the trees have no {error}") from error
        if not found._lead_on():
            raise BadModel("bad-trees", "the trees are not as they have to be")
        return found

    def _lead_on(self) -> bool:
        """Return whether every way from a root ends at a leaf: each goes on to a later node only."""
        parts = (self.feature, self.level, self.left, self.right, self.unknown_left, self.value)
        if self.feature.ndim != 2 or any(part.shape != self.feature.shape for part in parts):
            return False
        inner = self.feature >= 0
        later = np.broadcast_to(np.arange(self.feature.shape[1]), inner.shape)
        ways = (self.left[inner], self.right[inner])
        ends = all((way > later[inner]).all() and (way < inner.shape[1]).all() for way in ways)
        known = bool((self.feature < len(FEATURES)).all() and self.begin.shape == (1,))
        return ends and known and bool(np.isfinite(self.value).all() and np.isfinite(self.begin).all())

    def probability(self, features: Array) -> Array:
        """Return how probable lesion is, `(V,)`, from features `(V, F)`."""
        columns = np.ascontiguousarray(features.T)
        logit = np.full(len(features), self.begin[0], dtype=np.float32)
        for tree in range(len(self.feature)):
            logit += self._said(tree, columns)
        return sigmoid(logit)

    def _said(self, tree: int, columns: Array) -> Array | np.float32:
        """Return what one tree adds, from columns `(F, V)`: children come after their node, so the last go first."""
        said: dict[int, Array | np.float32] = {}
        for node in reversed(range(self.feature.shape[1])):
            if self.feature[tree, node] < 0:
                said[node] = np.float32(self.value[tree, node])
                continue
            column, level = columns[self.feature[tree, node]], self.level[tree, node]
            # of NaN nothing is true, so asking the other way round sends it to the other side
            goes_left = ~(column > level) if self.unknown_left[tree, node] else column <= level
            left, right = int(self.left[tree, node]), int(self.right[tree, node])
            said[node] = np.where(goes_left, said[left], said[right])
        return said[0]


def outlined(
    trees: Sequence[UptakeTrees],
    probability: Array,
    suv: Array,
    hu: Array | None,
    spacing_mm: Sequence[float],
    point: Sequence[float],
) -> Array:
    """Return the probability of lesion `(K, R, C)` after the trees, their mean; 0 where the network is certain."""
    where, values = told(probability, suv, hu, spacing_mm, point)
    out = np.zeros_like(probability)
    if values.size:
        out[where] = np.mean([one.probability(values) for one in trees], axis=0)
    return out


def told(
    probability: Array, suv: Array, hu: Array | None, spacing_mm: Sequence[float], point: Sequence[float]
) -> tuple[BoolArray, Array]:
    """Return where the network is not certain that no lesion is `(K, R, C)`, and the features there `(V, F)`."""
    where = _logit(probability) > -CERTAIN
    if not where.any():
        return where, np.empty((0, len(FEATURES)), dtype=np.float32)
    k, r, c = spacing_mm
    box = box_around(where, AROUND_MM[1], (k, r, c))
    here = [p - side.start for p, side in zip(point, box, strict=True)]
    near = features(probability[box], suv[box], None if hu is None else hu[box], spacing_mm, here)
    return where, near[where[box]]


def features(
    probability: Array, suv: Array, hu: Array | None, spacing_mm: Sequence[float], point: Sequence[float]
) -> Array:
    """Return what is told of each voxel, `(K, R, C, F)` as `FEATURES` names them, of images `(K, R, C)`.

    The lesion is what the network draws at the point (voxel index) with a probability of one half, and what that closes
    in: of it are size, middle, mean and hottest uptake (the 99th percentile). "Within" is a Gaussian mean of that full
    width at half height. Contrast is the uptake over that around the lesion, as a part of the hottest. What is seen
    from a voxel tells the dead core of a lesion from what lies outside.
    """
    logit = np.clip(_logit(probability), -CERTAIN, CERTAIN)
    core = closed_in(nearest_piece(logit > min(0.0, float(logit.max()) - 1.0), point, spacing_mm), spacing_mm)
    outside = ndimage.distance_transform_edt(~core, sampling=spacing_mm)
    around = (outside > AROUND_MM[0]) & (outside < AROUND_MM[1])
    background = float(np.median(suv[around])) if around.any() else EMPTY_SUV
    hottest, mean = max(float(np.percentile(suv[core], 99)), 0.1), max(float(suv[core].mean()), 0.1)
    ml = float(core.sum()) * float(np.prod(spacing_mm)) / 1000.0
    near = _within(suv, 8.0, spacing_mm)
    slope = ndimage.gaussian_gradient_magnitude(suv, [4.0 / mm for mm in spacing_mm])
    middle = _away(suv.shape, np.argwhere(core).mean(axis=0).tolist(), spacing_mm)
    away, size = _away(suv.shape, point, spacing_mm), ml ** (1 / 3)
    columns: tuple[Array | float, ...] = (
        logit,
        _within(logit, 8.0, spacing_mm),
        _within(logit, 20.0, spacing_mm),
        np.log1p(np.maximum(suv, 0.0)),
        np.log1p(np.maximum(near, 0.0)),
        np.log1p(np.maximum(_within(suv, 18.0, spacing_mm), 0.0)),
        suv / hottest,
        near / hottest,
        suv / mean,
        near / mean,
        (near - background) / (hottest - background + 0.01),
        slope / hottest,
        ndimage.distance_transform_edt(core, sampling=spacing_mm) - outside,
        np.log(ml),
        np.log(hottest),
        np.log(mean),
        mean / hottest,
        np.nan if hu is None else hu,
        np.nan if hu is None else _within(hu, 10.0, spacing_mm),
        middle,
        middle / size,
        away,
        away / size,
        *_seen(logit, spacing_mm, MOST),
        *_seen(near / max(background, 0.1), spacing_mm, MOST, THREE_QUARTERS),
    )
    return np.stack([np.broadcast_to(np.asarray(one, np.float32), suv.shape) for one in columns], axis=-1)


def _seen(image: Array, spacing_mm: Sequence[float], *counts: int) -> list[Array]:
    """Return what is seen in so many directions; of voxels of half of `SEEN_MM` or finer some stand for all."""
    every = [max(1, int(SEEN_MM / mm)) for mm in spacing_mm]
    few = image[tuple(slice(None, None, n) for n in every)]
    found = seen(few, np.multiply(every, spacing_mm).tolist(), counts)
    places = np.ix_(*(np.arange(n) // step for n, step in zip(image.shape, every, strict=True)))
    return [one[places] for one in found]


def _logit(probability: Array) -> Array:
    p = np.clip(probability, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(p / (1 - p)), dtype=np.float32)


def _within(image: Array, width_mm: float, spacing_mm: Sequence[float]) -> Array:
    return np.asarray(
        ndimage.gaussian_filter(image, [width_mm / FWHM_IN_SIGMAS / mm for mm in spacing_mm]),
        dtype=np.float32,
    )


def _away(shape: Sequence[int], place: Sequence[float], spacing_mm: Sequence[float]) -> Array:
    """Return the distance of each voxel from a place (voxel index), mm."""
    axes = [((np.arange(n) - p) * mm) ** 2 for n, p, mm in zip(shape, place, spacing_mm, strict=True)]
    return np.asarray(np.sqrt(sum(np.ix_(*axes))), dtype=np.float32)


__all__ = ["FEATURES", "UptakeTrees", "features", "outlined", "told"]
