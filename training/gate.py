"""The gate between the model that counts and one that was made to take its place.

Both draw every case of a hold-out that neither has seen; `judge` asks of the two sets of rows whether the challenger
may be proposed to a person. It is proposed when it is better on the whole and worse in nothing that was looked at:
what is equal, worse, or worse in one group only is refused, and so is what too few patients could tell.

Better on the whole needs proof: the lower end of the paired interval of the mean Dice is above 0, and the gain is
worth a new version. Not worse on the whole needs proof too: the end of the interval that is bad for the challenger lies
within a margin (non-inferiority, Piaggio 2012).

Not worse in a group cannot be asked for as proof: groups are small, and a hold-out that could prove it for all of them
is one that nobody has. So a group speaks against the challenger in two ways. One is the difference itself, beyond the
margin of a group: no correction, because the one who bears an error here is a patient of that group, and a refusal
costs a training. The other is a fall of the Dice, of any size, that chance does not explain: what has to rise on the
whole may surely fall nowhere. It is corrected over all groups (Holm 1979): dozens are looked at, of which uncorrected
some fall by chance in every honest challenger. Of lengths the margin alone is asked, in groups as on the whole. A group
of too few patients is told as not judged, with what was seen; where more than two thirds of several patients become
worse, and the mean beyond the margin, it refuses as well. Most of them, because one patient alone moves such a mean.

What a person approved as it was drawn is a truth that some model of ours drew, so the model that counts is right there
to the voxel, and whoever draws as well in another way looks worse. Such labels are kept out of everything above. They
say what a person can live with, and that is asked of them: the border stays within 2 mm and the length within a margin
(non-inferiority, and by groups). On lesions that people corrected the champion is at its worst, which flatters any
other model; the approved ones are the counterweight.

How often this finds what it is to find is measured by `python -m training.gate_power`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.evaluate.crops import AS_GIVEN
from training.evaluate.drawn import Row
from training.evaluate.paired import Difference, Pair, difference, pairs
from training.evaluate.section import between, number
from training.gate_groups import WITHIN, approved_checks, group_checks
from training.margins import Margins
from training.verdict import Check, Outcome, Verdict

Values = NDArray[np.float64]
APPROVED = "approved"
"""Origin of a label that a person approved as it was drawn."""
MOST_REASONS = 5
COVERED = {"volume_covered": "Intervals of the volume", "diameter_covered": "Intervals of the long axis"}


@dataclass(frozen=True, kw_only=True)
class Seconds:
    """How long each case took, the models asked in turn on one thread; equally long, case by case."""

    champion: tuple[float, ...]
    """Seconds of the champion."""
    challenger: tuple[float, ...]
    """Seconds of the challenger."""


def judge(
    champion: Sequence[Row],
    challenger: Sequence[Row],
    margins: Margins,
    *,
    seconds: Seconds | None = None,
    seed: int = 0,
) -> Verdict:
    """Return whether the challenger may be proposed, with every check; the order of the rows changes nothing.

    `champion` and `challenger` are rows of `training.evaluate.drawn` of the same cases in the same settings. The
    setting `the crop alone` (else the first by name) is judged in full; each other one is held against the margins of
    a group. Refuses what `training.evaluate.paired.pairs` refuses.
    """
    every = pairs(champion, challenger)
    settings = sorted({pair.champion.setting for pair in every})
    setting = AS_GIVEN if AS_GIVEN in settings else settings[0]
    asked = [pair for pair in every if pair.champion.setting == setting]
    full, approved = ([pair for pair in asked if _is_approved(pair) is so] for so in (False, True))
    patients = len({pair.champion.patient_id for pair in full})
    how = _How(margins=margins, seed=seed)
    if not full:
        checks: tuple[Check, ...] = _enough(0, 0, margins)
        return _verdict(checks, margins, setting, 0, 0)
    other = [p for p in every if p.champion.setting != setting and not _is_approved(p)]
    checks = (
        *_enough(len(full), patients, margins),
        *_identical(every),
        how.superior(full),
        how.long_axis(full),
        how.volume(full),
        how.hd95(full),
        _lost(asked, margins),
        *group_checks(full, other, margins, seed),
        *(how.approved(approved) if approved else ()),
        how.calibration(full),
        *(how.covered(full, name) for name in COVERED),
        _latency(seconds, margins),
    )
    return _verdict(checks, margins, setting, len(full), patients)


def _is_approved(pair: Pair) -> bool:
    return pair.champion.known.get("origin") == APPROVED


def _verdict(checks: tuple[Check, ...], margins: Margins, setting: str, cases: int, patients: int) -> Verdict:
    failed = [check for check in checks if check.outcome is Outcome.FAILED]
    return Verdict(
        is_proposed=not failed,
        checks=checks,
        because=_because(checks, failed),
        margins=margins,
        setting=setting,
        cases=cases,
        patients=patients,
    )


def _enough(cases: int, patients: int, margins: Margins) -> tuple[Check, Check]:
    """Return whether there is enough to judge by."""

    def enough(name: str, found: int, least: int, of: str) -> Check:
        return Check(
            name=name,
            title=f"Enough {of}",
            outcome=Outcome.PASSED if found >= least else Outcome.FAILED,
            sentence=f"{found} {of} with lesions that people drew are on the hold-out; {least} are needed to judge.",
            limit=least,
        )

    return (
        enough("fewest_patients", patients, margins.fewest_patients, "patients"),
        enough("fewest_cases", cases, margins.fewest_cases, "cases"),
    )


def _identical(every: Sequence[Pair]) -> tuple[Check, ...]:
    if any(dict(pair.champion.figures) != dict(pair.challenger.figures) for pair in every):
        return ()
    sentence = "No figure of any case differs: the challenger answers as the champion does."
    return (Check(name="identical", title="Another model", outcome=Outcome.FAILED, sentence=sentence),)


@dataclass(frozen=True, kw_only=True)
class _How:
    """The checks of the whole hold-out, with what they are made by."""

    margins: Margins
    seed: int

    def superior(self, full: Sequence[Pair]) -> Check:
        """Return whether the mean Dice rises, beyond chance and enough."""
        least, found = self.margins.dice_gain, self._of(full, "dice")
        assert found is not None
        low, sure = found.interval.low, found.p_rose <= (1 - self.margins.level) / 2
        passed = low is not None and low > 0 and sure and found.interval.value >= least
        p = f"is {number(found.p_rose, 3)}" if found.p_rose >= 0.001 else "lies below 0.001"
        return _check(
            "dice_gain", "Mean Dice", found, passed, least, 3,
            f"asked are {number(least, 3, signed=True)} or more and an interval above 0; p (Student's t) "
            f"{p}, and at most {number((1 - self.margins.level) / 2, 3)} is asked",
        )  # fmt: skip

    def long_axis(self, full: Sequence[Pair]) -> Check:
        """Return whether the mean absolute error of the long axis does not rise."""
        found = self._of(full, "long_axis_error_mm", np.abs)
        limit = self.margins.long_axis_mm
        return self._not_worse("long_axis_mm", "Long axis, mean absolute error, mm", found, limit, 2)

    def volume(self, full: Sequence[Pair]) -> Check:
        """Return whether the mean volume error does not move away from 0."""
        found = self._of(full, "volume_error", statistic=lambda means: np.abs(means[:, 0]))
        limit = self.margins.volume_bias
        return self._not_worse("volume_bias", "Volume, size of the mean relative error", found, limit, 3)

    def hd95(self, full: Sequence[Pair]) -> Check:
        """Return whether the mean HD95 does not rise, where both drew something."""
        return self._not_worse(
            "hd95_mm", "HD95, mean, mm", self._of(full, "hd95_mm"), self.margins.hd95_mm, 2
        )

    def approved(self, approved: Sequence[Pair]) -> tuple[Check, ...]:
        """Return whether lesions that people approved as they were drawn are still drawn like that."""
        margins = self.margins
        border = self._of(approved, WITHIN, lambda within: 1.0 - within)
        length = self._of(approved, "long_axis_error_mm", np.abs)
        title = "Approved lesions: part of the border more than 2 mm off"
        return (
            self._not_worse("approved_border", title, border, margins.approved_border, 3),
            self._not_worse(
                "approved_long_axis_mm",
                "Approved lesions: long axis, mean absolute difference, mm",
                length,
                margins.approved_long_axis_mm,
                2,
            ),
            *approved_checks(approved, margins, self.seed),
        )

    def calibration(self, full: Sequence[Pair]) -> Check:
        """Return whether what is said of the voxels around the lesions stays as true."""
        said = [pair for pair in full if pair.champion.reliability is not None]
        title, limit = "Calibration error at the lesion", self.margins.ece
        if not said:
            return _unknown("ece", title, limit)
        if any(pair.challenger.reliability is None for pair in said):
            return _silent("ece", title, "probabilities")
        sums = [
            [[getattr(row.reliability, part) for part in ("count", "probability", "lesion")] for row in rows]
            for rows in ([pair.champion for pair in said], [pair.challenger for pair in said])
        ]
        was, now = (np.array(one, dtype=np.float64).reshape(len(said), -1) for one in sums)
        found = self._difference(was, now, said, _ece)
        return self._not_worse("ece", title, found, limit, 3)

    def covered(self, full: Sequence[Pair], name: str) -> Check:
        """Return whether as many intervals hold the truth; one that the champion alone gives is missed."""
        said = [pair for pair in full if pair.champion.figures[name] is not None]
        title, limit = f"{COVERED[name]} that hold the truth", self.margins.coverage
        if said and all(pair.challenger.figures[name] is None for pair in said):
            return _silent("coverage", title, "intervals")
        was, now = (
            np.array([row.figures[name] or 0.0 for row in rows], dtype=np.float64)
            for rows in ([pair.champion for pair in said], [pair.challenger for pair in said])
        )
        found = self._difference(was, now, said, None)
        if found is None:
            return _unknown("coverage", title, limit)
        high = found.interval.high
        passed = found.interval.value >= -limit and (high is None or high >= 0)
        asked = f"a fall by at most {number(limit, 3)}, and none beyond chance, is allowed"
        return _check("coverage", title, found, passed, limit, 3, asked)

    def _not_worse(self, name: str, title: str, found: Difference | None, limit: float, digits: int) -> Check:
        """Return a check of non-inferiority of a figure that is better when it is smaller."""
        if found is None or found.interval.high is None:
            return _unknown(name, title, limit)
        asked = f"the upper end has to stay below {number(limit, digits, signed=True)}"
        return _check(name, title, found, found.interval.high < limit, limit, digits, asked)

    def _of(
        self,
        full: Sequence[Pair],
        name: str,
        made: Callable[[Values], Values] | None = None,
        statistic: Callable[[Values], Values] | None = None,
    ) -> Difference | None:
        there = [pair for pair in full if pair.change(name) is not None]
        was, now = (
            np.array([row.figures[name] for row in rows], dtype=np.float64)
            for rows in ([pair.champion for pair in there], [pair.challenger for pair in there])
        )
        return self._difference(*((made(was), made(now)) if made else (was, now)), there, statistic)

    def _difference(
        self,
        was: Values,
        now: Values,
        there: Sequence[Pair],
        statistic: Callable[[Values], Values] | None,
    ) -> Difference | None:
        patients = [pair.champion.patient_id for pair in there]
        margins = self.margins
        return difference(
            was, now, patients, statistic, resamples=margins.resamples, level=margins.level, seed=self.seed
        )


def _ece(means: Values) -> Values:
    """Return the expected calibration error of mean counts, probabilities and lesions by bin, `(B, 3 bins)`."""
    count, probability, lesion = np.split(means, 3, axis=1)
    total = count.sum(axis=1)
    gap: Values = np.abs(probability - lesion).sum(axis=1) / np.where(total > 0, total, 1.0)
    return gap


def _check(
    name: str, title: str, found: Difference, passed: bool, limit: float, digits: int, asked: str
) -> Check:
    interval = found.interval
    sentence = (
        f"{title}: {number(found.challenger, digits)}, the champion's is {number(found.champion, digits)}; difference "
        f"{between(interval, digits, signed=True)} on {interval.cases} cases of {interval.patients} patients; {asked}."
    )
    return Check(
        name=name,
        title=title,
        outcome=Outcome.PASSED if passed else Outcome.FAILED,
        sentence=sentence,
        difference=interval,
        champion=found.champion,
        challenger=found.challenger,
        limit=limit,
    )


def _silent(name: str, title: str, what: str) -> Check:
    sentence = f"{title}: the champion gives {what} and the challenger does not for every case."
    return Check(name=name, title=title, outcome=Outcome.FAILED, sentence=sentence)


def _unknown(name: str, title: str, limit: float) -> Check:
    sentence = f"{title}: not judged, because the cases do not give it an interval."
    return Check(name=name, title=title, outcome=Outcome.NOT_JUDGED, sentence=sentence, limit=limit)


def _lost(full: Sequence[Pair], margins: Margins) -> Check:
    """Return whether the challenger still meets the lesions that the champion met."""
    met = [(bool(pair.champion.figures["dice"]), bool(pair.challenger.figures["dice"])) for pair in full]
    ids = [pair.champion.case_id for pair in full]
    lost = tuple(case_id for case_id, both in zip(ids, met, strict=True) if both == (True, False))
    found = sum(both == (False, True) for both in met)
    neither = sum(both == (False, False) for both in met)
    which = f" ({', '.join(lost)})" if lost else ""
    return Check(
        name="lesions_lost",
        title="Lesions that are missed",
        outcome=Outcome.PASSED if len(lost) <= margins.lesions_lost else Outcome.FAILED,
        sentence=(
            f"Of {len(full)} lesions the challenger misses {len(lost)} that the champion met{which}, and meets {found} "
            f"that the champion missed; both miss {neither}. {margins.lesions_lost} may be lost."
        ),
        champion=sum(not was for was, _ in met),
        challenger=sum(not now for _, now in met),
        limit=margins.lesions_lost,
        cases=lost,
    )


def _latency(seconds: Seconds | None, margins: Margins) -> Check:
    title, limit = "Seconds a case", margins.latency_ratio
    if seconds is None or not seconds.champion:
        sentence = f"{title}: not judged, because nobody took the time."
        return Check(name="latency_ratio", title=title, outcome=Outcome.NOT_JUDGED, sentence=sentence)
    was, now = np.array(seconds.champion), np.array(seconds.challenger)
    ratio = float(np.median(now / np.maximum(was, 1e-9)))
    return Check(
        name="latency_ratio",
        title=title,
        outcome=Outcome.PASSED if ratio <= limit else Outcome.FAILED,
        sentence=(
            f"{title}: {number(float(np.median(now)))}, the champion's are {number(float(np.median(was)))} (medians); "
            f"the median of the ratio over {len(was)} answers is {number(ratio, 2)}, and {number(limit, 2)} is allowed."
        ),
        champion=float(np.median(was)),
        challenger=float(np.median(now)),
        limit=limit,
    )


def _because(checks: Sequence[Check], failed: Sequence[Check]) -> str:
    if not failed:
        gain = next(check for check in checks if check.name == "dice_gain")
        unknown = [check.title for check in checks if check.outcome is Outcome.NOT_JUDGED]
        rest = f" and {len(unknown) - MOST_REASONS} more" if len(unknown) > MOST_REASONS else ""
        told = f" Not judged: {', '.join(unknown[:MOST_REASONS])}{rest}." if unknown else ""
        return f"Proposed. {gain.sentence} Nothing that was judged became worse beyond its margin.{told}"
    begins = "Cannot be judged" if failed[0].name.startswith("fewest") else "Refused"
    more = f" And {len(failed) - MOST_REASONS} more." if len(failed) > MOST_REASONS else ""
    return f"{begins}. " + " ".join(check.sentence for check in failed[:MOST_REASONS]) + more


__all__ = ["APPROVED", "Check", "Margins", "Outcome", "Seconds", "Verdict", "judge"]
