"""What a network looked at, as arrays on the patch: Grad-CAM, and the slope of its answer with the input.

Both show where the answer came from, not whether it is right. Classifiers `(N, O)` and segmenters `(N, O, K, R, C)`
alike; whoever calls draws the pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Array = NDArray[np.float32]


def grad_cam(network: torch.nn.Module, patch: Array, *, layer: str | None = None, output: int = 0) -> Array:
    """Return what speaks for an output, 0 to 1, `(K, R, C)`, for a patch `(C, K, R, C)`; all 0 when nothing does.

    The channels of a layer, each times the mean slope of the answer with it, are summed, cut at 0, brought to the
    grid of the patch linearly and divided by their maximum. `layer` is the name of a module; by default the last one
    on the coarsest grid that still has more than one voxel. Raises ValueError when the layer gives no volume.
    Source: Selvaraju 2017; for masks Vinogradova 2020.
    """
    import torch
    from torch.nn import functional

    volumes: dict[str, torch.Tensor] = {}
    names = {module: name for name, module in network.named_modules()}

    def keep(module: torch.nn.Module, _: object, given: object) -> None:
        if isinstance(given, torch.Tensor) and given.ndim == 5 and given[0, 0].numel() > 1:
            volumes.pop(names[module], None)
            volumes[names[module]] = given

    hooks = [module.register_forward_hook(keep) for module in names]
    try:
        with _at_inference(network):
            answer = _answer(network, _input(network, patch), output)
    finally:
        for hook in hooks:
            hook.remove()
    if not volumes or (layer is not None and layer not in volumes):
        raise ValueError(
            f"the layer {layer or '(any)'} of the network gives no volume of more than one voxel"
        )
    if layer is None:
        coarsest = min(given[0, 0].numel() for given in volumes.values())
        layer = [name for name, given in volumes.items() if given[0, 0].numel() == coarsest][-1]
    given = volumes[layer]
    (slope,) = torch.autograd.grad(answer, given)
    spoken = (slope.mean(dim=(2, 3, 4), keepdim=True) * given).sum(1, keepdim=True).clamp_min(0.0).detach()
    full = functional.interpolate(spoken, patch.shape[1:], mode="trilinear", align_corners=False)[0, 0]
    heat: Array = (full / full.max().clamp_min(1e-12)).cpu().numpy()
    return heat


def saliency(network: torch.nn.Module, patch: Array, *, output: int = 0) -> Array:
    """Return how strongly an output depends on each voxel of a patch, both `(C, K, R, C)`: the size of its slope.

    In logits per unit of the input. For a mask the answer is the sum of the logits of what is drawn. Source:
    Simonyan 2014.
    """
    import torch

    x = _input(network, patch)
    with _at_inference(network):
        (slope,) = torch.autograd.grad(_answer(network, x, output), x)
    size: Array = slope[0].abs().cpu().numpy()
    return size


def _input(network: torch.nn.Module, patch: Array) -> torch.Tensor:
    import torch

    return torch.from_numpy(patch)[None].to(next(network.parameters()).device).requires_grad_()


def _answer(network: torch.nn.Module, x: torch.Tensor, output: int) -> torch.Tensor:
    """Return what is asked about: a class's logit, or the logits of a mask's voxels together (its best if none)."""
    logits: torch.Tensor = network(x)[0, output]
    drawn = logits[logits > 0]
    return drawn.sum() if logits.ndim and drawn.numel() else logits.max()


@contextmanager
def _at_inference(network: torch.nn.Module) -> Iterator[None]:
    """Switch dropout and batch statistics off meanwhile."""
    training = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, was in training.items():
            module.training = was
