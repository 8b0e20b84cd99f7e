"""Which of many candidates in a lung are nodules: small networks that are shown the surroundings of each.

A patch of a fine and one of a coarse grid around a candidate are the two channels; the answer is one logit. The
networks of all folds are one ensemble: the first one is asked about every candidate, the others about those that it
does not find hopeless, and all about the mirror images of those that are likely. Training makes its samples with
`look`, so that a network sees what it learned from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from models.nodule_passes import MIRRORS, mirrors_of
from models.patches import PatchGrid, cut, scaled

if TYPE_CHECKING:
    from models.shipped import Model

Array = NDArray[np.float32]
Floats = NDArray[np.float64]
Spacing = tuple[float, float, float]
Network = Callable[[Array], Array]
"""float32 `(N, C, K, R, C)` to logits `(N, 1)`."""

NAME = "nodule_detector"
BATCH = 64
HOPELESS = 0.02
"""A candidate to which the first network gives less is not shown to the others."""
LIKELY = 0.25
"""A candidate to which the networks give less is not shown to them mirrored."""


@dataclass(frozen=True, kw_only=True)
class DetectorView:
    """What a detector is shown of a candidate."""

    shape: tuple[int, int, int] = (24, 24, 24)
    """Voxels of a patch `(K, R, C)`."""
    voxels_mm: tuple[float, ...] = (1.0, 2.0)
    """One channel for each voxel size, the same in all directions, mm."""
    window_hu: tuple[float, float] = (-1000.0, 400.0)
    """Lowest and highest HU."""

    @property
    def channels(self) -> int:
        """Return the number of channels, one for each voxel size."""
        return len(self.voxels_mm)

    @property
    def half_mm(self) -> float:
        """Return how far the largest patch reaches from its middle along an axis, mm."""
        return max(self.shape) * max(self.voxels_mm) / 2

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> DetectorView:
        """Return the view that a card or an experiment describes."""
        k, r, c = plain["shape"]
        low, high = plain["window_hu"]
        return cls(
            shape=(int(k), int(r), int(c)),
            voxels_mm=tuple(float(mm) for mm in plain["voxels_mm"]),
            window_hu=(float(low), float(high)),
        )


@dataclass(frozen=True, kw_only=True)
class Search:
    """Which candidates are shown to the networks."""

    diameters_mm: tuple[float, float] = (4.0, 53.0)
    """Smallest and largest blob that is looked for."""
    lowest_response_hu: float = 120.0
    """Least contrast, as the blob detector answers it."""
    lowest_roundness: float = 0.25
    """Least ratio of the weakest to the strongest curvature."""
    at_most: int = 4000
    """So many of the strongest."""

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Search:
        """Return the search that a card or an experiment describes."""
        low, high = plain["diameters_mm"]
        return cls(**{**plain, "diameters_mm": (float(low), float(high))})


@dataclass(frozen=True, kw_only=True, eq=False)
class LearnedNoduleDetector:
    """The networks of a model's card, asked together; loaded when the first candidate is shown.

    Raises BadModel when the card or the weights are not as they have to be.
    """

    model: Model
    """Card and weights."""
    folds: tuple[int, ...] = ()
    """Which folds are asked; all when empty."""
    fastest: bool = False
    """Whether the fastest runtime of this machine is asked (`models.runtime`), 8 bits included; else torch."""

    @cached_property
    def view(self) -> DetectorView:
        """Return what the networks are shown."""
        return self.model.understood("view", DetectorView.of)

    @cached_property
    def search(self) -> Search:
        """Return which candidates they are to be shown."""
        return self.model.understood("search", Search.of)

    @cached_property
    def mirrors(self) -> int:
        """Return how many mirror images of a likely candidate are shown: one where the card says nothing of it."""
        return self.model.understood("mirrors", mirrors_of) if "mirrors" in self.model.card else 1

    @cached_property
    def level(self) -> float:
        """Return the probability from which a candidate is taken for a nodule."""
        return self.model.understood("level", float)

    def probabilities(self, image: Array, spacing_mm: Spacing, points: Sequence[Sequence[float]]) -> Floats:
        """Return the probability of each point (voxel index) of an image `(K, R, C)` in HU to lie in a nodule."""
        return ensemble(self._networks, self.view, image, spacing_mm, points, self.mirrors)

    @cached_property
    def _networks(self) -> tuple[Network, ...]:
        from models.nodule_segmenter import torch_network
        from models.runtime import network

        opened = network if self.fastest else torch_network
        return tuple(opened(self.model, fold) for fold in self.folds or self.model.folds)


def look(view: DetectorView, image: Array, spacing_mm: Sequence[float], point: Sequence[float]) -> Array:
    """Return the patches around a point (voxel index) of an image (HU): float32 `(C, K, R, C)`, a channel a grid."""
    at, steps = np.asarray(point, dtype=np.float64), np.asarray(spacing_mm)
    low = np.clip(np.floor(at - view.half_mm / steps) - 1, 0, np.asarray(image.shape) - 1).astype(int)
    high = np.clip(np.ceil(at + view.half_mm / steps) + 2, low + 1, image.shape).astype(int)
    near = image[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    return np.stack(
        [
            scaled(
                cut(near, spacing_mm, at - low, PatchGrid(shape=view.shape, spacing_mm=(mm,) * 3)),
                *view.window_hu,
            )
            for mm in view.voxels_mm
        ]
    )


def ensemble(
    networks: Sequence[Network],
    view: DetectorView,
    image: Array,
    spacing_mm: Spacing,
    points: Sequence[Sequence[float]],
    mirrors: int = 1,
) -> Floats:
    """Return the probability that networks give each point (voxel index), from their mean logit, shape `(N,)`.

    All are asked about those to which the first gives at least `HOPELESS`; the others keep the first one's answer.
    Those to which all give at least `LIKELY` are shown in `mirrors` (1 to 8) mirror images: among many that are nearly
    sure, the order of one answer is chance.
    """
    out = np.zeros(len(points))
    for start in range(0, len(points), BATCH):
        shown = np.stack([look(view, image, spacing_mm, p) for p in points[start : start + BATCH]])
        logits = networks[0](shown)[:, 0].astype(np.float64)
        hopeful = np.flatnonzero(expit(logits) >= HOPELESS)
        if len(networks) > 1 and hopeful.size:
            others = [network(shown[hopeful])[:, 0] for network in networks[1:]]
            logits[hopeful] = np.vstack([logits[hopeful], *others]).mean(axis=0)
        likely = np.flatnonzero(expit(logits) >= LIKELY)
        if mirrors > 1 and likely.size:
            turned = [np.ascontiguousarray(np.flip(shown[likely], axes)) for axes in MIRRORS[:mirrors]]
            logits[likely] = np.mean([network(one)[:, 0] for network in networks for one in turned], axis=0)
        out[start : start + BATCH] = expit(logits)
    return out


def strongest_apart(
    points: Sequence[Sequence[float]],
    diameters_mm: Sequence[float],
    scores: Floats,
    spacing_mm: Spacing,
    least_mm: float = 5.0,
) -> list[int]:
    """Return which points stay, the surest first, when each keeps weaker ones within its radius away.

    The radius is half of the point's diameter, and at least `least_mm`.
    """
    places = np.asarray(points, dtype=np.float64).reshape(-1, 3) * np.asarray(spacing_mm)
    kept: list[int] = []
    free = np.ones(len(places), dtype=np.bool_)
    for index in np.argsort(-scores, kind="stable").tolist():
        if free[index]:
            kept.append(index)
            far = np.linalg.norm(places - places[index], axis=1)
            free &= far > max(least_mm, diameters_mm[index] / 2)
    return kept


__all__ = [
    "NAME",
    "DetectorView",
    "LearnedNoduleDetector",
    "Search",
    "ensemble",
    "look",
    "strongest_apart",
]
