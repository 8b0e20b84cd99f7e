"""How a model is retrained: what the settings of a node say of it, as the run and its documents use it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from training.margins import Margins

FAMILIES = ("nodule_segmenter", "petct_multitask")
"""The families of models that can be retrained here."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that a run of retraining depends on but the labels and the champion."""

    family: str
    """Which model by its purpose: one of `FAMILIES`."""
    fewest_new_labels: int = 20
    """Labels to learn from that no earlier run had; with fewer nothing is trained."""
    steps: int = 600
    """Steps of the optimiser, each fold."""
    batch: int = 8
    """Samples in a step."""
    learning_rate: float = 3e-4
    """Highest learning rate: a tenth of what the models of the release began with, so that little is forgotten."""
    seed: int = 0
    """Seed of order, augmentation and of the draws of the gate."""
    replay: tuple[Path, ...] = ()
    """Folders of curated data sets that are learned from again beside the labels, so that they are not forgotten; of
    each the cases that have the images and masks of the family."""
    replay_share: float = 0.5
    """Part of the samples that comes from those, 0 to below 1."""
    margins: Margins = field(default_factory=Margins)
    """Limits of the gate."""
    threads: int = 1
    """Threads of torch."""


__all__ = ["FAMILIES", "Recipe"]
