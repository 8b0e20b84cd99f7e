"""What training makes small: overlap for masks, the Cox partial likelihood for survival, and both at once.

Tensors in, a scalar tensor out. Masks are logits and targets `(N, C, K, R, C)`; survival is a log hazard `(N,)`, a
duration `(N,)` and whether the event was seen `(N,)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Ties = Literal["efron", "breslow"]


def _exact(values: Tensor) -> Tensor:
    """Return at least float32: a sum over a patch has not enough digits in bfloat16."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def focal_tversky_of_counts(
    tp: Tensor,
    fp: Tensor,
    fn: Tensor,
    *,
    fp_weight: float = 0.3,
    fn_weight: float = 0.7,
    exponent: float = 0.75,
    smooth: float = 0.0,
) -> Tensor:
    """Return `(1 - TI) ** exponent` with TI = TP / (TP + fp_weight FP + fn_weight FN), elementwise, 0 to 1.

    Source: Tversky index as in Salehi 2017 (a miss costs more when `fn_weight` is the larger), focal exponent as in
    Abraham and Khan 2019. `smooth` is added above and below, so that nothing to find and nothing found costs 0.
    """
    index = (tp + smooth) / (tp + fp_weight * fp + fn_weight * fn + smooth)
    # The slope of x ** 0.75 is infinite at 0: a perfect mask would bring NaN into the weights.
    return (1.0 - index).clamp_min(1e-7) ** exponent


def focal_tversky(
    logits: Tensor,
    target: Tensor,
    *,
    fp_weight: float = 0.3,
    fn_weight: float = 0.7,
    exponent: float = 0.75,
    smooth: float = 1.0,
) -> Tensor:
    """Return the mean Focal Tversky loss over cases and channels of sigmoid masks; 1 for a mask that misses all."""
    p = torch.sigmoid(_exact(logits)).flatten(2)
    t = target.to(p.dtype).flatten(2)
    tp = (p * t).sum(-1)
    fp, fn = p.sum(-1) - tp, t.sum(-1) - tp
    weights = {"fp_weight": fp_weight, "fn_weight": fn_weight, "exponent": exponent}
    return focal_tversky_of_counts(tp, fp, fn, smooth=smooth, **weights).mean()


def cox(log_hazard: Tensor, duration: Tensor, event: Tensor, *, ties: Ties = "efron") -> Tensor:
    """Return the negative log partial likelihood per event; 0, with gradient 0, when no event was seen.

    All are `(N,)`. The risk set of an event holds everybody whose duration is at least the event's, so a batch has to
    hold people who outlive it: train full-batch or with `RiskSets`. Source: Cox 1972; ties by Efron 1977 or Breslow
    1974 (the same without ties).
    """
    seen = event.bool()
    if not bool(seen.any()):
        return log_hazard.sum() * 0.0
    order = torch.argsort(duration, descending=True, stable=True)
    risk, seen = _exact(log_hazard)[order], seen[order]
    _, group, size = torch.unique_consecutive(duration[order], return_inverse=True, return_counts=True)
    at_risk = torch.logcumsumexp(risk, 0)[size.cumsum(0) - 1][group[seen]]
    denominator = at_risk.sum()
    if ties == "efron":
        denominator = denominator + _efron(risk[seen], at_risk, group[seen], len(size))
    return (denominator - risk[seen].sum()) / seen.sum()


def _efron(risk: Tensor, at_risk: Tensor, group: Tensor, groups: int) -> Tensor:
    """Return what Efron's rule takes off: of d tied deaths the j-th (from 0) leaves j / d of them out of the set."""
    deaths = torch.bincount(group, minlength=groups)
    first = (deaths.cumsum(0) - deaths)[group]
    rank = torch.arange(len(group), device=group.device) - first
    top = risk.detach().new_full((groups,), -torch.inf).scatter_reduce(0, group, risk.detach(), "amax")
    summed = risk.new_zeros(groups).index_add(0, group, torch.exp(risk - top[group]))
    tied = top[group] + torch.log(summed[group])
    return torch.log1p(-(rank.to(risk) / deaths[group]) * torch.exp(tied - at_risk)).sum()


class RiskSets:
    """The last log hazard of every patient of the training set, so that a small batch has whole risk sets.

    `loss` puts a batch, with gradient, among the remembered values of all others, without. With values of one and the
    same network the gradients of the batches of one epoch add up to the full-batch gradient; in training the others'
    values lag by up to one epoch, which is the approximation made. Patients not yet seen are in no risk set.
    """

    def __init__(self, duration: Tensor, event: Tensor, *, ties: Ties = "efron") -> None:
        self.duration, self.event, self.ties = duration, event, ties
        self.log_hazard = torch.full(duration.shape, torch.nan)

    def loss(self, patients: Sequence[int] | Tensor, log_hazard: Tensor) -> Tensor:
        """Return `cox` over all patients seen so far; `patients` are their places `(N,)`, none of them twice."""
        here = torch.as_tensor(patients)
        if len(set(here.tolist())) != len(here):
            raise ValueError("a patient is in the batch twice: a risk set holds each of them once")
        self.log_hazard[here] = log_hazard.detach().to(self.log_hazard)
        known = ~torch.isnan(self.log_hazard)
        everybody = self.log_hazard.to(log_hazard).index_put((here,), log_hazard)[known]
        duration, event = self.duration[known].to(everybody.device), self.event[known].to(everybody.device)
        return cox(everybody, duration, event, ties=self.ties)

    def null(self) -> Tensor:
        """Return what a network that tells nobody apart pays over all patients."""
        return cox(torch.zeros_like(self.log_hazard), self.duration, self.event, ties=self.ties)


@dataclass(frozen=True, kw_only=True)
class Multitask:
    """Segmentation and survival in one number, each divided by what a network that knows nothing pays.

    Focal Tversky is 1 for a mask that finds nothing; the Cox loss is `null_cox` when all hazards are alike (`RiskSets.
    null`). Only then do 60 and 40 per cent mean what they say: unscaled, the Cox loss is log(number at risk).
    """

    null_cox: float
    segmentation_weight: float = 0.6

    def __call__(self, segmentation: Tensor, survival: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Return the loss, and for the log the total, both parts as they were and both as they count."""
        scaled = survival / max(self.null_cox, 1e-6)
        mask, hazard = self.segmentation_weight * segmentation, (1.0 - self.segmentation_weight) * scaled
        total = mask + hazard
        parts = {"total": total, "segmentation": segmentation, "cox": survival, "cox_scaled": scaled}
        shares = {"segmentation_share": mask, "cox_share": hazard}
        return total, {name: float(value.detach()) for name, value in (parts | shares).items()}
