"""How likely readers would call a drawn nodule malignant: features and a small network, each an ensemble, calibrated.

The likelihood is of a rating by readers of images, not of a disease that a pathologist found: whoever shows it says so.
Arrays `(K, R, C)` in HU with their mask go in; nothing beyond `nodule_features.REACH_MM` of the mask is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.covariates import Covariates
from models.files import BadModel
from models.nodule_features import FEATURES, LUNG_HU, features, seen
from models.patches import PatchGrid, cut, scaled

if TYPE_CHECKING:
    import torch

    from models.shipped import Model

Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
Floats = NDArray[np.float64]
Network = Callable[[Array], Array]
"""float32 `(N, 2, K, R, C)` to logits `(N, 1)`."""
NAME = "nodule_malignancy"
VOTES, NETWORK = "features.", "network."
"""What the names of weights begin with."""
NOT_PATHOLOGY = "likelihood that readers of images rate it malignant; ratings are not pathology"
MIRRORS: tuple[tuple[int, ...], ...] = ((), (1,), (2,), (3,), (1, 2), (1, 3), (2, 3), (1, 2, 3))


@dataclass(frozen=True, kw_only=True)
class RatedView:
    """What the network is shown: HU in a window and the mask, around the middle of the mask."""

    shape: tuple[int, int, int]
    """Voxels `(K, R, C)`."""
    voxel_mm: float
    """Edge of a voxel, mm."""
    window_hu: tuple[float, float]
    """HU that become -1 and 1."""

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> RatedView:
        """Return the patch that a card or an experiment describes."""
        k, r, c = (int(n) for n in plain["shape"])
        low, high = (float(hu) for hu in plain["window_hu"])
        return cls(shape=(k, r, c), voxel_mm=float(plain["voxel_mm"]), window_hu=(low, high))

    def hu_and_mask(self, image: Array, mask: BoolArray, spacing_mm: Sequence[float]) -> tuple[Array, Array]:
        """Return HU and mask (0 to 1) on the patch; what must not be looked at is lung."""
        hu, drawn, looked_at = seen(image, mask, spacing_mm)
        hu = np.pad(np.where(looked_at, hu, np.float32(LUNG_HU)), 1, constant_values=LUNG_HU)
        drawn = np.pad(drawn, 1)
        point = np.argwhere(drawn).mean(axis=0).tolist()
        grid = PatchGrid(shape=self.shape, spacing_mm=(self.voxel_mm,) * 3)
        return cut(hu, spacing_mm, point, grid), cut(drawn.astype(np.float32), spacing_mm, point, grid)

    @property
    def channels(self) -> int:
        """Return the number of channels: HU and mask."""
        return 2

    def shown(self, image: Array, mask: BoolArray, spacing_mm: Sequence[float]) -> Array:
        """Return what the network is shown, float32 `(2, K, R, C)`."""
        hu, drawn = self.hu_and_mask(image, mask, spacing_mm)
        return np.stack([scaled(hu, *self.window_hu), drawn])


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearVotes:
    """Logistic regressions on the features, one for each draw of patients."""

    low: Floats
    """Smallest value of each feature that was learned from, `(F,)`; smaller ones count as this."""
    high: Floats
    """Largest, likewise."""
    weights: Floats
    """Logits per unit of each feature, `(B, F)`."""
    intercepts: Floats
    """`(B,)`."""

    def logits(self, values: Floats) -> Floats:
        """Return the logit of each regression for features `(..., F)`, `(..., B)`."""
        return np.asarray(
            np.clip(values, self.low, self.high) @ self.weights.T + self.intercepts, dtype=np.float64
        )


@dataclass(frozen=True, kw_only=True)
class Combination:
    """How features and network are put together, and what makes their sum a probability (Platt 1999)."""

    intercept: float
    """Logit when both are 0."""
    linear: float
    """Weight of the logit of the features."""
    network: float
    """Weight of the logit of the network."""

    def logits(self, linear: Floats, network: Floats | float) -> Floats:
        """Return the calibrated logits."""
        return np.asarray(self.intercept + self.linear * linear + self.network * network, dtype=np.float64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Member:
    """What was learned when the patients of one fold were left out."""

    votes: LinearVotes
    """Regressions on the features."""
    network: Network
    """The network."""
    combination: Combination
    """How both are put together."""


@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """What is said of one nodule."""

    probability: float
    """Calibrated likelihood of a malignant rating, 0 to 1."""
    low: float
    """Where it would lie had other patients been learned from: the 2.5th percentile over draws and folds."""
    high: float
    """The 97.5th."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MalignancyRater:
    """An ensemble that rates a drawn nodule."""

    view: RatedView
    """What the networks are shown."""
    members: tuple[Member, ...]
    """One for each fold; a single one when a patient of the training data is judged by his own fold."""
    covariates: Covariates | None = None
    """What was learned of clinical facts, if anything."""

    @property
    def facts(self) -> tuple[str, ...]:
        """Return the names of the clinical facts that were learned."""
        return () if self.covariates is None else tuple(fact.name for fact in self.covariates.facts)

    def rate(
        self,
        image: Array,
        mask: BoolArray,
        spacing_mm: Sequence[float],
        known: Mapping[str, float | None] | None = None,
    ) -> Likelihood:
        """Return the likelihood for a nodule, HU and mask `(K, R, C)`, spacing (k, r, c) in mm.

        `known` are clinical facts by name, None for one that is not known. Raises ValueError when the mask is empty or
        of another grid, and for facts that the model has not learned.
        """
        if known and self.covariates is None:
            raise ValueError(f"this model has learned nothing of {', '.join(sorted(known))}")
        values = features(image, mask, spacing_mm)
        shown = self.view.shown(image, mask, spacing_mm)
        logits = np.concatenate(
            [m.combination.logits(m.votes.logits(values), asked(m.network, shown)) for m in self.members]
        )
        spread = [float(logits.mean()), *np.quantile(logits, [0.025, 0.975]).tolist()]
        if self.covariates is not None:
            spread = [self.covariates.logit(z, known or {}) for z in spread]
        probability, low, high = (float(1 / (1 + np.exp(-np.clip(z, -60, 60)))) for z in spread)
        return Likelihood(probability=probability, low=low, high=high)


def asked(network: Network, shown: Array) -> float:
    """Return the logit of a network for `(2, K, R, C)`, the mean over its eight mirror images."""
    views = np.stack([np.flip(shown, axes) for axes in MIRRORS])
    return float(np.mean(network(np.ascontiguousarray(views))))


def open_rater(model: Model, folds: Sequence[int] = ()) -> MalignancyRater:
    """Return the rater of a model's card and weights; all folds together unless some are named.

    One fold alone judges patients of the training data that it has not seen; it is then put together as the other folds
    taught. Raises BadModel (`bad-card`, `bad-weights`, and what `models.files` raises).
    """
    chosen = tuple(folds) or model.folds
    try:
        said = model.card["combination"]
        own = said["folds"][str(chosen[0])] if len(folds) == 1 else said["all"]
        combination = Combination(**own)
        view = RatedView.of(model.card["view"])
        facts = model.card.get("covariates")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadModel("bad-card", f"the card of {NAME} is not as it has to be: {error!r}") from error
    members = []
    for fold in chosen:
        numbers = model.weights(fold)
        members.append(
            Member(
                votes=_votes(numbers),
                network=as_function(network_of(model.said("architecture"), numbers)),
                combination=combination,
            )
        )
    covariates = None if facts is None else Covariates.of(facts)
    return MalignancyRater(view=view, members=tuple(members), covariates=covariates)


def _votes(numbers: Mapping[str, NDArray[np.generic]]) -> LinearVotes:
    wide = len(FEATURES)
    try:
        low, high, weights, intercepts = (
            np.asarray(numbers[f"{VOTES}{name}"], np.float64)
            for name in ("low", "high", "weights", "intercepts")
        )
    except KeyError as error:
        raise BadModel("bad-weights", f"the weights hold no {error}") from error
    if low.shape != (wide,) or high.shape != (wide,) or weights.shape != (len(intercepts), wide):
        raise BadModel("bad-weights", f"the weights are not of the {wide} features that are measured here")
    return LinearVotes(low=low, high=high, weights=weights, intercepts=intercepts)


def network_of(
    architecture: Mapping[str, Any], numbers: Mapping[str, NDArray[np.generic]]
) -> torch.nn.Module:
    """Return the network of a card with the weights of a fold, set to evaluate. Raises BadModel (`bad-weights`)."""
    import torch

    from models.networks import build

    network = build(architecture)
    own = {
        k.removeprefix(NETWORK): torch.from_numpy(np.array(v))
        for k, v in numbers.items()
        if k.startswith(NETWORK)
    }
    try:
        network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in own.items()})
    except RuntimeError as error:
        raise BadModel(
            "bad-weights", f"the weights are not of the network that the card of {NAME} says"
        ) from error
    return network.eval()


def as_function(network: torch.nn.Module) -> Network:
    """Return a network as a function of float32 arrays."""
    import torch

    def run(patches: Array) -> Array:
        with torch.inference_mode():
            found: Array = network(torch.from_numpy(patches)).float().numpy()
        return found

    return run
