"""Learning to draw one nodule from one point: samples from crops, the loss on the whole patch, Dice within and open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from models.nodule_passes import NoduleView, channels, draw, nearest_piece
from plugins.errors import Refused
from training.evaluate.data import Data, open_learnable
from training.experiment import Experiment
from training.lidc import Nodule, load_nodule
from training.manifest import FOLDS, Case, DataManifest, part_of, require_patients_apart
from training.nodule_samples import Augmentation, Surroundable, draw_sample, surroundable

Array = NDArray[np.float32]
FITTING_SHARE = 0.6
"""How often a nodule is shown with the voxel size that it is drawn with."""
FIRST_SHARE = 0.7
"""How often, of the other times, with that of the first pass; else with the coarsest."""
SIZE_OFFSET = 200.0
"""Voxels added to the nodule's when the cross-entropy is taken per nodule voxel."""
JUDGED_AT_MOST = 60
"""Nodules behind one point of the curve; every figure that is reported comes from all of them."""
OPEN_MM = 15.0
"""How far the image is continued on all sides when the open Dice is taken."""


@dataclass(frozen=True, eq=False)
class NoduleTask:
    """The nodules that one fold learns from, and those it is judged on."""

    manifest: DataManifest
    """All cases."""
    learned: tuple[Surroundable, ...]
    """Crops that are learned from."""
    judged: tuple[Nodule, ...]
    """Crops of other patients."""
    view: NoduleView
    """What the network is shown."""
    how: Augmentation
    """How samples vary."""
    entropy_weight: float = 0.3
    """Weight of the cross-entropy beside soft Dice."""
    size_power: float = 0.5
    """A nodule is drawn as often as its longest side to this power: large ones are few, and differ more."""
    _extents_mm: list[float] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        require_patients_apart((s.nodule.case for s in self.learned), (n.case for n in self.judged))
        self._extents_mm.extend(extent_mm(s.nodule) for s in self.learned)

    @property
    def in_channels(self) -> int:
        """Return the number of channels that the network is shown."""
        return self.view.channels

    def batch(self, size: int, rng: np.random.Generator) -> tuple[Tensor, ...]:
        """Return what the network is shown `(N, C, K, R, C)` and the truth `(N, 1, K, R, C)`, 0 to 1."""
        weights = np.power(self._extents_mm, self.size_power)
        chosen = rng.choice(len(self.learned), size=size, p=weights / weights.sum())
        drawn = [self._sample(int(i), rng) for i in chosen]
        shown, truth = (torch.from_numpy(np.stack(part)) for part in zip(*drawn, strict=True))
        return shown, truth[:, None]

    def _sample(self, index: int, rng: np.random.Generator) -> tuple[Array, Array]:
        view, source = self.view, self.learned[index]
        voxel_mm = view.voxels_mm[view.first]
        if rng.random() < FITTING_SHARE:
            voxel_mm = view.voxel_mm(self._extents_mm[index] * rng.uniform(0.8, 1.25))
        elif rng.random() > FIRST_SHARE:
            voxel_mm = view.voxels_mm[-1]
        hu, truth, distance = draw_sample(source, view.grid(voxel_mm), self.how, rng)
        return channels(view, hu, voxel_mm, source.nodule.spacing_mm, distance), truth

    def loss(self, output: Tensor, batch: tuple[Tensor, ...]) -> Tensor:
        """Return soft Dice loss plus cross-entropy per nodule voxel, each a mean over nodules of any size."""
        z, t = output.flatten(1), batch[1].flatten(1)
        p = torch.sigmoid(z)
        both, sizes, size = (p * t).sum(1), (p + t).sum(1), t.sum(1)
        entropy = functional.binary_cross_entropy_with_logits(z, t, reduction="none").sum(1) / (
            size + SIZE_OFFSET
        )
        return (1 - (2 * both + 1) / (sizes + 1)).mean() + self.entropy_weight * entropy.mean()

    def judge(self, network: torch.nn.Module) -> Mapping[str, float]:
        """Return mean Dice of unseen nodules at level 0.5 within the crop, and open: the crop continued by its edge.

        Nothing is returned where there is no unseen nodule.
        """
        if not self.judged:
            return {}
        run = as_function(network)
        within, wide = [], []
        for nodule in self.judged[:JUDGED_AT_MOST]:
            pad = [round(OPEN_MM / s) for s in nodule.spacing_mm]
            image = np.pad(nodule.image, [(n, n) for n in pad], mode="edge")
            point = np.asarray(nodule.centre) + pad
            p = draw([run], self.view, image, nodule.spacing_mm, point).probabilities(
                image.shape, nodule.spacing_mm
            )
            mask = nearest_piece(p > 0.5, point, nodule.spacing_mm)
            own = mask[tuple(slice(n, n + size) for n, size in zip(pad, nodule.mask.shape, strict=True))]
            both = 2.0 * np.count_nonzero(own & nodule.mask)
            within.append(both / (np.count_nonzero(own) + np.count_nonzero(nodule.mask)))
            wide.append(both / (np.count_nonzero(mask) + np.count_nonzero(nodule.mask)))
        return {"dice within": float(np.mean(within)), "dice open": float(np.mean(wide))}


def nodule_task(experiment: Experiment, fold: int, data: Path) -> NoduleTask:
    """Return the task of one fold of a folder of crops: of `training.lidc`, or any in the training form.

    The settings under `task` are `view`, `augmentation`, `entropy_weight`, `size_power` and `share`, the part of the
    other patients that is learned from (all, unless a learning curve is wanted). A split in the folder is heeded.
    Refuses `bad-experiment`, `few-cases` (nothing to learn from), and what `open_data` and `load_nodule` refuse.
    """
    opened = open_learnable(data)
    watched = (fold + 1) % FOLDS if experiment.inner else fold
    unseen, others = opened.to_watch(watched), opened.to_learn((fold, watched))
    settings: dict[str, Any] = dict(experiment.task)
    try:
        learned = part_of(others, float(settings.pop("share", 1.0)), experiment.seed)
    except (TypeError, ValueError) as error:
        raise _bad(experiment, error) from error
    if not learned:
        raise Refused("few-cases", f"without fold {fold} there is no case to learn from in {data}")
    return task_on(replace(experiment, task=settings), opened, learned, unseen)


def task_on(
    experiment: Experiment, opened: Data, learned: Sequence[Case], unseen: Sequence[Case]
) -> NoduleTask:
    """Return the task of learning from some cases of a data set, watched on others. Refuses `bad-experiment`."""
    settings: dict[str, Any] = dict(experiment.task)
    try:
        view = NoduleView.of(settings.pop("view"))
        how = Augmentation(**settings.pop("augmentation", {}))
        _require_in_patch(how, view)
        order = np.random.default_rng(0).permutation(len(unseen))
        return NoduleTask(
            manifest=opened.manifest,
            learned=tuple(surroundable(load_nodule(case, opened.root)) for case in learned),
            judged=tuple(load_nodule(unseen[i], opened.root) for i in order),
            view=view,
            how=how,
            **settings,
        )
    except (TypeError, KeyError, ValueError) as error:
        raise _bad(experiment, error) from error


def _require_in_patch(how: Augmentation, view: NoduleView) -> None:
    """Raise ValueError when the middle of a nodule could lie outside of the patch around its point."""
    reach_mm = (min(view.shape) - 1) / 2 * min(view.voxels_mm) * (1 - how.zoom)
    if how.jitter_mm > reach_mm:
        raise ValueError(
            f"augmentation.jitter_mm is {how.jitter_mm:g}, and the finest patch, stretched by augmentation.zoom, "
            f"reaches {reach_mm:g} mm from its middle; write no more than that"
        )


def _bad(experiment: Experiment, error: Exception) -> Refused:
    return Refused("bad-experiment", f"'task' of {experiment.name} is not as it has to be: {error}")


def extent_mm(nodule: Nodule) -> float:
    """Return the longest side of the box around a nodule, mm."""
    held = np.argwhere(nodule.mask)
    return float(((np.ptp(held, axis=0) + 1) * np.asarray(nodule.spacing_mm)).max())


def as_function(network: torch.nn.Module) -> Any:
    """Return a network as a function of float32 arrays `(N, C, K, R, C)`, bf16 inside; it is set to evaluate."""
    network.eval()

    def run(patches: Array) -> Array:
        given = torch.from_numpy(patches).contiguous(memory_format=torch.channels_last_3d)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            logits: Array = network(given).float().numpy()
        return logits

    return run
