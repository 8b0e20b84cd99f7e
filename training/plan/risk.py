"""What a retraining may do harm by, and what stands against each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from training.verdict import Check, Outcome


@dataclass(frozen=True, kw_only=True)
class Risk:
    """One way to do harm."""

    what: str
    """What may happen."""
    met: str
    """What stands against it."""
    checks: tuple[str, ...] = ()
    """Names of the gate's checks that look for it."""

    def outcome(self, checks: Sequence[Check]) -> str:
        """Return in words how its checks ended."""
        if not self.checks:
            return "no check of the gate; see what stands against it"
        found = Counter(check.outcome for check in checks if check.name in self.checks)
        return ", ".join(f"{found[one]} {one}" for one in Outcome if found[one]) or "nothing to check"


BENEFITS = (
    "Outlines closer to those that the people of this node draw, so that less has to be corrected.",
    "Lengths and volumes with a smaller error on the scanners and in the patients of this node.",
    "How well probabilities and intervals hold is measured on this node's own patients.",
)
RISKS = (
    Risk(
        what="It draws worse than before, or no better than chance.",
        met="The rise of the mean Dice has to be beyond chance and worth a version, on patients nobody learned from.",
        checks=("dice_gain", "hd95_mm", "identical"),
    ),
    Risk(
        what="Lengths or volumes move, so that a response is told where a model changed.",
        met="Their errors may not grow beyond a margin; every result bears the model's hash, and the report on a "
        "course names the model of every visit.",
        checks=("long_axis_mm", "volume_bias"),
    ),
    Risk(
        what="It is better on the whole and worse for some kind of patient or scanner.",
        met="Every group of enough patients is looked at; one that falls beyond the margin, or surely, refuses.",
        checks=("group_dice", "group_long_axis_mm", "group_approved", "group_all_worse"),
    ),
    Risk(
        what="It learns what was corrected and forgets what it could draw.",
        met="Lost lesions are counted case by case; what people approved as it was drawn has to stay within 2 mm; "
        "curated data are learned from again beside the new labels.",
        checks=("lesions_lost", "approved_border", "approved_long_axis_mm", "group_approved"),
    ),
    Risk(
        what="It is surer of itself than it may be.",
        met="Calibration error and cover of the intervals may not become worse beyond a margin.",
        checks=("ece", "coverage"),
    ),
    Risk(
        what="Patients that were learned from are judged on, and the figures flatter.",
        met="Sides are drawn by a lot for persons, once and for ever; merged identifiers are one person; the hold-out "
        "is held against the patients of both models before any case is judged.",
    ),
    Risk(
        what="It learns its own mistakes.",
        met="What Nadir drew is no label, under whatever UIDs it comes back; only what a person drew or approved is.",
    ),
    Risk(
        what="Labels are wrong, or of one person's habit.",
        met="The gate cannot see it: the hold-out's labels come from the same people. A person looks at the cases that "
        "changed most before approving.",
    ),
    Risk(
        what="One of many challengers passes by luck.",
        met="The number of challengers that were judged before is told here; a person decides.",
        checks=("dice_gain", "fewest_patients", "fewest_cases"),
    ),
    Risk(
        what="It is too slow for the node.",
        met="The time of each case is measured beside that of the champion.",
        checks=("latency_ratio",),
    ),
    Risk(
        what="A change goes wrong in use.",
        met="One command goes back to the model before; drift of input and results is looked at every week.",
    ),
)

__all__ = ["BENEFITS", "RISKS", "Risk"]
