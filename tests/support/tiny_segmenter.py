"""Nodule segmenters that need no training: one that takes what is bright, and a folder with an untrained network."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from models.files import Manifest
from models.nodule_passes import NoduleView
from models.nodule_segmenter import NAME, LearnedNoduleSegmenter
from models.shipped import Model

VIEW = NoduleView(
    shape=(32, 32, 32),
    voxels_mm=(0.65, 0.95, 1.4),
    fits_mm=(14.0, 22.0),
    first=1,
    windows_hu=((-1000.0, 400.0),),
    point_sigma_mm=3.0,
)
FACTOR = {"kind": "log", "alpha": 0.1, "edges": [], "quantiles": [0.5], "cases": [100]}
CARD: dict[str, Any] = {
    "name": NAME,
    "intended_use": "tests",
    "view": asdict(VIEW),
    "levels": [0.5],
    "mirrors": 2,
    "doubt": {"all": {"temperature": 2.0, "volume_mm3": FACTOR, "long_axis_mm": FACTOR}},
    "folds": [0, 1],
}


def bright(patches: np.ndarray) -> np.ndarray:
    """Stand in for a network: what is brighter than -300 HU is lesion."""
    return np.asarray(patches[:, :1] * 20, dtype=np.float32)


def bright_segmenter(**changed: Any) -> LearnedNoduleSegmenter:
    """Return a segmenter whose two networks take what is brighter than -300 HU."""
    manifest = Manifest(
        sha256="0" * 64,
        name=NAME,
        version="1",
        licence="-",
        training_data="-",
        input="-",
        expires=date(2100, 1, 1),
        files={},
    )
    model = Model(folder=Path("nowhere"), manifest=manifest, card={**CARD, **changed})
    return LearnedNoduleSegmenter(model=model, given=(bright, bright))


def pack(weights: Path) -> dict[str, str]:
    """Write an untrained network as the shipped nodule segmenter; return what vouches for it."""
    import torch
    from safetensors.torch import save_file

    from models.networks import build

    architecture = {"kind": "unet", "in_channels": 2, "out_channels": 1, "channels": [4, 8], "strides": [2]}
    folder = weights / NAME
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    save_file(build(architecture).state_dict(), folder / "fold0.safetensors")
    card = {**CARD, "architecture": architecture, "folds": [0]}
    (folder / "card.json").write_text(json.dumps(card))
    files = {
        name: {
            "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest(),
            "size_bytes": (folder / name).stat().st_size,
        }
        for name in ("card.json", "fold0.safetensors")
    }
    said = dict.fromkeys(("licence", "training_data", "input"), "-")
    text = json.dumps({"name": NAME, "version": "1", **said, "files": files})
    (folder / "manifest.json").write_text(text)
    return {NAME: hashlib.sha256(text.encode()).hexdigest()}


__all__ = ["CARD", "VIEW", "bright", "bright_segmenter", "pack"]
