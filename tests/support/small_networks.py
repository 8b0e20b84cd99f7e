"""Small networks with weights drawn at random, normalisation that does something, and patches for them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from models.export import Learned
from models.networks import build

UNET: dict[str, object] = {
    "kind": "unet",
    "in_channels": 2,
    "out_channels": 1,
    "channels": [4, 8, 8],
    "strides": [1, 2],
    "num_res_units": 1,
    "stem": 2,
    "dropout": 0.1,
}
Array = NDArray[np.float32]


def learned(architecture: dict[str, object] = UNET, *, seed: int = 0) -> Learned:
    """Return a network as its card and weights would describe it, for patches `(2, 16, 16, 16)`."""
    torch.manual_seed(seed)
    network = build(architecture)
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm3d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
            part.weight.data.uniform_(0.5, 2)
            part.bias.data.normal_()
    weights = {name: value.numpy() for name, value in network.state_dict().items()}
    return Learned(architecture=architecture, patch=(2, 16, 16, 16), weights=weights)


def patches(count: int = 2) -> Array:
    """Return patches between -1 and 1, `(count, 2, 16, 16, 16)`."""
    return np.random.default_rng(0).uniform(-1, 1, (count, 2, 16, 16, 16)).astype(np.float32)


def answered(network: torch.nn.Module, shown: Array) -> Array:
    """Return what a network answers, as an array."""
    with torch.inference_mode():
        return network(torch.from_numpy(shown)).numpy()


__all__ = ["UNET", "answered", "learned", "patches"]
