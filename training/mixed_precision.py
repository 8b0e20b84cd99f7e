"""Learning with bfloat16 on CPUs, without the convolutions whose slopes oneDNN gets wrong there."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_Convolution = torch.nn.Conv3d | torch.nn.ConvTranspose3d


def keep_small_grids_exact(network: torch.nn.Module) -> None:
    """Let every convolution of a network run in float32 where its kernel is larger than the grid it is shown.

    There oneDNN's bfloat16 slopes of the weights (PyTorch 2.13, AVX-512) hold memory that nobody has written, and some
    kernels write beyond their own: measured on grids of 1 to 8 with kernels of 1, 2, 3, 5 and 7, all of those that were
    wrong have a side shorter than the kernel. What a convolution computes forward is right in either form.
    """
    for part in network.modules():
        if isinstance(part, _Convolution):
            part.forward = _exact_where_small(part)  # type: ignore[assignment, method-assign]


def _exact_where_small(convolution: _Convolution) -> Callable[[Tensor], Tensor]:
    forward = convolution.forward

    def exact(shown: Tensor) -> Tensor:
        if all(side >= kernel for side, kernel in zip(shown.shape[2:], convolution.kernel_size, strict=True)):
            return forward(shown)
        with torch.autocast(shown.device.type, enabled=False):
            return forward(shown.float())

    return exact
