"""Model folders as retraining leaves them: a small nodule segmenter with weights drawn at random, and its card."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tiny_segmenter import CARD

from models.nodule_segmenter import NAME
from models.shipped import VOUCHED
from store.database import Database
from store.model_folders import stage
from store.model_tables import ModelVersion
from store.registry import Judged, register
from training.ship import About, write_manifest

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
UNET: dict[str, Any] = {
    "kind": "unet",
    "in_channels": 2,
    "out_channels": 1,
    "channels": [4, 8],
    "strides": [2],
}


def write_model(folder: Path, seed: int, *, runs: bool = False, family: str = NAME, **card: Any) -> str:
    """Write a model with weights of its own and its hash; with `runs` they fit a network."""
    folder.mkdir(parents=True)
    about = About(
        name=family,
        version=f"1.{seed}.0",
        licence="Apache-2.0",
        training_data="Balls.",
        input="CT in HU.",
        intended_use="Tests.",
    )
    weights = _network(seed) if runs else {"w": np.full(4, seed, dtype=np.float32)}
    save_file(weights, folder / "fold0.safetensors")
    made = {"commit": "c" * 40, "environment": {"torch": "2.13.0"}, "begun": "2026-11-20", "seed": seed}
    said = {
        **CARD,
        "architecture": UNET,
        "folds": [0],
        "experiment": {"model": family},
        "trained": {"0": made},
        **card,
    }
    (folder / "card.json").write_text(json.dumps(said))
    return write_manifest(folder, about, ["fold0.safetensors"])


def register_model(
    database: Database,
    home: Path,
    seed: int,
    *,
    champion: str | None = None,
    proposed: bool = True,
    **how: Any,
) -> ModelVersion:
    """Register a model that was judged against `champion`, the shipped one when not given."""
    folder = home / f"made-{seed}"
    write_model(folder, seed, **how)
    family = how.get("family", NAME)
    staged = stage(home, family, folder)
    judged = Judged(
        champion_sha256=VOUCHED.get(family, "") if champion is None else champion,
        is_proposed=proposed,
        because="It is better. It is worse in nothing."
        if proposed
        else "It is worse for nodules below 6 mm.",
        data_sha256="d" * 64,
        judged_sha256="e" * 64,
        figures={"dice": 0.8},
    )
    with database.transaction() as session:
        return register(session, staged, judged, now=NOON)


def _network(seed: int) -> dict[str, Any]:
    import torch

    from models.networks import build

    torch.manual_seed(seed)
    return {name: value.numpy() for name, value in build(UNET).state_dict().items()}


__all__ = ["NOON", "register_model", "write_model"]
