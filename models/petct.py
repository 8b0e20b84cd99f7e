"""How a network draws one lesion on PET in SUV, with CT where there is one, from one point; and its hazard.

A first look is taken around the point, the next ones around the middle of what was drawn. Training makes its samples
with `channels`, so that a network always sees what it learned from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.calibration import scaled_logit
from models.card import ModelCard
from models.closed_in import closed_in
from models.files import BadModel
from models.nodule_passes import MIRRORS, Network, mirrors_of, nearest_piece, sigmoid
from models.nodule_segmenter import torch_network
from models.outlining import best_overlap
from models.patches import PatchGrid, cut, point_channel, put_back, scaled
from models.uptake_outline import FWHM_IN_SIGMAS, UptakeTrees, outlined

if TYPE_CHECKING:
    from models.shipped import Model

Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
NAME = "petct_multitask"
CHANNELS = 5
TREES = "trees{}.safetensors"
"""The file of a fold's trees."""
HOTTEST_PART = 2.0
"""SUV over that of the hottest place near the point is cut here."""
COARSER = 1.2
"""A grid is coarser than another when its voxels are so many times as far apart."""


@dataclass(frozen=True, kw_only=True)
class PetctView:
    """What a PET/CT network is shown, and in how many passes."""

    shape: tuple[int, int, int]
    """Voxels of a patch `(K, R, C)`."""
    voxel_mm: float
    """Voxel size, the same in all directions, mm."""
    highest_suv: float = 25.0
    """SUV above this is shown as this."""
    window_hu: tuple[float, float] = (-160.0, 240.0)
    """Lowest and highest HU."""
    near_mm: float = 25.0
    """The hottest place is looked for within this distance of the point, mm."""
    point_sigma_mm: float = 10.0
    """Width of the Gaussian that marks the point, mm."""
    passes: int = 3
    """How often the lesion is looked at; from the second pass on around its own middle."""

    @property
    def channels(self) -> int:
        """Return the number of channels."""
        return CHANNELS

    @property
    def grid(self) -> PatchGrid:
        """Return the patch."""
        return PatchGrid(shape=self.shape, spacing_mm=(self.voxel_mm,) * 3)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> PetctView:
        """Return the view that a card or an experiment describes."""
        k, r, c = plain["shape"]
        low, high = plain.get("window_hu", cls.window_hu)
        return cls(**{**plain, "shape": (int(k), int(r), int(c)), "window_hu": (float(low), float(high))})


def channels(view: PetctView, suv: Array, hu: Array | None) -> Array:
    """Return what the network is shown of a patch `(K, R, C)`: float32 `(5, K, R, C)`.

    log(1 + SUV); SUV over the hottest SUV near the middle; HU in its window, 0 without CT; 1 with CT and 0 without;
    the point.
    """
    warm = np.clip(suv, 0.0, view.highest_suv)
    hottest = float(warm[_near(view)].max())
    nothing = np.zeros(view.shape, dtype=np.float32)
    return np.stack(
        [
            np.log1p(warm),
            np.minimum(warm / max(hottest, 0.1), HOTTEST_PART),
            nothing if hu is None else scaled(hu, *view.window_hu),
            nothing if hu is None else nothing + 1,
            point_channel(view.grid, view.point_sigma_mm),
        ]
    ).astype(np.float32)


def averaged(hu: Array, step: NDArray[np.float64]) -> Array:
    """Return a CT `(K, R, C)` averaged over about the voxels of a coarser grid, `step` (k, r, c) of its own apart."""
    sigma = np.where(step > COARSER, step / FWHM_IN_SIGMAS, 0.0)
    return np.asarray(ndimage.gaussian_filter(hu, sigma, mode="nearest"), dtype=np.float32)


def _near(view: PetctView) -> BoolArray:
    """Return where the patch is near its middle."""
    squares = [((np.arange(n) - (n - 1) / 2) * view.voxel_mm) ** 2 for n in view.shape]
    far = squares[0][:, None, None] + squares[1][None, :, None] + squares[2][None, None, :]
    return np.asarray(far <= view.near_mm**2)


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """What networks say of one lesion."""

    probability: Array
    """Of each voxel of the image to be lesion, `(K, R, C)`; 0 beyond the patch."""
    log_hazard: float
    """Log hazard, learned from simulated outcomes: of a real patient's survival it tells nothing."""

    def drawn(self, level: float, point: Sequence[float], spacing_mm: Sequence[float]) -> BoolArray:
        """Return the piece above a probability that holds, or lies nearest to, the point."""
        return nearest_piece(self.probability > level, point, spacing_mm)


def look_at(
    networks: Sequence[Network],
    view: PetctView,
    suv: Array,
    hu: Array | None,
    spacing_mm: Sequence[float],
    point: Sequence[float],
    mirrors: int = 1,
) -> Answer:
    """Return what networks say of the lesion at a point (voxel index, not whole) of a PET `(K, R, C)` in SUV.

    `hu` is the CT on the grid of the PET, None without one. Only the last pass asks all networks and `mirrors` (1 to 8)
    mirror images; the earlier ones ask the first network.
    """
    here = np.asarray(point, dtype=np.float64)
    for _ in range(view.passes - 1):
        seen = sigmoid(networks[0](_shown(view, suv, hu, spacing_mm, here)[None])[0, 0])
        middle = (np.asarray(view.shape) - 1) / 2
        held = np.argwhere(nearest_piece(seen > min(0.5, 0.8 * float(seen.max())), middle, (1, 1, 1)))
        if held.size:
            between = (held.min(axis=0) + held.max(axis=0)) / 2 - middle
            here = here + between * view.voxel_mm / np.asarray(spacing_mm)
            here = np.clip(here, 0, np.asarray(suv.shape) - 1)
    shown = _shown(view, suv, hu, spacing_mm, here)[None]
    answers = [
        np.flip(network(np.ascontiguousarray(np.flip(shown, axes))), axes)[0]
        for network in networks
        for axes in MIRRORS[:mirrors]
    ]
    mask, hazard = np.mean(answers, axis=0)
    return Answer(
        probability=put_back(sigmoid(mask), suv.shape, spacing_mm, here.tolist(), view.grid),
        log_hazard=float(hazard.mean()),
    )


def _shown(
    view: PetctView, suv: Array, hu: Array | None, spacing_mm: Sequence[float], point: NDArray[np.float64]
) -> Array:
    at = point.tolist()
    ct = None if hu is None else cut(hu, spacing_mm, at, view.grid)
    return channels(view, cut(suv, spacing_mm, at, view.grid), ct)


def drawn_surely(probability: Array, point: Sequence[float], spacing_mm: Sequence[float]) -> BoolArray:
    """Return the mask of highest expected Dice that holds, or lies nearest to, a point, and what it closes in."""
    k, r, c = spacing_mm
    mask = best_overlap(probability, np.asarray(point, np.float64), (k, r, c), math.inf)[0]
    return closed_in(mask, spacing_mm)


def above_percent(
    suv: Array,
    spacing_mm: Sequence[float],
    point: Sequence[float],
    percent: float = 41.0,
    near_mm: float = 25.0,
) -> BoolArray:
    """Return the piece at a point above a part of the SUVmax near it, `(K, R, C)`: the usual fixed threshold."""
    far = sum(
        (((np.arange(n) - p) * s) ** 2).reshape([-1 if axis == i else 1 for i in range(3)])
        for axis, (n, p, s) in enumerate(zip(suv.shape, point, spacing_mm, strict=True))
    )
    hottest = float(suv[far <= max(near_mm, *spacing_mm) ** 2].max())
    return nearest_piece(suv >= percent / 100.0 * hottest, point, spacing_mm)


def above_suv(
    suv: Array, spacing_mm: Sequence[float], point: Sequence[float], level: float = 2.5
) -> BoolArray:
    """Return the piece above an SUV that holds, or lies nearest to, a point, `(K, R, C)`."""
    return nearest_piece(suv >= level, point, spacing_mm)


@dataclass(frozen=True, kw_only=True, eq=False)
class Lesion:
    """One lesion as a model tells of it."""

    mask: BoolArray
    """What it draws, `(K, R, C)`; empty when it sees none."""
    probability: Array
    """Of each voxel to be lesion, `(K, R, C)`; of a model with trees it is calibrated in the lesion and within 5 mm of
    it, and too high elsewhere."""
    log_hazard: float
    """Log hazard, learned from simulated outcomes: of a real patient's survival it tells nothing."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LearnedPetct:
    """The networks of a model's card and the trees that outline what they see; loaded for the first lesion.

    A model without trees draws what is more probable than the level of its card.
    Raises BadModel when the card or the weights are not as they have to be.
    """

    model: Model
    """Card and weights."""
    folds: tuple[int, ...] = ()
    """Which folds are asked; all when empty. Of patients that the model learned from: that which has not seen them."""

    @cached_property
    def card(self) -> ModelCard:
        """Return who draws, with every number that changes what is drawn."""
        said = self.model.manifest
        return ModelCard(
            name=said.name,
            version=said.version,
            kind="learned",
            intended_use=str(self.model.said("intended_use")),
            parameters={
                "folds": ",".join(map(str, self._folds)),
                **({} if self._trees else {"level": self._numbers("level", 1)[0]}),
                "mirrors": self._mirrors,
            },
            weights_sha256=said.sha256,
        )

    def answer(
        self, suv: Array, spacing_mm: Sequence[float], point: Sequence[float], hu: Array | None = None
    ) -> Lesion:
        """Return the lesion at a point (voxel index) of a PET `(K, R, C)` in SUV.

        `hu` is the CT on the grid of the PET, None without one. The log hazard is 0 for the usual tumour that was
        learned from: a Cox model has no zero of its own, so those of several networks can only be compared so.
        """
        found = look_at(self._networks, self._view, suv, hu, spacing_mm, point, self._mirrors)
        usual = self.model.understood(
            "usual_log_hazard", lambda said: sum(float(said[str(f)]) for f in self._folds)
        )
        log_hazard = found.log_hazard - usual / len(self._folds)
        if not self._trees:
            mask = found.drawn(self._numbers("level", 1)[0], point, spacing_mm)
            return Lesion(mask=mask, probability=found.probability, log_hazard=log_hazard)
        probability = outlined(self._trees, found.probability, suv, hu, spacing_mm, point)
        mask = drawn_surely(probability, point, spacing_mm)
        calibrated = scaled_logit(probability, *self._numbers("calibration", 2))
        return Lesion(mask=mask, probability=calibrated, log_hazard=log_hazard)

    def _numbers(self, key: str, count: int) -> list[float]:
        """Return what the card says for the folds that are asked; one alone has what the other folds taught."""
        said = self.model.said(key)
        try:
            own = said["folds"][str(self.folds[0])] if len(self.folds) == 1 else said["all"]
            numbers = [float(number) for number in (own if isinstance(own, list) else [own])]
            if len(numbers) != count:
                raise ValueError(f"{len(numbers)} numbers instead of {count}")
            return numbers
        except (KeyError, TypeError, ValueError) as error:
            raise BadModel(
                "bad-card", f"the card of {self.model.manifest.name} has no {key} of its folds"
            ) from error

    @cached_property
    def _trees(self) -> tuple[UptakeTrees, ...]:
        names = [TREES.format(fold) for fold in self._folds]
        if not any(name in self.model.manifest.files for name in names):
            return ()
        return tuple(UptakeTrees.of(self.model.numbers(name)) for name in names)

    @cached_property
    def _view(self) -> PetctView:
        return self.model.understood("view", PetctView.of)

    @cached_property
    def _mirrors(self) -> int:
        return self.model.understood("mirrors", mirrors_of)

    @cached_property
    def _networks(self) -> tuple[Network, ...]:
        return tuple(torch_network(self.model, fold) for fold in self._folds)

    @cached_property
    def _folds(self) -> tuple[int, ...]:
        return self.folds or self.model.folds
