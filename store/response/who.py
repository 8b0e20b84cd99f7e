"""WHO 1979: response by the sum of the products of two perpendicular diameters (Miller 1981, Cancer 47:207).

A product is of whole tenths of a millimetre. Taken as follows where the handbook leaves room: progression is reckoned
from the smallest sum so far; a lesion too small to measure counts 5 mm x 5 mm; a node is gone when it is not seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date

from store.response.burden import LONGEST_TENTHS, TOO_SMALL_TENTHS, Disease
from store.response.history import History, Seen, Status, Visit
from store.response.margins import Number
from store.response.rules import USUAL, Rules
from store.response.sums import Threshold, judge_sums
from store.response.verdict import Response


class Products:
    """Long axis times short axis, in hundredths of a square millimetre."""

    criteria = "who"
    quantity = "sum of products"
    unit = "mm2"
    steps_per_unit = 100
    partial = Threshold(numerator=1, denominator=2, words="50 % below")
    progressive = Threshold(numerator=5, denominator=4, words="25 % above")

    def steps(self, seen: Seen) -> int | None:
        """Return the product; 0 for an absent or coalesced lesion, 5 mm x 5 mm for one too small to measure."""
        if seen.status in (Status.ABSENT, Status.COALESCED):
            return 0
        if seen.long_axis_tenths is not None and seen.short_axis_tenths is not None:
            return seen.long_axis_tenths * seen.short_axis_tenths
        return TOO_SMALL_TENTHS**2 if seen.status is Status.TOO_SMALL else None

    def numbers(self, seen: Seen) -> tuple[Number, ...]:
        """Return both axes of a measured lesion."""
        if (
            seen.status is not Status.MEASURED
            or seen.long_axis_tenths is None
            or seen.short_axis_tenths is None
        ):
            return ()
        return (
            _axis(seen.lesion, "long_axis", seen.long_axis_tenths, seen.long_axis_sd_mm),
            _axis(seen.lesion, "short_axis", seen.short_axis_tenths, seen.short_axis_sd_mm),
        )

    def moved(self, seen: Seen, steps: Sequence[int]) -> Seen:
        """Return the lesion with other axes."""
        return replace(seen, long_axis_tenths=steps[0], short_axis_tenths=steps[1])

    def is_gone(self, seen: Seen) -> bool:
        """Return False: what is drawn is there."""
        return False

    def remarks(self, course: Sequence[tuple[date, Seen]], rules: Rules) -> Iterator[str]:
        """Yield what there is no product of, though its long axis was measured."""
        _, seen = course[-1]
        if seen.status is Status.MEASURED and seen.long_axis_tenths is not None and self.steps(seen) is None:
            yield f"{seen.lesion} has a long axis and no short one, so no product."

    def doubts(self, course: Sequence[Visit], known: Disease, verdict: str, rules: Rules) -> Iterator[str]:
        """Yield targets that alone are 25 % above their smallest product, which the handbook calls progression."""
        *before, now = course
        if verdict == "PD":
            return
        for seen in now.seen:
            product = self.steps(seen) if seen.status is Status.MEASURED else None
            past = (one for visit in before for one in visit.seen if one.lesion == seen.lesion)
            alone = [one for one in past if one.status is not Status.COALESCED]
            earlier = [steps for one in alone if (steps := self.steps(one)) is not None]
            if seen.lesion in known.targets and product and earlier and 4 * product >= 5 * min(earlier):
                yield (
                    f"{seen.lesion} alone is 25 % or more above its smallest product; in the handbook's own words "
                    "one such lesion is progression, here the sum decides."
                )


def _axis(lesion: str, quantity: str, tenths: int, sd: float | None) -> Number:
    return Number(
        lesion=lesion,
        quantity=quantity,
        steps=tenths,
        steps_per_unit=10,
        unit="mm",
        most=LONGEST_TENTHS,
        standard_deviation=sd,
    )


def judge(history: History, rules: Rules = USUAL) -> Response:
    """Return the verdicts of a patient: CR, PR from 50 % below the baseline, PD from 25 % above the nadir, SD, NE.

    `sum` and `nadir` are sums of products, mm2. Refuses what `in_order` refuses.
    """
    return judge_sums(history, rules, Products())


__all__ = ["judge"]
