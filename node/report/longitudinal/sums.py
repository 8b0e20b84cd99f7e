"""The sum over time with what it is judged by, in the whole steps that the criteria reckon in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from node.report.longitudinal.view import LesionCourse, SumCourse, SumPoint
from node.report.overlays import pretty_unit
from store.response.history import Role, Status
from store.response.recist import progressive_from
from store.response.verdict import Response, TimePoint
from store.response.volumetric import Volumes
from store.response.who import Products

BY_LENGTH = ("recist1.1", "irecist")
COMPLETE = ("CR", "iCR")
"""Verdicts of criteria by length after which any disease is progression, whatever the sum."""
BY_SHARE: Mapping[str, type[Products] | type[Volumes]] = {"who": Products, "volume": Volumes}
"""Criteria that judge by a sum: of lengths in tenths of a millimetre, or by a share of it; others have no levels."""


def sums_of(response: Response, lesions: Sequence[LesionCourse]) -> SumCourse:
    """Return the sums of one set of criteria with what they are judged by, in the unit of the response."""
    known = [p for p in response.time_points if p.sum is not None]
    lowest = min(known, key=lambda p: p.sum or 0.0, default=None)
    return SumCourse(
        criteria=response.criteria,
        quantity=response.quantity,
        unit=pretty_unit(response.unit),
        points=tuple(
            SumPoint(
                days=(point.date - response.baseline.date).days,
                date=point.date,
                sum=point.sum,
                sd=_sd(response, point, lesions),
                verdict=response.verdict_of(point),
                progression_from=_progression_from(
                    response.criteria, point.nadir, response.time_points[:number]
                ),
            )
            for number, point in enumerate(response.time_points)
        ),
        response_to=_response_to(response.criteria, response.baseline.sum),
        next_progression_from=_progression_from(
            response.criteria, lowest.sum if lowest else None, response.time_points
        ),
        nadir=lowest.sum if lowest else None,
        nadir_date=lowest.date if lowest else None,
    )


def _response_to(criteria: str, baseline: float | None) -> float | None:
    """Return the largest sum that is a partial response, in whole steps of the criteria; None without such a sum."""
    if not baseline:
        return None
    if criteria in BY_LENGTH:
        return 7 * round(10 * baseline) // 10 / 10
    if criteria not in BY_SHARE:
        return None
    measure = BY_SHARE[criteria]
    steps = round(baseline * measure.steps_per_unit)
    return steps * measure.partial.numerator // measure.partial.denominator / measure.steps_per_unit


def _progression_from(criteria: str, nadir: float | None, earlier: Sequence[TimePoint]) -> float | None:
    """Return the smallest sum that is progression; None where any disease is.

    That is so after a nadir of nothing and, by length, after a complete response, which may leave normal nodes.
    """
    if not nadir:
        return None
    if criteria in BY_LENGTH:
        is_any = any(point.overall in COMPLETE for point in earlier)
        return None if is_any else progressive_from(round(10 * nadir)) / 10
    if criteria not in BY_SHARE:
        return None
    measure = BY_SHARE[criteria]
    steps = round(nadir * measure.steps_per_unit)
    return (
        -(-steps * measure.progressive.numerator // measure.progressive.denominator) / measure.steps_per_unit
    )


def _sd(response: Response, point: TimePoint, lesions: Sequence[LesionCourse]) -> float | None:
    """Return one standard deviation of a sum of diameters, errors of lesions taken as independent; None if unknown."""
    if response.criteria not in BY_LENGTH or point.sum is None:
        return None
    parts = []
    for lesion in (one for one in lesions if one.role == Role.TARGET):
        cell = next(c for c in lesion.cells if c.date == point.date)
        if cell.status in (Status.ABSENT, Status.COALESCED):
            continue
        number = cell.numbers.get(lesion.axis)
        if number is None or number.sd is None:
            return None
        parts.append(number.sd)
    return math.hypot(*parts) if parts else None


__all__ = ["sums_of"]
