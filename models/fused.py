"""The same network with fewer and quicker steps, for inference: what it answers is the same but for rounding.

Normalisation goes into the convolution before it. A transposed convolution of stride 1 becomes the convolution that it
is, and one whose kernel is as long as its stride becomes a convolution of single voxels whose channels are laid out in
space: for both, runtimes have quick kernels (bf16, 8 bits), which they have not for every transposed one.
"""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fused(network: nn.Module) -> nn.Module:
    """Return a copy of a network of `models.networks` for inference only; same input, same output."""
    network = copy.deepcopy(network).eval()
    for module in list(network.modules()):
        _absorb_normalisation(module)
    for module in list(network.modules()):
        for name, part in list(module.named_children()):
            if isinstance(part, nn.ConvTranspose3d):
                setattr(module, name, _plain(part))
    return network


def _absorb_normalisation(module: Any) -> None:
    """Put the BatchNorm of MONAI's `Convolution` (`conv`, then `adn`, whose first part `N` is) into its convolution."""
    conv, adn = getattr(module, "conv", None), getattr(module, "adn", None)
    norm = getattr(adn, "N", None)
    if (
        isinstance(adn, nn.Module)
        and isinstance(conv, nn.Conv3d | nn.ConvTranspose3d)
        and isinstance(norm, nn.BatchNorm3d)
        and next(iter(adn.children())) is norm
    ):
        module.conv = fuse_conv_bn_eval(conv, norm, transpose=isinstance(conv, nn.ConvTranspose3d))
        adn.N = nn.Identity()


def _plain(transposed: nn.ConvTranspose3d) -> nn.Module:
    """Return what a transposed convolution is where it is something plainer; else itself."""
    ones, nought = (1, 1, 1), (0, 0, 0)
    if transposed.groups != 1 or transposed.dilation != ones or transposed.output_padding not in (nought, 0):
        return transposed
    if transposed.stride == ones:
        return _convolution(transposed)
    if transposed.stride == transposed.kernel_size and transposed.padding in (nought, 0):
        return _Spread(transposed)
    return transposed


def _convolution(transposed: nn.ConvTranspose3d) -> nn.Conv3d:
    kernel: Any = transposed.kernel_size
    padding: Any = transposed.padding
    k, r, c = (size - 1 - given for size, given in zip(kernel, padding, strict=True))
    conv = nn.Conv3d(
        transposed.in_channels,
        transposed.out_channels,
        kernel,
        padding=(k, r, c),
        bias=transposed.bias is not None,
    )
    turned = transposed.weight.detach().transpose(0, 1).flip(2, 3, 4)
    return _with(conv, turned, transposed.bias)


class _Spread(nn.Module):
    """A transposed convolution whose blocks do not overlap: each voxel gives a block of voxels."""

    def __init__(self, transposed: nn.ConvTranspose3d) -> None:
        super().__init__()
        k, r, c = transposed.kernel_size
        self.out_channels, self.block = transposed.out_channels, (k, r, c)
        many = self.out_channels * k * r * c
        conv = nn.Conv3d(transposed.in_channels, many, 1, bias=transposed.bias is not None)
        weight = transposed.weight.detach().flatten(1).T.reshape(many, -1, 1, 1, 1)
        bias = None if transposed.bias is None else transposed.bias.repeat_interleave(k * r * c)
        self.conv = _with(conv, weight, bias)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        (k, r, c), (K, R, C) = self.block, y.shape[2:]  # noqa: N806
        y = y.reshape(-1, self.out_channels, k, r, c, K, R, C).permute(0, 1, 5, 2, 6, 3, 7, 4)
        return y.reshape(-1, self.out_channels, K * k, R * r, C * c)


def _with(conv: nn.Conv3d, weight: Tensor, bias: Tensor | None) -> nn.Conv3d:
    conv.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
    conv.bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)
    return conv.eval()


__all__ = ["fused"]
