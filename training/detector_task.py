"""Learning to tell nodules from everything else that looks like a blob: one fold leaves out patients and a scan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from models.nodule_detector import DetectorView, Search
from plugins.errors import Refused
from training.detector_samples import (
    Searched,
    Source,
    negative,
    positive,
    searched,
    set_in_negative,
    source_of,
)
from training.experiment import Experiment
from training.lidc import load_nodule
from training.manifest import DataManifest
from training.nodules_in_scans import is_crop, nodules_in_scans
from training.scans import Scan, load_scan, present, thickened

Array = NDArray[np.float32]
Bytes = NDArray[np.uint8]
JUDGED = 300
"""Samples of each class behind one point of the curve."""
THICKER, THICKEST_MM = (2, 3, 5), 6.0
"""How many slices are made one, and how thick that may become."""
SET_IN_SHARE = 0.35
"""Part of the others that are pieces without nodule, set in; the rest are candidates of scans."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Material:
    """Everything that samples are made of, of all folds."""

    manifest: DataManifest
    """The crops, in the folds of their patients, and the scans, each in a fold of its own."""
    sources: tuple[Source, ...]
    """The crops."""
    scans: tuple[Searched, ...]
    """The scans, each with slices of several thicknesses."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pool:
    """Samples that were made beforehand, in bytes over the window."""

    nodules: Bytes
    """`(N, C, K, R, C)`."""
    others: Bytes
    """`(N, C, K, R, C)`."""


@dataclass(frozen=True, eq=False)
class DetectorTask:
    """The samples that one fold learns from, and some that it is looked at with while it learns."""

    manifest: DataManifest
    """All cases."""
    learned: Pool
    """Samples that are learned from."""
    judged: Pool
    """Samples of the fold that is left out."""
    view: DetectorView
    """What the network is shown."""
    shift_hu: float = 40.0
    """Added to all values of a sample, at most."""
    noise_hu: float = 30.0
    """Standard deviation of the noise that every other sample gets, at most."""
    nodule_share: float = 0.4
    """Part of a batch that are nodules."""
    smoothing: float = 0.02
    """How far targets are from 0 and 1."""

    @property
    def in_channels(self) -> int:
        """Return one channel for each voxel size."""
        return self.view.channels

    def batch(self, size: int, rng: np.random.Generator) -> tuple[Tensor, ...]:
        """Return patches `(N, C, K, R, C)` and targets `(N, 1)`."""
        count = round(size * self.nodule_share)
        drawn = [
            self.learned.nodules[rng.integers(0, len(self.learned.nodules), count)],
            self.learned.others[rng.integers(0, len(self.learned.others), size - count)],
        ]
        shown = np.stack([self._varied(patch, rng) for patch in _floats(np.concatenate(drawn))])
        target = np.r_[np.ones(count), np.zeros(size - count)].astype(np.float32)[:, None]
        return torch.from_numpy(shown), torch.from_numpy(target)

    def _varied(self, patch: Array, rng: np.random.Generator) -> Array:
        """Return a patch mirrored, turned in plane by right angles, shifted and made noisy."""
        for axis in (1, 2, 3):
            if rng.random() < 0.5:
                patch = np.flip(patch, axis)
        if rng.random() < 0.5:
            patch = patch.swapaxes(2, 3)
        half = (self.view.window_hu[1] - self.view.window_hu[0]) / 2
        patch = patch + np.float32(rng.uniform(-1, 1) * self.shift_hu / half)
        if rng.random() < 0.5:
            noise = rng.standard_normal(patch.shape, dtype=np.float32)
            patch = patch + noise * np.float32(rng.uniform(0, self.noise_hu / half))
        return np.clip(patch, -1, 1)

    def loss(self, output: Tensor, batch: tuple[Tensor, ...]) -> Tensor:
        """Return the cross-entropy against smoothed targets."""
        target = batch[1] * (1 - 2 * self.smoothing) + self.smoothing
        return functional.binary_cross_entropy_with_logits(output, target)

    def judge(self, network: torch.nn.Module) -> Mapping[str, float]:
        """Return AUC and sensitivity at 1 % false positives on samples of unseen patients in an unseen scan."""
        network.eval()
        nodules, others = (_asked(network, part) for part in (self.judged.nodules, self.judged.others))
        above = (nodules[:, None] > others[None]).mean() + 0.5 * (nodules[:, None] == others[None]).mean()
        level = np.quantile(others, 0.99)
        return {"auc": float(above), "sensitivity at 1 %": float((nodules > level).mean())}


def detector_task(experiment: Experiment, fold: int, data: Path) -> DetectorTask:
    """Return the task of one fold of the crops and scans in a folder (`lidc_nodules` and some of `training.scans`).

    The settings under `task` are `view`, `search`, `nodules` and `others` (how many samples are made of each) and those
    of `DetectorTask`. Refuses `bad-experiment` and `no-scan` (fewer than two scans).
    """
    try:
        search = Search.of(experiment.task["search"])
        return task_of_material(material(data, search), experiment, fold)
    except (TypeError, KeyError, ValueError) as error:
        raise Refused(
            "bad-experiment", f"'task' of {experiment.name} is not as it has to be: {error}"
        ) from error


def task_of_material(held: Material, experiment: Experiment, fold: int) -> DetectorTask:
    """Return the task of one fold: neither its patients nor its scan are learned from."""
    settings: dict[str, Any] = dict(experiment.task)
    settings.pop("search")
    view = DetectorView.of(settings.pop("view"))
    counts = int(settings.pop("nodules")), int(settings.pop("others"))
    fold_of = {case.patient_id: case.fold for case in held.manifest.cases}
    crops = {s: fold_of[s.patient_id] == fold for s in held.sources}
    scans = {s: fold_of[s.scan.name] == fold for s in held.scans}
    learned = [s for s, out in crops.items() if not out], [s for s, out in scans.items() if not out]
    unseen = [s for s, out in crops.items() if out], [s for s, out in scans.items() if out]
    seed = [experiment.seed, fold]
    return DetectorTask(
        manifest=held.manifest,
        learned=_pool(*learned, view, counts, np.random.default_rng([*seed, 0])),
        judged=_pool(*unseen, view, (JUDGED, JUDGED * 3), np.random.default_rng([*seed, 1]), 0.0),
        view=view,
        **settings,
    )


def material(data: Path, search: Search) -> Material:
    """Return crops and scans of a folder. Refuses `no-scan` when it holds fewer than two scans."""
    manifest = nodules_in_scans(data)
    nodules = (load_nodule(case, data).upright() for case in manifest.cases if is_crop(case))
    scans = (load_scan(name, data) for name in present(data))
    return Material(
        manifest=manifest,
        sources=tuple(source_of(nodule, search) for nodule in nodules),
        scans=tuple(searched(one, search) for scan in scans for one in as_sliced(scan)),
    )


def as_sliced(scan: Scan) -> tuple[Scan, ...]:
    """Return a scan at its own slices and at each multiple of `THICKER` that is no thicker than `THICKEST_MM`."""
    most = THICKEST_MM / scan.spacing_mm[0]
    return (scan, *(thickened(scan, count) for count in THICKER if count <= most))


def _pool(
    crops: Sequence[Source],
    scans: Sequence[Searched],
    view: DetectorView,
    counts: tuple[int, int],
    rng: np.random.Generator,
    set_in_share: float = SET_IN_SHARE,
) -> Pool:
    nodules = [_bytes(positive(crops, scans, view, rng)) for _ in range(counts[0])]
    others = []
    for number in range(counts[1]):
        if number < counts[1] * set_in_share:
            others.append(_bytes(set_in_negative(crops, scans, view, rng)))
        else:
            others.append(_bytes(negative(scans, view, rng)))
    return Pool(nodules=np.stack(nodules), others=np.stack(others))


def _bytes(patch: Array) -> Bytes:
    return np.asarray(np.rint((patch + 1) * 127.5), dtype=np.uint8)


def _floats(patches: Bytes) -> Array:
    return patches.astype(np.float32) / np.float32(127.5) - np.float32(1)


def _asked(network: torch.nn.Module, patches: Bytes) -> NDArray[np.float64]:
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        parts = [
            network(torch.from_numpy(_floats(patches[n : n + 64]))).float()
            for n in range(0, len(patches), 64)
        ]
    return np.asarray(torch.cat(parts)[:, 0].double().numpy())


__all__ = ["DetectorTask", "Material", "as_sliced", "detector_task", "material", "task_of_material"]
