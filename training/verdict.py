"""What a gate said: one check for each thing that was asked, with its numbers, and the answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from plugins.errors import Refused
from training.evaluate.bootstrap import Interval
from training.margins import Margins


class Outcome(StrEnum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_JUDGED = "not judged"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was asked."""

    name: str
    """What was asked: a field of `training.margins.Margins`, or `identical`."""
    title: str
    """For people; of a group its name."""
    outcome: Outcome
    """How it ended."""
    sentence: str
    """What was found, with the numbers and the limit."""
    difference: Interval | None = None
    """Challenger minus champion."""
    champion: float | None = None
    """The champion's figure."""
    challenger: float | None = None
    """The challenger's."""
    limit: float | None = None
    """The limit that it was held against."""
    cases: tuple[str, ...] = ()
    """The cases that it speaks of, where it speaks of single ones."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a challenger is proposed to a person, and why or why not."""

    is_proposed: bool
    """Whether a person may be asked."""
    checks: tuple[Check, ...]
    """Everything that was asked."""
    because: str
    """The answer in sentences."""
    margins: Margins
    """What was asked."""
    setting: str
    """How the models were asked in the rows that were judged in full."""
    cases: int
    """Cases on the hold-out."""
    patients: int
    """Patients on the hold-out."""

    def plain(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)


def read_verdict(plain: Mapping[str, Any]) -> Verdict:
    """Return the verdict that `Verdict.plain` gave. Refuses `bad-verdict`."""
    try:
        checks = tuple(
            Check(
                **{
                    **one,
                    "outcome": Outcome(one["outcome"]),
                    "difference": one["difference"] and Interval(**one["difference"]),
                    "cases": tuple(one["cases"]),
                }
            )
            for one in plain["checks"]
        )
        return Verdict(**{**plain, "checks": checks, "margins": Margins(**plain["margins"])})
    except (KeyError, TypeError, ValueError) as error:
        raise Refused("bad-verdict", f"this is no verdict of a gate ({error!r})") from error


__all__ = ["Check", "Outcome", "Verdict", "read_verdict"]
