"""The limits of the gate. Each says in its own words what it asks, and the protocol of a model prints those words."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any


def _limit(default: float, says: str) -> Any:
    """Return a field with its default and the sentence that tells it; `{}` stands for the value."""
    return field(default=default, metadata={"says": says})


@dataclass(frozen=True, kw_only=True)
class Margins:
    """What a challenger has to reach and may not exceed. Differences are challenger minus champion, of the same case.

    The words of each field are in its metadata (`sentences`). Refuses (ValueError) what no limit can be.
    """

    fewest_patients: int = _limit(
        20, "At least {} patients are on the hold-out; with fewer nothing is proposed."
    )
    fewest_cases: int = _limit(20, "At least {} cases are on the hold-out; with fewer nothing is proposed.")
    level: float = _limit(0.95, "Intervals hold the true difference with a probability of {}.")
    resamples: int = _limit(
        2000, "Intervals come from {} draws of patients with replacement, all cases of a patient together."
    )
    dice_gain: float = _limit(
        0.005,
        "The mean Dice on lesions that people drew rises by at least {}, and beyond chance: the lower end of its "
        "interval is above 0, and so it is by Student's t.",
    )
    long_axis_mm: float = _limit(
        0.5,
        "The mean absolute error of the long axis rises by less than {} mm, by the upper end of its interval.",
    )
    volume_bias: float = _limit(
        0.1,
        "The size of the mean relative error of the volume rises by less than {} (1 is the true volume), by the upper "
        "end of its interval.",
    )
    hd95_mm: float = _limit(
        1.0,
        "The mean HD95 rises by less than {} mm, by the upper end of its interval, where both drew something.",
    )
    lesions_lost: int = _limit(
        0, "At most {} lesions that the champion met are missed by the challenger (Dice 0)."
    )
    group_patients: int = _limit(8, "A group of cases is judged from {} patients on.")
    group_dice: float = _limit(
        0.02,
        "The mean Dice of no group falls by more than {}, nor is any fall beyond chance (Holm over all groups).",
    )
    group_long_axis_mm: float = _limit(
        1.0, "The mean absolute error of the long axis of no group rises by more than {} mm."
    )
    group_all_worse: int = _limit(
        3,
        "In a group too small to be judged, but of {} patients or more, it is refused that more than two thirds of "
        "them become worse, on the mean beyond the margin of a group.",
    )
    approved_border: float = _limit(
        0.05,
        "Of the border of lesions that people approved as they were drawn, the part that is more than 2 mm off rises "
        "by less than {}, by the upper end of its interval, and in no group by more.",
    )
    approved_long_axis_mm: float = _limit(
        1.5,
        "On these the mean absolute difference of the long axis rises by less than {} mm, by the upper end of its "
        "interval.",
    )
    ece: float = _limit(
        0.02,
        "The calibration error within 5 mm of the lesions rises by less than {}, by the upper end of its interval.",
    )
    coverage: float = _limit(
        0.1,
        "The share of intervals that hold the true volume, or the true long axis, falls by at most {}, and not beyond "
        "chance.",
    )
    latency_ratio: float = _limit(
        1.25,
        "The challenger takes at most {} times as long as the champion, by the median over cases put to both in turn.",
    )

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"{one.name} is a number, not {value!r}")
            if value < 0:
                raise ValueError(f"{one.name} is 0 or more, not {value}")
            if isinstance(one.default, int) and value != int(value):
                raise ValueError(f"{one.name} is a whole number, not {value}")
        if not 0.5 < self.level < 1:
            raise ValueError(f"level lies between 0.5 and 1, not at {self.level}")
        if self.resamples < 100:
            raise ValueError(f"resamples are 100 or more, not {self.resamples}")

    def sentences(self) -> Iterator[tuple[str, str]]:
        """Yield name and sentence of every limit, with its value in it."""
        for one in fields(self):
            yield one.name, str(one.metadata["says"]).format(f"{getattr(self, one.name):g}")


__all__ = ["Margins"]
