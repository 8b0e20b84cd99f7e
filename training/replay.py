"""Learning on from what people drew, mixed with cases that were learned from before, so that nothing is forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from plugins.errors import Refused
from training.evaluate.data import Data, open_data
from training.experiment import Experiment
from training.manifest import Case, DataManifest

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

    from training.fit import Task

REPLAY = "replay"
"""Beginning of the names of the folders, beside the new cases, that lead to data sets that are replayed."""
SHARE = "replay_share"
"""Key under `task` of an experiment: the part of the samples that is replayed."""


class TaskOn(Protocol):
    """Makes the task of learning from some cases of a data set, its curve drawn on others."""

    def __call__(
        self, experiment: Experiment, opened: Data, learned: Sequence[Case], unseen: Sequence[Case], /
    ) -> Task:
        """Return the task."""


@dataclass(frozen=True, eq=False)
class Replaying:
    """A task whose batches hold a part of earlier cases."""

    manifest: DataManifest
    """All cases, new ones and earlier ones."""
    fresh: Task
    """What is learned from the new ones."""
    earlier: Task | None
    """What is learned from the earlier ones; None without any."""
    share: float
    """Part of the samples that comes from the earlier ones, on the mean."""
    is_watched: bool
    """Whether there are new cases to draw the curve on."""

    @property
    def in_channels(self) -> int:
        """Return the number of channels that the network is shown."""
        return self.fresh.in_channels

    @property
    def left_parts(self) -> tuple[str, ...]:
        """Return the parts of the network that stay as they are."""
        return getattr(self.fresh, "left_parts", ())

    def batch(self, size: int, rng: np.random.Generator) -> tuple[Tensor, ...]:
        """Return one batch, earlier samples after new ones."""
        import torch

        count = 0 if self.earlier is None else int(rng.binomial(size, self.share))
        parts = [
            task.batch(n, rng)
            for task, n in ((self.fresh, size - count), (self.earlier, count))
            if task and n
        ]
        return tuple(torch.cat(part) for part in zip(*parts, strict=True))

    def loss(self, output: Tensor, batch: tuple[Tensor, ...]) -> Tensor:
        """Return what is made small, a scalar: the same for both."""
        return self.fresh.loss(output, batch)

    def judge(self, network: torch.nn.Module) -> Mapping[str, float]:
        """Return figures on new cases of the fold that is left out, when there are any."""
        return self.fresh.judge(network) if self.is_watched else {}


def is_replayed(case: Case) -> bool:
    """Return whether a case of a frozen data set comes from one that is replayed."""
    return all(path.startswith(REPLAY) for path in case.files.values())


def replaying(experiment: Experiment, fold: int, folder: Path, task_on: TaskOn) -> Replaying:
    """Return the task of one fold of a frozen data set: nobody of the fold is learned from, old or new.

    Refuses `few-cases` when all new cases are of the fold that is left out, and what `open_data` and `task_on` refuse.
    """
    from dataclasses import replace

    opened = open_data(folder)
    task = dict(experiment.task)
    share = float(task.pop(SHARE, 0.0))
    plain = replace(experiment, task=task)
    learned, unseen = opened.manifest.others(fold), opened.manifest.fold(fold)
    new = [case for case in learned if not is_replayed(case)]
    old = [case for case in learned if is_replayed(case)]
    watched = [case for case in unseen if not is_replayed(case)]
    if not new:
        raise Refused("few-cases", f"all new cases are of fold {fold}, which its network does not learn from")
    return Replaying(
        manifest=opened.manifest,
        fresh=task_on(plain, opened, new, watched),
        earlier=task_on(plain, opened, old, ()) if old and share else None,
        share=share,
        is_watched=bool(watched),
    )


__all__ = ["REPLAY", "SHARE", "Replaying", "TaskOn", "is_replayed", "replaying"]
