"""Learning lesion mask and hazard from PET/CT at once: Focal Tversky on the whole patch, Cox over the whole cohort."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.losses import Multitask, RiskSets, focal_tversky
from models.outcome import Outcomes, concordance
from models.petct import CHANNELS, PetctView, look_at
from plugins.errors import Refused
from training.evaluate.data import open_learnable
from training.experiment import Experiment
from training.manifest import FOLDS, DataManifest, part_of, require_patients_apart
from training.nodule_task import as_function
from training.petct_lesions import made_lesion
from training.petct_outcomes import hazard_of, simulated
from training.petct_samples import Augmentation, draw_sample
from training.sts import Sarcoma, load_sarcoma


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What is made small."""

    fp_weight: float = 0.3
    """Weight of a voxel drawn in error."""
    fn_weight: float = 0.7
    """Weight of a voxel missed."""
    exponent: float = 0.75
    """Focal exponent."""
    segmentation_weight: float = 0.6
    """Part of the loss that is the mask's; the rest is the hazard's."""


@dataclass(frozen=True, eq=False)
class PetctTask:
    """The tumours that one fold learns from, the made lesions beside them, and the tumours it is judged on.

    Risk sets hold the last log hazard of everybody in the cohort; a run that was stopped begins with empty ones, so
    that it learns nearly, not exactly, what one in a single piece does.
    """

    manifest: DataManifest
    """All cases."""
    learned: tuple[Sarcoma, ...]
    """Tumours that are learned from."""
    made: tuple[Sarcoma, ...]
    """Made lesions that are learned from."""
    judged: tuple[Sarcoma, ...]
    """Tumours of other patients."""
    view: PetctView
    """What the network is shown."""
    how: Augmentation
    """How samples vary."""
    costs: Loss
    """What is made small."""
    made_share: float
    """The part of a batch that is made lesions."""
    seed: int
    """Seed of the simulated outcomes; each further outcome of a patient has the next."""
    outcomes: int = 1
    """How many outcomes of each patient are simulated and learned from: one tells little of the hazard behind it."""
    _risks: tuple[RiskSets, ...] = field(init=False)
    _both: Multitask = field(init=False)

    def __post_init__(self) -> None:
        if self.outcomes < 1:
            raise ValueError("each patient has one outcome or more")
        cohort = [hazard_of(case) for case in (*self.learned, *self.made)]
        drawn = [simulated(cohort, self.seed + n) for n in range(self.outcomes)]
        risks = tuple(
            RiskSets(torch.from_numpy(one.duration).float(), torch.from_numpy(one.event)) for one in drawn
        )
        object.__setattr__(self, "_risks", risks)
        null = float(np.mean([risk.null() for risk in risks]))
        weight = self.costs.segmentation_weight
        object.__setattr__(self, "_both", Multitask(null_cox=null, segmentation_weight=weight))

    @property
    def in_channels(self) -> int:
        """Return the number of channels that the network is shown."""
        return CHANNELS

    def batch(self, size: int, rng: np.random.Generator) -> tuple[Tensor, ...]:
        """Return what the network is shown `(N, 5, K, R, C)`, the truth `(N, 1, K, R, C)` and places in the cohort."""
        few = _made_of_batch(size, len(self.made), self.made_share)
        real = rng.choice(len(self.learned), size=size - few, replace=False)
        places = np.concatenate(
            [real, len(self.learned) + rng.choice(max(len(self.made), 1), few, replace=False)]
        )
        cohort = (*self.learned, *self.made)
        drawn = [draw_sample(cohort[i], self.learned, self.view, self.how, rng) for i in places]
        shown, truth = (torch.from_numpy(np.stack(part)) for part in zip(*drawn, strict=True))
        return shown, truth[:, None], torch.from_numpy(places)

    def loss(self, output: Tensor, batch: tuple[Tensor, ...]) -> Tensor:
        """Return Focal Tversky and the Cox partial likelihood (Efron), weighed."""
        mask = loss_of_masks(output, batch[1], self.costs)
        log_hazard = output[:, 1, 0, 0, 0]
        # The few of a batch stand for the whole cohort, or the hazard would count far less than its weight.
        more = log_hazard * ((len(self.learned) + len(self.made)) / len(log_hazard))
        said = more + (log_hazard - more).detach()
        total, _ = self._both(mask, torch.stack([risk.loss(batch[2], said) for risk in self._risks]).mean())
        return total

    def judge(self, network: torch.nn.Module) -> Mapping[str, float]:
        """Return mean Dice of unseen tumours at level 0.5, and how well their hazards are in order (0.5 is chance).

        Nothing is returned where there is no unseen tumour.
        """
        if not self.judged:
            return {}
        dice, risks = dice_of_unseen(network, self.view, self.judged)
        true = np.array([hazard_of(case) for case in self.judged])
        figures = {"dice": dice}
        if len(set(true)) > 1:
            order = Outcomes(duration=-true, event=np.ones(len(true), dtype=np.bool_))
            figures["hazards in order"] = concordance(risks, order)
        return figures


def loss_of_masks(output: Tensor, truth: Tensor, costs: Loss) -> Tensor:
    """Return the Focal Tversky loss of what a network says `(N, 2, K, R, C)` of masks `(N, 1, K, R, C)`."""
    return focal_tversky(
        output[:, :1],
        truth,
        fp_weight=costs.fp_weight,
        fn_weight=costs.fn_weight,
        exponent=costs.exponent,
    )


def dice_of_unseen(
    network: torch.nn.Module, view: PetctView, cases: Sequence[Sarcoma]
) -> tuple[float, list[float]]:
    """Return the mean Dice of cases at level 0.5, asked at the middle of each, and their log hazards."""
    run, dices, risks = as_function(network), [], []
    for case in cases:
        point = case.middle
        answer = look_at([run], view, case.suv, case.hu, case.spacing_mm, point)
        mask = answer.drawn(0.5, point, case.spacing_mm)
        dices.append(2.0 * float((mask & case.mask).sum()) / float(mask.sum() + case.mask.sum()))
        risks.append(answer.log_hazard)
    return float(np.mean(dices)), risks


def _made_of_batch(size: int, made: int, share: float) -> int:
    return min(round(share * size), made)


def petct_task(experiment: Experiment, fold: int, data: Path) -> PetctTask:
    """Return the task of one fold of a folder of PET/CTs: of `training.sts`, or in the training form (`pet`, `mask`).

    The settings under `task` are `view`, `augmentation`, `loss`, `made` (how many made lesions), `made_share` (their
    part of a batch), `outcome_seed`, `outcomes` and `share`, the part of the other patients that is learned from.
    Refuses `bad-experiment`, and `few-cases` when a batch needs more tumours than there are.
    """
    opened = open_learnable(data)
    watched = (fold + 1) % FOLDS if experiment.inner else fold
    unseen, others = opened.to_watch(watched), opened.to_learn((fold, watched))
    settings: dict[str, Any] = dict(experiment.task)
    try:
        learned = part_of(others, float(settings.pop("share", 1.0)), experiment.seed)
        require_patients_apart(learned, unseen)
        made, made_share = int(settings.pop("made", 0)), float(settings.pop("made_share", 0.0))
        needed = experiment.schedule.batch - _made_of_batch(experiment.schedule.batch, made, made_share)
        if len(learned) < needed:
            sentence = f"{len(learned)} tumours to learn from are too few for a batch, which takes {needed}"
            raise Refused("few-cases", f"{sentence}: lower schedule.batch of {experiment.name}")
        return PetctTask(
            manifest=opened.manifest,
            learned=tuple(load_sarcoma(case, opened.root) for case in learned),
            made=tuple(made_lesion(n) for n in range(made)),
            judged=tuple(load_sarcoma(case, opened.root) for case in unseen),
            view=PetctView.of(settings.pop("view")),
            how=Augmentation(**settings.pop("augmentation", {})),
            costs=Loss(**settings.pop("loss", {})),
            made_share=made_share,
            seed=int(settings.pop("outcome_seed", 0)),
            **settings,
        )
    except (TypeError, KeyError, ValueError) as error:
        raise Refused(
            "bad-experiment", f"'task' of {experiment.name} is not as it has to be: {error}"
        ) from error
