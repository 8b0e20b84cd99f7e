"""Learning to tell nodules that readers rate benign from those that they rate malignant: turned patches, two classes.

The mean rating decides: below 3 benign, above 3 malignant, 3 is left out. No other rating is shown to anything that
learns, and the patch shows nothing that tells how the crop was cut (`models.nodule_features`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor
from torch.nn import functional

from models.malignancy import RatedView
from models.patches import scaled
from plugins.errors import Refused
from training.evaluate.data import open_learnable
from training.experiment import Experiment
from training.lidc import HIGHEST, LOWEST, Nodule, load_nodule
from training.manifest import FOLDS, Case, DataManifest, part_of, require_patients_apart

Array = NDArray[np.float32]
UNDECIDED = 3.0
"""Rating that is neither."""


@dataclass(frozen=True, kw_only=True)
class Variation:
    """How far a sample may be from its nodule."""

    zoom: float = 0.1
    """Lengths are stretched by at most this part."""
    shift_mm: float = 1.5
    """The patch is moved by at most this along each axis."""
    noise_hu: float = 30.0
    """Standard deviation of the noise, at most."""
    shift_hu: float = 30.0
    """Added to all values, at most."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """Nodules as patches with their class."""

    hu: Array
    """`(N, K, R, C)`."""
    mask: Array
    """0 to 1, `(N, K, R, C)`."""
    malignant: NDArray[np.bool_]
    """`(N,)`."""


@dataclass(frozen=True, eq=False)
class MalignancyTask:
    """The nodules that one fold learns from, and those it is judged on."""

    manifest: DataManifest
    """All cases."""
    view: RatedView
    """What the network is shown."""
    learned: Shown
    """Nodules that are learned from."""
    judged: Shown
    """Nodules of other patients."""
    how: Variation
    """How samples vary."""

    @property
    def in_channels(self) -> int:
        """Return the number of channels that the network is shown."""
        return self.view.channels

    def batch(self, size: int, rng: np.random.Generator) -> tuple[Tensor, ...]:
        """Return what the network is shown `(N, 2, K, R, C)` and the class `(N, 1)`, 0 or 1."""
        chosen = rng.choice(len(self.learned.malignant), size=size, replace=False)
        pair = torch.from_numpy(np.stack([self.learned.hu[chosen], self.learned.mask[chosen]], axis=1))
        half_mm = (np.asarray(self.view.shape) - 1) / 2 * self.view.voxel_mm
        turns = np.stack([_turn(self.how, half_mm, rng) for _ in chosen]).astype(np.float32)
        at = functional.affine_grid(torch.from_numpy(turns), list(pair.shape), align_corners=True)
        turned = functional.grid_sample(pair, at, align_corners=True, padding_mode="border").numpy()
        hu, mask = turned[:, 0], turned[:, 1]
        one = (size, 1, 1, 1)
        hu = hu + rng.uniform(-self.how.shift_hu, self.how.shift_hu, one)
        hu += rng.standard_normal(hu.shape, dtype=np.float32) * rng.uniform(0, self.how.noise_hu, one)
        shown = np.stack([scaled(hu.astype(np.float32), *self.view.window_hu), mask], axis=1)
        truth = self.learned.malignant[chosen].astype(np.float32)[:, None]
        return torch.from_numpy(shown), torch.from_numpy(truth)

    def loss(self, output: Tensor, batch: tuple[Tensor, ...]) -> Tensor:
        """Return the mean cross-entropy."""
        return functional.binary_cross_entropy_with_logits(output, batch[1])

    def judge(self, network: torch.nn.Module) -> Mapping[str, float]:
        """Return the area under the ROC curve on unseen nodules, each seen once; nothing when they are of one class."""
        positive = self.judged.malignant
        n, m = int(positive.sum()), int((~positive).sum())
        if not n or not m:
            return {}
        shown = np.stack([scaled(self.judged.hu, *self.view.window_hu), self.judged.mask], axis=1)
        with torch.inference_mode():
            found = network(torch.from_numpy(shown))[:, 0].numpy()
        ranks = stats.rankdata(found)[positive]
        return {"AUC": float((ranks.sum() - n * (n + 1) / 2) / (n * m))}


def malignant(case: Case) -> bool | None:
    """Return whether the readers rate a nodule malignant; None when they do not decide or did not rate it.

    Refuses `bad-rating`: one that is not 1 to 5.
    """
    rating = case.number("malignancy")
    if rating is None or rating == UNDECIDED:
        return None
    if not LOWEST <= rating <= HIGHEST:
        raise Refused(
            "bad-rating",
            f"the malignancy of {case.case_id} is {rating:g}, and readers rate it from {LOWEST:g} to {HIGHEST:g}; "
            "correct it, or leave the rating out",
        )
    return rating > UNDECIDED


def malignancy_task(experiment: Experiment, fold: int, data: Path) -> MalignancyTask:
    """Return the task of one fold of a folder of crops: of `training.lidc`, or any in the training form, with ratings.

    The settings under `task` are `view`, `variation` and `share`, the part of the other patients that is learned from.
    Refuses `bad-experiment`, and `few-cases` when a batch needs more nodules than there are.
    """
    opened = open_learnable(data)
    unseen = (fold + 1) % FOLDS if experiment.inner else fold
    settings: dict[str, Any] = dict(experiment.task)
    try:
        share = float(settings.pop("share", 1.0))
        view = RatedView.of(settings.pop("view"))
        how = Variation(**settings.pop("variation", {}))
        if settings:
            raise ValueError(f"'{min(settings)}' is not known")
    except (TypeError, KeyError, ValueError) as error:
        raise Refused(
            "bad-experiment", f"'task' of {experiment.name} is not as it has to be: {error}"
        ) from error
    learned = part_of(_rated(opened.to_learn((fold, unseen))), share, experiment.seed)
    judged = _rated(opened.to_watch(unseen))
    require_patients_apart(learned, judged)
    if len(learned) < experiment.schedule.batch:
        raise Refused("few-cases", f"{len(learned)} rated nodules are too few for one batch")
    return MalignancyTask(
        manifest=opened.manifest,
        view=view,
        learned=_shown([load_nodule(case, opened.root) for case in learned], view),
        judged=_shown([load_nodule(case, opened.root) for case in judged], view),
        how=how,
    )


def _rated(cases: Sequence[Case]) -> list[Case]:
    return [case for case in cases if malignant(case) is not None]


def _shown(nodules: Sequence[Nodule], view: RatedView) -> Shown:
    pairs = [view.hu_and_mask(n.image, n.mask, n.spacing_mm) for n in nodules]
    both = np.asarray(pairs, dtype=np.float32).reshape(-1, 2, *view.shape)
    return Shown(
        hu=both[:, 0],
        mask=both[:, 1],
        malignant=np.array([malignant(n.case) for n in nodules], dtype=np.bool_),
    )


def _turn(how: Variation, half_mm: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a map of torch's grid, in order (c, r, k), `(3, 4)`: turned in plane, mirrored, stretched, moved."""
    angle = rng.uniform(0, 2 * np.pi)
    zoom = 1 + rng.uniform(-how.zoom, how.zoom)
    mirror = rng.choice([-1.0, 1.0], size=2)
    turn = np.zeros((3, 4))
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [mirror[0] * np.sin(angle), mirror[0] * np.cos(angle)]]
    turn[2, 2] = mirror[1]
    turn[:, :3] *= zoom
    turn[:, 3] = rng.uniform(-how.shift_mm, how.shift_mm, 3) / half_mm[::-1]
    return turn
