"""How sure a link is, 0 to 1, from what it costs and from what would have been almost as good.

The numbers are logistic regressions on synthetic pairs of examinations (`training.pairs`; 160 pairs of seeds that no
figure is told of) with true masks. Their expected places were thrown off by 0 to 8 mm (one standard deviation along an
axis), in part all together, and 8 % of the lesions that stayed were taken away and others put 10 to 30 mm beside: there
96 % of 11 500 links and 93 % of 3 200 lesions that were called new were right, and of each tenth of confidence about as
many as it says. They know nothing of lesions that a segmentation missed or made up, nor of a registration that failed:
who knows these multiplies.
"""

from __future__ import annotations

from math import exp

FAR = 1.5
"""What costs so much more than it may is no rival."""
SAME = (2.8, -2.2, 1.2, -0.34)
NEW = (0.35, 0.9, 2.5)
MOST = 0.99
"""No automatic link is surer."""
UNSEEN = 0.8
"""How sure it is that a lesion which has no finding is not there, when nobody looked at its place."""


OVERRUN = 0.6
"""How sure it is at most that a lesion is new which covers the place of an earlier one: it may be a part of that one,
drawn too large (of 3 among 33 that were called new on pairs of other seeds with learned drawings, 1 was)."""


def of_link(cost: float, rival: float, sd_mm: float) -> float:
    """Return how sure a link to an earlier lesion is.

    `cost` is that of the link, `rival` that of the cheapest other link of either; both less what a link may cost.
    `sd_mm` is how uncertain the expected place is, one standard deviation along an axis.
    """
    return _logistic(SAME, min(cost, 0.0), min(rival, FAR), sd_mm)


def of_alone(free: float, nearest: float) -> float:
    """Return how sure it is that a lesion has no counterpart at the other time.

    `free` is the cost of the cheapest link to a lesion that has none either, `nearest` that to any, both less what a
    link may cost.
    """
    return _logistic(NEW, min(free, FAR), min(nearest, FAR))


def of_gone(alone: float, in_view: float, visible: float | None) -> float:
    """Return how sure it is that an earlier lesion without counterpart (sure by `alone`) is no longer there."""
    return alone * in_view * (UNSEEN if visible is None else 1 - visible)


def _logistic(weights: tuple[float, ...], *values: float) -> float:
    return min(
        1 / (1 + exp(-(weights[0] + sum(w * v for w, v in zip(weights[1:], values, strict=True))))), MOST
    )


__all__ = ["of_alone", "of_gone", "of_link"]
