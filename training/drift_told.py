"""Drift in words: what changed, from what to what, since when, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from store.drifts import Alarm
from training.drift import Limits, Shift, Week

NAMES: Final[dict[str, str]] = {
    "modality": "the modality",
    "manufacturer": "the manufacturer of the scanners",
    "manufacturer_model_name": "the scanner model",
    "convolution_kernel": "the reconstruction kernel",
    "slice_distance": "the distance of slices",
    "pixel_spacing": "the pixel spacing",
    "findings": "the number of findings in a study",
    "volume": "the volume of findings",
    "long_axis": "the long axis of findings",
    "suv_max": "the SUVmax of findings",
    "laa_950": "the share of lung below -950 HU",
    "entropy": "the doubt of the networks (entropy)",
    "disagreement": "the disagreement of the networks",
    "confidence": "the confidence in findings",
}
OF_INPUT: Final = (
    "Ask what changed at the scanner or in its protocol; until the model was judged on such series, check what it "
    "draws on them; 'nadir studies --by teaching' names those that are worth an outline."
)
OF_OUTPUT: Final = (
    "Look at the findings of these weeks: when other patients do not explain it, the model draws otherwise than it "
    "did; judge it anew, or go back with 'nadir models rollback'."
)


@dataclass(frozen=True, kw_only=True)
class Course:
    """The weeks of one analysis with one model."""

    plugin: str
    """The analysis."""
    families: tuple[str, ...]
    """The families of learned models that it uses."""
    weeks: tuple[Week, ...]
    """From the first on, as `training.drift.judge` gives them."""
    limits: Limits
    """What they were judged by."""
    dated_ahead: int = 0
    """Studies that were left out: their results bear a date that has not come yet."""

    @property
    def reference(self) -> tuple[Week, ...]:
        """Return the weeks that the others are compared with."""
        return tuple(week for week in self.weeks if week.is_reference)

    def last(self, count: int) -> tuple[Week, ...]:
        """Return so many of the newest weeks."""
        return self.weeks[-count:]


def named(what: str) -> str:
    """Return a quantity in words."""
    if what.startswith("values in "):
        return f"the voxel values ({what.removeprefix('values in ')})"
    return NAMES.get(what, what.replace("_", " "))


def alarms(course: Course, weeks: Sequence[Week]) -> tuple[Alarm, ...]:
    """Return the alarms of these weeks with their sentences."""
    return tuple(
        Alarm(
            week=week.week,
            what=shift.what,
            statistic=shift.statistic,
            value=round(shift.value, 4),
            limit=shift.limit,
            sentence=_sentence(course, week, shift),
        )
        for week in weeks
        for shift in week.alarms
    )


def _sentence(course: Course, week: Week, shift: Shift) -> str:
    reference = course.reference
    held = sum(one.studies for one in reference)
    window = week.week if shift.weeks == 1 else f"the {shift.weeks} weeks to {week.week}"
    statistic = "PSI" if shift.statistic == "PSI" else "distance (KS)"
    numbers = f"{statistic} {shift.value:.2f}, limit {shift.limit:g}, p {shift.p:.2g}"
    return (
        f"{course.plugin}: {named(shift.what)} changed: {shift.change} ({shift.studies} studies of {window} "
        f"against {held} of {reference[0].week} to {reference[-1].week}; {numbers}), since {shift.since}. "
        f"{OF_OUTPUT if shift.statistic == 'KS' else OF_INPUT}"
    )


def newest(told: Sequence[Alarm]) -> tuple[Alarm, ...]:
    """Return of each quantity the newest alarm; it says since when."""
    return tuple({alarm.what: alarm for alarm in told}.values())


def left_out(course: Course) -> str:
    """Return in a sentence what was left out; empty when nothing was."""
    if not (count := course.dated_ahead):
        return ""
    studies = "The results of 1 study bear" if count == 1 else f"The results of {count} studies bear"
    return f"{studies} a date that has not come yet and are left out: a clock ran ahead when they were kept."


def state(week: Week) -> str:
    """Return in a few words what became of a week."""
    if week.not_judged:
        return f"not judged: {week.not_judged}"
    if week.is_reference:
        return "reference"
    if week.alarms:
        return f"changed: {', '.join(named(s.what).removeprefix('the ') for s in week.alarms)}"
    return f"as it was ({len(week.shifts)} quantities)"


def plain(course: Course, weeks: Sequence[Week]) -> dict[str, Any]:
    """Return a course as JSON has it, of these weeks."""
    return {
        "plugin": course.plugin,
        "families": list(course.families),
        "reference": [week.week for week in course.reference],
        "reference_studies": sum(week.studies for week in course.reference),
        "dated_ahead": course.dated_ahead,
        "weeks": [
            {
                "week": week.week,
                "studies": week.studies,
                "is_reference": week.is_reference,
                "not_judged": week.not_judged or None,
                "quartiles": {name: list(values) for name, values in week.quartiles.items()},
                "shifts": [
                    {
                        "what": s.what,
                        "statistic": s.statistic,
                        "value": s.value,
                        "limit": s.limit,
                        "p": s.p,
                        "change": s.change,
                        "weeks": s.weeks,
                        "studies": s.studies,
                        "is_alarm": s.is_alarm,
                        "since": s.since or None,
                    }
                    for s in week.shifts
                ],
            }
            for week in weeks
        ],
        "alarms": [{"week": a.week, "what": a.what, "sentence": a.sentence} for a in alarms(course, weeks)],
    }


__all__ = ["Course", "alarms", "left_out", "named", "newest", "plain", "state"]
