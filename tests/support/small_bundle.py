"""A real MONAI bundle whose network is a threshold, so that its answer is known in closed form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

LEVEL_HU = -200.0


def write_bundle(folder: Path, *, pixdim: tuple[float, float, float] | None = None, **changes: Any) -> Path:
    """Write a bundle that calls what is above -200 HU `lung tumour`; with `pixdim` it works on a grid of its own."""
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    metadata = {
        "name": "Threshold",
        "version": "1.2.3",
        "intended_use": "tests",
        "network_data_format": {
            "inputs": {"image": {"type": "image", "num_channels": 1}},
            "outputs": {"pred": {"channel_def": {"0": "background", "1": "lung tumour"}}},
        },
    }
    spacing = (
        [{"_target_": "Spacingd", "keys": "image", "pixdim": list(pixdim), "mode": "bilinear"}]
        if pixdim
        else []
    )
    inference: dict[str, Any] = {
        "bundle_root": ".",
        "output_dir": "$@bundle_root + '/eval'",
        "device": "$torch.device('cpu')",
        "imports": ["$import torch"],
        "network_def": {
            "_target_": "torch.nn.Conv3d",
            "in_channels": 1,
            "out_channels": 2,
            "kernel_size": 1,
        },
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image"},
                {"_target_": "EnsureChannelFirstd", "keys": "image"},
                {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS", "labels": None},
                *spacing,
                {"_target_": "EnsureTyped", "keys": "image"},
            ],
        },
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [48, 48, 48], "overlap": 0.25},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Activationsd", "keys": "pred", "softmax": True},
                {
                    "_target_": "Invertd",
                    "keys": "pred",
                    "transform": "@preprocessing",
                    "orig_keys": "image",
                    "nearest_interp": False,
                    "to_tensor": True,
                },
                {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
                {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir"},
            ],
        },
        **changes,
    }
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    (folder / "configs" / "inference.json").write_text(json.dumps(inference))
    network = torch.nn.Conv3d(1, 2, 1)
    with torch.no_grad():
        network.weight[:] = torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1, 1)
        network.bias[:] = torch.tensor([0.0, -LEVEL_HU])
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    return folder
