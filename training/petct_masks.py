"""Learning lesion masks alone on PET/CT, for a network that is retrained: nobody's outcome is known.

The survival head gets no gradient and keeps its weights bit for bit. What it says changes all the same, because the
features that it reads are learned on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.petct import CHANNELS, PetctView
from plugins.errors import Refused
from training.evaluate.data import Data
from training.experiment import Experiment
from training.manifest import Case, DataManifest, require_patients_apart
from training.petct_lesions import made_lesion
from training.petct_samples import Augmentation, draw_sample
from training.petct_task import Loss, dice_of_unseen, loss_of_masks
from training.sts import Sarcoma, load_sarcoma

HEAD = "head"
"""The part of `models.multitask.Multitask` that tells the hazard."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PetctMasks:
    """The lesions that are learned from, made ones beside them, and those that the curve is drawn on."""

    manifest: DataManifest
    """All cases."""
    learned: tuple[Sarcoma, ...]
    """Lesions that are learned from."""
    made: tuple[Sarcoma, ...]
    """Made lesions that are learned from."""
    judged: tuple[Sarcoma, ...]
    """Lesions of other patients."""
    view: PetctView
    """What the network is shown."""
    how: Augmentation
    """How samples vary."""
    costs: Loss
    """What is made small; the part of the hazard counts for nothing."""
    made_share: float
    """The part of a batch that is made lesions."""

    @property
    def in_channels(self) -> int:
        """Return the number of channels that the network is shown."""
        return CHANNELS

    @property
    def left_parts(self) -> tuple[str, ...]:
        """Return the parts of the network that stay as they are."""
        return (HEAD,)

    def batch(self, size: int, rng: np.random.Generator) -> tuple[Tensor, ...]:
        """Return what the network is shown `(N, 5, K, R, C)` and the truth `(N, 1, K, R, C)`."""
        few = int(rng.binomial(size, self.made_share)) if self.made else 0
        cases = [
            from_[i]
            for from_, n in ((self.learned, size - few), (self.made, few))
            for i in (rng.choice(len(from_), size=n, replace=n > len(from_)) if n else ())
        ]
        drawn = [draw_sample(case, self.learned, self.view, self.how, rng) for case in cases]
        shown, truth = (torch.from_numpy(np.stack(part)) for part in zip(*drawn, strict=True))
        return shown, truth[:, None]

    def loss(self, output: Tensor, batch: tuple[Tensor, ...]) -> Tensor:
        """Return the Focal Tversky loss of the masks."""
        return loss_of_masks(output, batch[1], self.costs)

    def judge(self, network: torch.nn.Module) -> Mapping[str, float]:
        """Return the mean Dice of unseen lesions at level 0.5; nothing where there is none."""
        return {"dice": dice_of_unseen(network, self.view, self.judged)[0]} if self.judged else {}


def task_on(
    experiment: Experiment, opened: Data, learned: Sequence[Case], unseen: Sequence[Case]
) -> PetctMasks:
    """Return the task of learning masks from some cases of a data set, watched on others. Refuses `bad-experiment`.

    The settings are those of `training.petct_task`; what concerns the hazard is passed over.
    """
    require_patients_apart(learned, unseen)
    settings: dict[str, Any] = dict(experiment.task)
    settings.pop("outcome_seed", None)
    settings.pop("outcomes", None)
    try:
        return PetctMasks(
            manifest=opened.manifest,
            learned=tuple(load_sarcoma(case, opened.root) for case in learned),
            made=tuple(made_lesion(n) for n in range(int(settings.pop("made", 0)))),
            judged=tuple(load_sarcoma(case, opened.root) for case in unseen),
            view=PetctView.of(settings.pop("view")),
            how=Augmentation(**settings.pop("augmentation", {})),
            costs=Loss(**settings.pop("loss", {})),
            made_share=float(settings.pop("made_share", 0.0)),
            **settings,
        )
    except (TypeError, KeyError, ValueError) as error:
        raise Refused(
            "bad-experiment", f"'task' of {experiment.name} is not as it has to be: {error}"
        ) from error


__all__ = ["HEAD", "PetctMasks", "task_on"]
