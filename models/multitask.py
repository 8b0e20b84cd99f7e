"""A U-Net with a second task: mask from its decoder, hazard from its deepest features; the encoder is shared."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Pooling = Literal["mean", "attention"]
BEGIN_LOGIT = -3.0
FAINTEST = 1e-3
"""Added before the logarithm of a pooled feature: what a field of view without lesion gives."""


class Multitask(nn.Module):
    """MONAI's U-Net, walked step by step so that its deepest features can be read, and a Cox head on them.

    Output `(N, 2, K, R, C)`: channel 0 the logits of the mask, channel 1 the log hazard, the same number everywhere, so
    that whatever runs a segmenter runs this one too. With `gates`, each skip connection passes an additive attention
    gate (Oktay 2018). Every number of `channels` is the width of one level.
    """

    def __init__(
        self,
        unet: Any,
        channels: list[int],
        *,
        hidden: int = 32,
        pooling: Pooling = "mean",
        gates: bool = False,
    ) -> None:
        super().__init__()
        if pooling not in ("mean", "attention"):
            raise ValueError(f"pooling is 'mean' or 'attention', not {pooling!r}")
        self.unet = unet.model
        _begin_with_nothing(self.unet)
        self.head = CoxHead(channels[-1], hidden, pooling)
        self.gates = (
            nn.ModuleList(_gate(width, below) for width, below in _levels(channels)) if gates else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return mask logits and log hazard of inputs `(N, C, K, R, C)`, as `(N, 2, K, R, C)`."""
        deepest, mask = self._walk(self.unet, x, 0)
        with torch.autocast(x.device.type, enabled=False):
            log_hazard = self.head(deepest.float())
        return torch.cat([mask.float(), log_hazard[:, None, None, None, None].expand_as(mask)], dim=1)

    def _walk(self, level: Any, x: Tensor, depth: int) -> tuple[Tensor, Tensor]:
        """Return the deepest features and what comes up from one level."""
        down, skip, up = level
        passed = down(x)
        inner = skip.submodule
        if isinstance(inner, nn.Sequential) and len(inner) == 3 and hasattr(inner[1], "submodule"):
            deepest, below = self._walk(inner, passed, depth + 1)
        else:
            deepest = below = inner(passed)
        if self.gates is not None:
            passed = self.gates[depth](g=below, x=passed)
        return deepest, up(torch.cat([passed, below], dim=1))


class CoxHead(nn.Module):
    """Log hazard `(N,)` from features `(N, C, K, R, C)`.

    Each of `hidden` features is pooled twice: the logarithm of its mean tells how much there is of it in the field of
    view (a volume), its maximum how strong it is anywhere. With `attention`, a third time: a mean weighted by a softmax
    that is learned.
    """

    def __init__(self, width: int, hidden: int, pooling: Pooling) -> None:
        super().__init__()
        self.features = nn.Conv3d(width, hidden, 1)
        self.attention = nn.Conv3d(width, 1, 1) if pooling == "attention" else None
        pooled = hidden * (2 if self.attention is None else 3)
        self.risk = nn.Sequential(nn.Linear(pooled, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, deepest: Tensor) -> Tensor:
        """Return the log hazard `(N,)`."""
        evidence = functional.softplus(self.features(deepest)).flatten(2)
        amount = torch.log(evidence.mean(-1) + FAINTEST) - math.log(FAINTEST) / 2
        parts = [amount, evidence.amax(-1)]
        if self.attention is not None:
            weight = torch.softmax(self.attention(deepest).flatten(2), dim=-1)
            parts.append((evidence * weight).sum(-1))
        risk: Tensor = self.risk(torch.cat(parts, dim=1))
        return risk[:, 0]


def _begin_with_nothing(unet: Any) -> None:
    """Let the mask begin as nearly empty: half a field of view of lesion costs many steps."""
    last = [part for part in unet[-1].modules() if isinstance(part, nn.Conv3d | nn.ConvTranspose3d)][-1]
    if last.bias is not None:
        nn.init.constant_(last.bias, BEGIN_LOGIT)


def _levels(channels: list[int]) -> list[tuple[int, int]]:
    """Return the width of each level but the deepest, and the width of what comes up to it."""
    ups = [*channels[:-2], channels[-1]]
    return list(zip(channels[:-1], ups, strict=True))


def _gate(width: int, below: int) -> nn.Module:
    from monai.networks.nets.attentionunet import AttentionBlock

    return AttentionBlock(spatial_dims=3, f_int=max(1, width // 2), f_g=below, f_l=width)
