"""What the criteria are told of a course: one visit a date, one row a lesion; and what readers should know."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING, Any

from plugins.errors import Absent
from store.decimals import in_decimals
from store.dicom.units import MM3
from store.identity import drawn
from store.lesions import PROPOSAL, is_unconfirmed
from store.normal import SUL, reference_of
from store.pet_new import CRITERIA as SIZES_AND_PET
from store.pet_new import OnPet, new_on_pet
from store.response.burden import NODE_TENTHS
from store.response.criteria import CRITERIA
from store.response.history import History, Reference, Role, Seen, Status, Visit
from store.response.rules import USUAL, Rules
from store.response.verdict import Response
from store.response.volumetric import TOO_SMALL_MM3
from store.scanners import changed
from store.sighting import SIZED, Measure, Sighting, is_sized, sum_tenths
from store.tracking.link import Kind, was_compared

if TYPE_CHECKING:
    from store.course import Course

UPTAKE = frozenset({"percist"})
"""Criteria that look at what was measured on a PET; the others look at what was measured elsewhere."""
BOTH = frozenset({"lugano"})
"""Criteria that look at both."""
GONE = (Status.ABSENT, Status.COALESCED)
"""What a lesion is called that has no uptake of its own."""


def history(course: Course, criteria: str = "recist1.1") -> History:
    """Return what a set of criteria is told: of each date the lesions that have a role, with what counts.

    Lengths are whole tenths of a millimetre, half up, and those of fragments are added up, with 5 mm, or the sphere of
    that, for one too small to measure beside others; SUVpeak and the liver are told only when they are normalised to
    lean body mass (SUL). New lesions that nobody confirmed are left out: `doubts` tells of them.
    """
    seen = looked_at(course, criteria)
    dates = _dates(course, seen)
    on_pet: defaultdict[date, list[Seen]] = defaultdict(list)
    for one in _on_pet(course, criteria, dates):
        if one.seen is not None:
            on_pet[one.date].append(one.seen)
    dates = sorted({*dates, *on_pet})
    shown: defaultdict[date, defaultdict[str, list[Sighting]]] = defaultdict(lambda: defaultdict(list))
    for sighting in seen:
        if sighting.role is not None and not is_unconfirmed(sighting):
            shown[sighting.date][sighting.lesion].append(sighting)
    visits = [
        Visit(
            date=on,
            seen=(*(_seen(own) for own in shown[on].values()), *on_pet[on]),
            reference=_reference(course, on, seen) if criteria in UPTAKE | BOTH else None,
        )
        for on in dates
    ]
    return History(patient=course.patient.patient_id, visits=tuple(visits))


def doubts(course: Course, criteria: str = "recist1.1") -> dict[date, tuple[str, ...]]:
    """Return what a reader of the verdicts should know of each date: sentences."""
    told: defaultdict[date, dict[str, None]] = defaultdict(dict)
    seen = looked_at(course, criteria)
    for one in seen:
        if is_unconfirmed(one) and drawn(one):
            told[one.date][_new_words(one, course)] = None
        if (
            one.role is None
            and one.role_by == PROPOSAL
            and (sum_tenths([one], "short_axis") or 0) >= NODE_TENTHS
        ):
            told[one.date][
                f"'{one.label}' was normal at the baseline and has a short axis of 10 mm or more: 'nadir lesions mark' "
                "says whether it is new."
            ] = None
        if one.link is not None and one.link.kind in (Kind.SPLIT, Kind.MERGED) and drawn(one):
            told[one.date][f"'{one.label}': {one.link.reason}."] = None
        if one.link is not None and one.link.kind is Kind.CUT and one.status is Status.NOT_EVALUABLE:
            told[one.date][
                f"'{one.label}' is cut by the end of the scan and not evaluable: {one.link.reason}."
            ] = None
        for words in one.remarks:
            told[one.date][f"'{course.names[one.lesion]}': {words}"] = None
        if one.whole:
            told[one.date][f"'{course.names[one.lesion]}': {one.note}"] = None
        if criteria in UPTAKE | BOTH and (words := _uptake_words(one, course)):
            told[one.date][words] = None
    dates = _dates(course, seen)
    for new in _on_pet(course, criteria, dates):
        told[new.date if new.seen else next((on for on in dates if on >= new.date), dates[-1])][new.doubt] = (
            None
        )
    if criteria in UPTAKE | BOTH:
        for on, words in _reference_words(course, criteria):
            told[on][words] = None
    looked = {one.plugin for one in seen if drawn(one)}
    for on, words in changed(course.scans, looked).items():
        told[on][words] = None
    for on, studies in _studies(course).items():
        if len(studies) > 1:
            told[on][
                f"{len(studies)} studies of this date are one time point: uptake is that of the PET, and of each "
                "lesion the size of one study counts, a person's drawing before an automatic one, then the surer one."
            ] = None
    return {on: tuple(sentences) for on, sentences in told.items()}


def _dates(course: Course, seen: Sequence[Sighting]) -> list[date]:
    """Return the dates on which what was seen was looked for."""
    plugins = {one.plugin for one in seen if drawn(one)}
    return sorted({on for on, plugin in course.analysed if plugin in plugins} | {one.date for one in seen})


def _on_pet(course: Course, criteria: str, dates: Sequence[date]) -> Sequence[OnPet]:
    """Return what PETs say of new lesions to criteria of size that ask for it."""
    return tuple(new_on_pet(course, dates[0])) if criteria in SIZES_AND_PET and dates else ()


def _reference_words(course: Course, criteria: str) -> Iterator[tuple[date, str]]:
    """Yield what was entered of normal tissue, and what is lacking, by the date of the PET."""
    for given in course.given:
        note = f" ({given.note})" if given.note else ""
        yield given.date, f"Entered by {given.author} on {given.at:%Y-%m-%d}: {given.words}{note}."
    seen = looked_at(course, criteria)
    for on in sorted({one.date for one in seen if one.on_pet}):
        found = _reference(course, on, seen)
        if found is None or found.liver_mean is None:
            yield on, "No liver was measured on this PET; 'nadir lesions reference --liver-mean' enters it."
        if criteria in BOTH and (found is None or (found.mediastinum or found.blood_pool_mean) is None):
            yield (
                on,
                "The mediastinal blood pool was not measured, so that scores 2 and 3 are not told apart; "
                "'nadir lesions reference --mediastinum' enters it.",
            )


def _studies(course: Course) -> dict[date, set[str]]:
    """Return the studies of each date on which something was drawn."""
    found: defaultdict[date, set[str]] = defaultdict(set)
    for one in course.sightings:
        if drawn(one):
            found[one.date].add(one.study_instance_uid)
    return found


def judge(course: Course, criteria: str, rules: Rules = USUAL) -> Response:
    """Return the verdicts of a course by a set of criteria, with what a reader should know beside each.

    Lesions have their Tracking UIDs as names, see `in_words`. Refuses `no-course` when nothing was looked at, and what
    the criteria refuse.
    """
    known = history(course, criteria)
    if not known.visits:
        raise Absent(
            "no-course", f"nothing that {criteria} looks at was measured of '{course.patient.patient_id}'"
        )
    response = CRITERIA[criteria](known, rules)
    own = doubts(course, criteria)
    points = [replace(p, doubts=(*p.doubts, *own.get(p.date, ()))) for p in response.time_points]
    return replace(response, time_points=tuple(points))


def in_words(response: Response, course: Course) -> Response:
    """Return the verdicts with what people call each lesion instead of its Tracking UID."""
    # The longest first: a UID may begin like another one.
    names = sorted(course.names.items(), key=lambda named: -len(named[0]))

    def said(text: str) -> str:
        for uid, name in names:
            text = text.replace(uid, name)
        return text

    points = [
        replace(
            p,
            because=said(p.because),
            doubts=tuple(map(said, p.doubts)),
            margins=tuple(replace(m, lesion=said(m.lesion)) for m in p.margins),
        )
        for p in response.time_points
    ]
    return replace(response, time_points=tuple(points), doubts=tuple(map(said, response.doubts)))


def looked_at(course: Course, criteria: str) -> Sequence[Sighting]:
    """Return the counting sightings that criteria look at: on PET, elsewhere, or both; a lesion drawn nowhere too."""
    counting = [one for one in course.sightings if one.counts]
    if criteria in BOTH:
        return counting
    on_pet = criteria in UPTAKE
    drawn_there = {one.lesion for one in counting if drawn(one) and one.on_pet == on_pet}
    drawn_elsewhere = {one.lesion for one in counting if drawn(one)} - drawn_there
    return [
        one
        for one in counting
        if one.lesion not in drawn_elsewhere
        and (one.on_pet == on_pet or not (drawn(one) or one.measurements))
    ]


def looks_at(course: Course, criteria: str) -> bool:
    """Return whether criteria look at anything of a course, be it rejected or without weight."""
    every = replace(course, sightings=tuple(replace(one, counts=True) for one in course.sightings))
    return bool(looked_at(every, criteria))


def _new_words(one: Sighting, course: Course) -> str:
    length = one.measurements.get("long_axis")
    what = [] if length is None else [f"{in_decimals(length.value)} mm"]
    what += [] if one.confidence is None else [f"confidence {one.confidence:.2f}"]
    first = next(s for s in course.sightings if s.lesion == one.lesion and s.counts and drawn(s))
    before = _before_words(first, course)
    said = f" ({', '.join(what)})" if what else ""
    return (
        f"'{one.label}'{said} {before}; nobody confirmed that it is a new lesion, "
        "which would be progression: 'nadir lesions confirm' or 'nadir lesions mark' decides."
    )


def _before_words(first: Sighting, course: Course) -> str:
    """Return what is known of the time before the first sighting of a lesion."""
    if first.link is not None and first.link.kind is Kind.NEW:
        seen = was_compared(first.link.reason)
        return "was not seen before" if seen else "could not be compared with all earlier lesions"
    had = any(s.date < first.date and s.plugin == first.plugin and drawn(s) for s in course.sightings)
    if first.link is None and had:
        return "was not compared with earlier visits"
    if not any(on < first.date and plugin == first.plugin for on, plugin in course.analysed):
        return f"was found by '{first.plugin}', which was not run on an earlier visit"
    return "was not seen before"


def _uptake_words(one: Sighting, course: Course) -> str:
    """Return why the uptake of a lesion is not compared, or not quite comparable; empty when it is."""
    sul, peak = _sul(one), one.measurements.get("suv_peak")
    if sul is None:
        return "" if peak is None else (
            f"The uptake of '{one.label}' is {peak.unit}, not normalised to lean body mass (SUL), and is not "
            "compared: SUL needs weight, height and sex of the patient in the header of the PET."
        )  # fmt: skip
    first = next(m for other in course.sightings if other.counts and (m := _sul(other)) is not None)
    if SUL[first.unit] == SUL[sul.unit]:
        return ""
    return (
        f"The SUL of '{one.label}' is by lean body mass after {SUL[sul.unit]}, that of the first PET after "
        f"{SUL[first.unit]}: they do not quite compare."
    )


def _reference(course: Course, on: date, seen: Sequence[Sighting]) -> Reference | None:
    """Return the liver of the PET that the hottest lesion of a date was measured on; any where nothing is hot.

    What a person entered of that date takes the place of what was measured.
    """
    hot = [(m.value, one) for one in seen if one.date == on and (m := _sul(one)) is not None]
    series = [one.series_instance_uid for _, one in sorted(hot, key=lambda pair: -pair[0])]
    found = reference_of([one for one in course.normal if one.date == on], series)
    for given in (one for one in course.given if one.date == on):
        found = given.on(found)
    return found


def _seen(own: Sequence[Sighting]) -> Seen:
    """Return what one lesion of one date is to the criteria; several are fragments, or on PET and elsewhere.

    One whose size is not evaluable is there when its uptake was measured.
    """
    sized = [one for one in own if not one.on_pet] or list(own)
    first = own[0]
    status, node = status_of(sized), any(one.node for one in own)
    uptake = {} if status in GONE else _uptake([one for one in own if one.on_pet])
    return Seen(
        lesion=first.lesion,
        role=first.role or Role.NON_TARGET,
        status=Status.PRESENT if status is Status.NOT_EVALUABLE and uptake else status,
        site=next((one.site for one in own if one.site), ""),
        node=node,
        **_size(status, sized, node=node),
        **uptake,
    )


def _size(status: Status, sized: Sequence[Sighting], *, node: bool) -> dict[str, Any]:
    """Return lengths and volume of a lesion of this status; a node that is too small keeps its short axis."""
    measured: dict[str, Any] = {}
    if status is Status.TOO_SMALL and node and any("short_axis" in one.measurements for one in sized):
        measured["short_axis_tenths"] = sum_tenths(sized, "short_axis")
    if is_sized(status, sized):
        for axis in ("long_axis", "short_axis"):
            values = _each(sized, axis, {"mm"})
            measured[f"{axis}_tenths"] = sum_tenths(sized, axis)
            measured[f"{axis}_sd_mm"] = _sd(values)
        volumes = _each(sized, "volume", set(MM3))
        if volumes:
            small = sum(one.status is Status.TOO_SMALL for one in sized)
            measured["volume_mm3"] = sum(m.value * MM3[m.unit] for m in volumes) + small * TOO_SMALL_MM3
            deviation = _sd([replace(m, uncertainty=_in_mm3(m)) for m in volumes])
            measured["volume_sd_mm3"] = deviation
    return measured


def _uptake(hot: Sequence[Sighting]) -> dict[str, Any]:
    """Return the highest peak and the glycolysis of what is there on a PET; nothing where a part is not evaluable."""
    there = [one for one in hot if one.status not in GONE]
    peaks = [m for one in there if (m := _sul(one)) is not None]
    if not peaks or any(one.status is Status.NOT_EVALUABLE for one in hot):
        return {}
    hottest = max(peaks, key=lambda m: m.value)
    glycolysis = [_lean_glycolysis(one) for one in there]
    known = [grams for grams in glycolysis if grams is not None]
    return {
        "suv_peak": hottest.value,
        "suv_peak_sd": hottest.uncertainty,
        "tlg": sum(known) if len(known) == len(glycolysis) else None,
    }


def status_of(own: Sequence[Sighting]) -> Status:
    """Return the status of a lesion whose fragments have these: measured when all that is left of it is."""
    found = {one.status for one in own}
    for status in (
        Status.PROGRESSED,
        Status.NOT_EVALUABLE,
        Status.PRESENT,
        Status.MEASURED,
        Status.TOO_SMALL,
        Status.COALESCED,
    ):
        if status in found:
            return status
    return Status.ABSENT


def _each(own: Sequence[Sighting], name: str, units: set[str]) -> list[Measure]:
    """Return one number of every fragment that is there; none when one of them lacks it."""
    there = [one for one in own if one.status in SIZED]
    found = [m for one in there if (m := one.measurements.get(name)) is not None and m.unit in units]
    return found if len(found) == len(there) else []


def _sd(values: Sequence[Measure]) -> float | None:
    """Return the standard deviation of a sum; None when one of them is not known."""
    known = [m.uncertainty for m in values if m.uncertainty is not None]
    return math.hypot(*known) if known and len(known) == len(values) else None


def _in_mm3(measure: Measure) -> float | None:
    return None if measure.uncertainty is None else measure.uncertainty * MM3[measure.unit]


def _lean_glycolysis(one: Sighting) -> float | None:
    """Return total lesion glycolysis in SUL, g; None when it is not known.

    What was reckoned from SUVbw becomes SUL by one factor for the whole PET, that between its two peaks.
    """
    tlg, peak, lean = one.measurements.get("tlg"), one.measurements.get("suv_peak"), _sul(one)
    if tlg is None or tlg.unit != "g" or lean is None:
        return None
    if peak is None or peak.unit in SUL:
        return tlg.value
    return tlg.value * lean.value / peak.value if peak.value > 0 else None


def _sul(one: Sighting) -> Measure | None:
    """Return the peak of an uptake that is normalised to lean body mass."""
    named = (one.measurements.get(name) for name in ("sul_peak", "suv_peak"))
    return next((m for m in named if m is not None and m.unit in SUL), None)


__all__ = ["doubts", "history", "in_words", "judge", "looked_at", "looks_at"]
