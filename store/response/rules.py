"""What a protocol may set of the criteria; the defaults are those of the criteria themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Parameters of a protocol."""

    confirm_days: int = 28
    """A complete or partial response is confirmed by another one at least this many days later."""
    min_stable_days: int = 42
    """Stable disease, as best response, needs a visit at least this many days after the start."""
    most_not_evaluable: int = 1
    """Visits that could not be evaluated between a response and its confirmation."""
    accept_stable: bool = False
    """Whether one visit of stable disease may lie between a partial response and its confirmation."""
    cut_at_progression: bool = True
    """Whether what comes after the first progression is left out of the best response."""
    missing_as_ne: bool = False
    """Whether a patient without a visit after the baseline is NE; otherwise nothing is said of him."""
    progression_confirm_days: int = 28
    """iRECIST: an unconfirmed progression is confirmed this many days after it at the earliest."""
    progression_confirm_latest_days: int = 56
    """iRECIST: a confirmation that comes later than this many days is told as a doubt."""
    pr_persistence: Literal["strict", "eortc"] = "strict"
    """`eortc`: a partial response lasts until progression; `strict`: each visit is judged by its own sum."""
    most_targets: int = 5
    """Target lesions in all."""
    most_targets_per_organ: int = 2
    """Target lesions of one organ."""
    nodes_are_one_organ: bool = True
    """Whether all lymph nodes count as one organ."""
    unconfirmed_new: Literal["doubt", "count"] = "doubt"
    """`doubt`: a lesion that only an algorithm calls new is told and judged once a reader confirms it."""
    least_new_confidence: float = 0.5
    """With `count`: how sure the algorithm has to be that it is a lesion."""
    least_new_mm: float = 5.0
    """With `count`: its least long axis."""
    volume_change_percent: float | None = None
    """Change of volume that is more than repeatability; None takes that of the lesion's long axis."""
    incomparable_scans: Literal["NE", "doubt"] = "NE"
    """What PERCIST says of two PETs whose liver or uptake time differ too much."""
    markedly_above_liver: float = 2.0
    """Uptake over liver from which Deauville 5 is given."""
    deauville_change_percent: float = 30.0
    """Change of the uptake of a lymphoma that is a change; Lugano says `reduced` and `increased` without a number."""


USUAL = Rules()
"""What holds when a protocol says nothing."""

__all__ = ["USUAL", "Rules"]
