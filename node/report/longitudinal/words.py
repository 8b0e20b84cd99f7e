"""How the longitudinal report writes verdicts, numbers and names for people."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from node.report.longitudinal.view import (
    Cell,
    DensityCourse,
    LesionCourse,
    LongitudinalReport,
    SumCourse,
    Who,
)
from node.report.overlays import rounded
from node.report.page import CONTROL
from store.decimals import in_decimals
from store.lesions import BY_HAND, FIRST_SEEN, UNCONFIRMED
from store.response.burden import change_percent, cut_off
from store.response.growth import Growth, in_days
from store.response.verdict import Response, TimePoint

VERDICTS = {
    "CR": "complete response",
    "PR": "partial response",
    "SD": "stable disease",
    "PD": "progressive disease",
    "NE": "not evaluable",
    "NON-CR/NON-PD": "neither complete response nor progression",
    "NON-iCR/NON-iUPD": "neither immune complete response nor progression",
    "iCR": "immune complete response",
    "iPR": "immune partial response",
    "iSD": "immune stable disease",
    "iUPD": "immune unconfirmed progression",
    "iCPD": "immune confirmed progression",
    "CMR": "complete metabolic response",
    "PMR": "partial metabolic response",
    "SMD": "stable metabolic disease",
    "NMR": "no metabolic response",
    "PMD": "progressive metabolic disease",
}
CRITERIA = {
    "recist1.1": "RECIST 1.1",
    "irecist": "iRECIST",
    "percist": "PERCIST 1.0",
    "lugano": "Lugano",
    "who": "WHO",
    "volume": "Volume",
}
ROLES = {"target": "target", "non-target": "non-target", "new": "new", "": "not judged by these criteria"}
UNVERIFIED = "Not a medical device. Results are computed and unverified."
BAND = "The grey band is 1.96 standard deviations of the sum to either side, the lesions' errors taken as independent."
PICTURES = (
    "Each picture shows the slice of the long axis of that date, centred on the lesion; all of a lesion have the same "
    "scale and the same grey scale. Solid line with end bars: long axis; dashed line with end bars: short axis; line "
    "around the lesion: its outline; dashed ring: where it was expected and not drawn."
)
SPIDER = (
    "Change of the axis that counts (long, of nodes short) to the first visit at which the lesion was measured, each "
    "lesion with a mark of its own. The criteria judge the sum, not single lesions."
)
MOST_NAMED = 60
"""Lesions that the spider plot names: as many as a page of A4 has room for."""
GLANCE = "In mm: the long axis, of lymph nodes the short axis; below it the change to the first measurement."
MODELS = {
    "gx": "growth alone",
    "dx": "decay alone",
    "gd": "growth and decay at once",
    "gdphi": "a part φ decays, the rest grows",
}
GROWTH = (
    "Regression-growth models (Stein and Fojo 2008) fitted to the sums; that with the least AIC of those whose every "
    "parameter is apart from zero (p < 0.1). Behind ±: one standard error."
)
DENSITIES = {
    "laa_950": "volume below \N{MINUS SIGN}950 HU",
    "laa_910": "volume below \N{MINUS SIGN}910 HU",
    "perc_15": "15th percentile of attenuation",
    "mean_lung_density": "mean attenuation",
}
DENSITY = (
    "Of each lung as it was measured; another scanner, kernel or depth of breath changes these numbers too."
)
WATERFALL = (
    "Change of the sum to the baseline at its smallest, up to the progression. Black: complete response; slanted "
    "lines: partial; empty: stable; lines both ways: progression; dots: none of these. Non: NON-CR/NON-PD."
)
SWIMMER = (
    "From the baseline to the last visit, with the verdict of each visit; an arrow: no progression so far. By iRECIST "
    "progression is an iUPD that was confirmed, or told again, and not taken back."
)


class Line(NamedTuple):
    """One visit of a lesion as its table shows it."""

    date: str
    words: str
    long_axis: str
    short_axis: str
    volume: str
    uptake: str
    to_baseline: str
    to_nadir: str
    confidence: str
    tracking: str


LINE_HEADS = Line(
    date="Date",
    words="Seen",
    long_axis="Long axis, mm",
    short_axis="Short axis, mm",
    volume="Volume, ml",
    uptake="SUVpeak",
    to_baseline="To baseline",
    to_nadir="To nadir",
    confidence="Confidence",
    tracking="Tracking",
)


def line_of(cell: Cell) -> Line:
    """Return one visit of a lesion in words; lengths with one decimal, a standard deviation behind them."""
    tracking = cell.link
    if cell.link_confidence is not None:
        tracking += f", {cell.link_confidence:.2f}"
    drawn = cell.words or ("measured" if cell.numbers else "not assessed")
    return Line(
        date=cell.date.isoformat(),
        words=drawn if cell.automatic else f"{drawn}, drawn by a person",
        long_axis=length(cell, "long_axis"),
        short_axis=length(cell, "short_axis"),
        volume=rounded(cell.numbers["volume"].value) if "volume" in cell.numbers else "",
        uptake=rounded(cell.numbers["suv_peak"].value) if "suv_peak" in cell.numbers else "",
        to_baseline=percent(cell.to_baseline_percent),
        to_nadir=percent(cell.to_nadir_percent),
        confidence="" if cell.confidence is None else f"{cell.confidence:.2f}",
        tracking=tracking,
    )


def reasons_of(lesion: LesionCourse) -> str:
    """Return the numbers by which the tracking decided, visit by visit; empty when it said nothing."""
    told = "; ".join(f"{cell.date.isoformat()} {cell.reason[:300]}" for cell in lesion.cells if cell.reason)
    return f"Tracking: {told}." if told else ""


def pace_of(lesion: LesionCourse) -> str:
    """Return how quickly the volume changed last and over the whole course; empty when it is not known twice."""
    last = next((cell.pace for cell in reversed(lesion.cells) if cell.pace is not None), None)
    told = dict.fromkeys(pace for pace in (last, lesion.pace) if pace is not None)
    return " ".join(f"From {one.since} to {one.until}: {one.words}." for one in told)


def growth_of(growth: Growth, response: Response) -> str:
    """Return the rates of the sums in words, or why there are none."""
    fit = growth.chosen
    if fit is None:
        return f"No growth rate of the {response.quantity}: {growth.because.removeprefix('not fitted: ')}."
    told = []
    for name, one in fit.estimates.items():
        digits = 3 if name == "phi" else 5
        error = "" if one.standard_error is None else f" ± {one.standard_error:.{digits}f}"
        if name == "phi":
            told.append(f"φ = {one.value:.{digits}f}{error}")
            continue
        doing = "doubles" if name == "g" else "halves"
        rate = f"{name} = {one.value:.{digits}f}{error} a day"
        told.append(f"{rate} ({doing} in {in_days(math.log(2) / one.value)})")
    of = f"{growth.points} of {len(response.time_points)} visits"
    scatter = (
        "two points: no uncertainty can be told"
        if fit.scatter is None
        else f"scatter {100 * fit.scatter:.1f} % of the first one"
    )
    return (
        f"Growth of the {response.quantity}, {of}: {MODELS[fit.model]} (model {fit.model}), {', '.join(told)}; "
        f"{scatter}."
    )


def changes(report: LongitudinalReport) -> bool:
    """Return whether any lesion was measured at two visits."""
    return any(cell.to_nadir_percent is not None for lesion in report.lesions for cell in lesion.cells)


def length(cell: Cell, axis: str) -> str:
    """Return an axis with its standard deviation, mm; empty when it was not measured."""
    number = cell.numbers.get(axis)
    if number is None:
        return ""
    value = in_decimals(number.value)
    return value if number.sd is None else f"{value} ± {in_decimals(number.sd)}"


def glance(cell: Cell) -> tuple[str, str]:
    """Return what the overview shows of a lesion at a visit: its axis or what was seen, and its change."""
    if cell.counted_mm is None or not cell.numbers:
        return (cell.words or "–", "")
    change = percent(cell.to_baseline_percent) if cell.to_nadir_percent is not None else ""
    return (f"{cell.counted_mm:.1f}", change)


def percent(value: float | None) -> str:
    """Return a change in per cent, cut off after one digit, with its sign and a real minus; empty for None."""
    if value is None:
        return ""
    text = f"{cut_off(value):+.1f} %".replace("-", "\N{MINUS SIGN}")
    return "0.0 %" if text[1:] == "0.0 %" else text


def millimetres(value: float | None) -> str:
    """Return a sum with one decimal; a dash for None."""
    return "–" if value is None else f"{value:.1f}"


def change_of(point: TimePoint, to: float | None) -> str:
    """Return the change of a sum, per cent; empty where either is not known."""
    return percent(change_percent(point.sum, to)) if point.sum is not None and to else ""


def verdict_words(verdict: str | None) -> str:
    """Return a verdict in words; empty when it has none."""
    return VERDICTS.get(verdict or "", "")


def criteria_name(response: Response) -> str:
    """Return how people call the criteria."""
    return CRITERIA.get(response.criteria, response.criteria)


def why(point: TimePoint, *, doubts: bool = True) -> str:
    """Return why a verdict was given, without the verdict in front, with what a reader should know."""
    verdict = re.escape(point.overall or "baseline")
    because = re.sub(rf"^({verdict}[:.] )+", "", point.because, flags=re.IGNORECASE)
    return " ".join([because, *(point.doubts if doubts else ())])


def headline(response: Response) -> tuple[str, str]:
    """Return the last verdict and what it means; before a second visit there is none."""
    last = response.time_points[-1].overall
    if last:
        return (last, verdict_words(last))
    if not response.follow_up:
        return ("Baseline", "there is no later visit to judge")
    return ("None", "these criteria give no verdict")


def sentence(text: str) -> str:
    """Return text with a capital letter in front."""
    return text[:1].upper() + text[1:]


def curve_words(course: SumCourse) -> str:
    """Return the curve in words, for who does not see it."""
    told = [f"{p.date.isoformat()} {millimetres(p.sum)} {course.unit} ({p.verdict})" for p in course.points]
    return f"{sentence(course.quantity)} by visit: {'; '.join(told)}."


def curve_caption(course: SumCourse) -> str:
    """Return what the lines of the curve mean, with their numbers."""
    told = [f"{sentence(course.quantity)}{f' in {course.unit}' if course.unit else ''}."]
    if course.nadir is not None and course.nadir_date is not None:
        told.append(f"Ring: nadir, {millimetres(course.nadir)} on {course.nadir_date.isoformat()}.")
    if course.next_progression_from is not None:
        least = millimetres(course.next_progression_from)
        told.append(f"Dashed: the smallest sum that is progression; at the next visit {least}.")
    if course.response_to is not None:
        told.append(f"Dotted: the largest sum that is a partial response, {millimetres(course.response_to)}.")
    if any(point.sd for point in course.points):
        told.append(BAND)
    return " ".join(told)


def spider_caption(report: LongitudinalReport) -> str:
    """Return what the lines of the spider plot mean, and which of them have a name when not all have."""
    twice = [
        one for one in report.lesions if sum(cell.to_baseline_percent is not None for cell in one.cells) > 1
    ]
    if len(twice) <= MOST_NAMED:
        return SPIDER
    return (
        f"{SPIDER} The drawing names the {MOST_NAMED} of {len(twice)} lesions whose last change is the largest; the "
        "others are grey."
    )


def spider_words(report: LongitudinalReport) -> str:
    """Return the spider plot in words."""
    told = []
    for lesion in report.lesions:
        last = next((c for c in reversed(lesion.cells) if c.to_baseline_percent is not None), None)
        if last is not None:
            told.append(f"{lesion.code} {percent(last.to_baseline_percent)} at {last.date.isoformat()}")
    return f"Change of each lesion to its first measurement: {'; '.join(told) or 'none was measured'}."


def called(who: Who, *, alphabetic: bool = False) -> str:
    """Return a name as people read it: the alphabetic form, and the ideographic one behind it unless it may not be."""
    forms = [
        " ".join(filter(None, CONTROL.sub(" ", form).split("^"))).strip() for form in who.name.split("=")
    ]
    first, *others = forms
    second = next((form for form in others[:1] if form), "")
    if first and second and not alphabetic:
        return f"{first} ({second})"
    return first or second or "no name"


def caption(cell: Cell) -> str:
    """Return what stands below a picture: both axes, or what was seen."""
    axes = [
        in_decimals(cell.numbers[name].value) for name in ("long_axis", "short_axis") if name in cell.numbers
    ]
    return ", ".join(filter(None, [f"{' × '.join(axes)} mm" if axes else "", cell.words]))


def has_uptake(lesion: LesionCourse) -> bool:
    """Return whether an uptake was measured at any visit."""
    return any("suv_peak" in cell.numbers for cell in lesion.cells)


def name_of(lesion: LesionCourse) -> str:
    """Return what and where a lesion is, as it was named outside."""
    parts = [lesion.name, lesion.site]
    if lesion.node and "node" not in lesion.site.lower():
        parts.append("lymph node")
    return ", ".join(dict.fromkeys(filter(None, parts)))


def title_of(lesion: LesionCourse) -> str:
    """Return the heading of a lesion."""
    return f"{lesion.code}: {name_of(lesion)}"


def role_of(lesion: LesionCourse) -> str:
    """Return what a lesion is to the criteria, and who said so."""
    if lesion.role_by == UNCONFIRMED:
        return "new, not confirmed by a person"
    role = ROLES.get(lesion.role, lesion.role)
    by = lesion.role_by if lesion.role_by in ("", BY_HAND, FIRST_SEEN) else f"by {lesion.role_by}"
    return f"{role} ({by})" if by else role


def density_row(course: DensityCourse) -> tuple[str, str, str, str]:
    """Return region, quantity with unit, its values by date and its change as a table shows them."""
    values = list(course.values.items())
    minus = "\N{MINUS SIGN}"
    told = ", ".join(f"{day.isoformat()} {value:.1f}".replace(" -", f" {minus}") for day, value in values)
    change = f"{values[-1][1] - values[0][1]:+.1f}".replace("-", minus) if len(values) > 1 else ""
    quantity = ", ".join(filter(None, (DENSITIES.get(course.name, course.quantity), course.unit)))
    return (course.region, quantity, told, "0.0" if change[1:] == "0.0" else change)


def when(moment: datetime, zone: ZoneInfo) -> str:
    """Return a time in the zone, to the minute."""
    return f"{moment.astimezone(zone):%Y-%m-%d %H:%M}"


def chunks(items: Sequence[int], most: int) -> list[Sequence[int]]:
    """Return items in groups of at most `most`."""
    return [items[at : at + most] for at in range(0, len(items), most)]
