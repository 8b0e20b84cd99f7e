"""From a course and its verdicts to what a report shows: pure, no pictures, nothing rounded."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date

from node.report.longitudinal.pace import paces_of
from node.report.longitudinal.view import (
    Cell,
    Correction,
    DensityCourse,
    LesionCourse,
    Made,
    Number,
    Place,
    When,
)
from node.report.overlays import pretty_unit
from store.course import Course
from store.density import NAMES, Density
from store.lesions import is_unconfirmed
from store.patients import Merged
from store.response.burden import TOO_SMALL_TENTHS
from store.response.history import Role, Status
from store.response.verdict import Margin, Response
from store.sighting import Decision, Sighting, is_sized, sum_tenths
from store.told import BOTH, UPTAKE
from store.tracking.link import Kind

CODES = {Role.TARGET: "T", Role.NON_TARGET: "N", Role.NEW: "New "}
STATUS_WORDS = {
    Status.PROGRESSED: "unequivocal progression",
    Status.NOT_EVALUABLE: "not evaluable",
    Status.PRESENT: "present",
    Status.MEASURED: "",
    Status.TOO_SMALL: "too small to measure",
    Status.COALESCED: "",
    Status.ABSENT: "gone",
}
"""In words; of the parts of a lesion the first of these counts."""
ADDED = frozenset({"long_axis", "short_axis", "volume", "mtv", "tlg"})
"""What is added up over the parts of a lesion."""
HIGHEST = frozenset({"suv_max", "suv_peak", "sul_peak"})
LINK_WORDS = {
    Kind.SAME: "same",
    Kind.NEW: "new",
    Kind.GONE: "gone",
    Kind.SPLIT: "a part of what was one lesion",
    Kind.MERGED: "grown together",
    Kind.CUT: "cut by the end of the scan",
    Kind.OUT_OF_VIEW: "outside the field of view",
    Kind.REDRAWN: "drawn again where it was expected",
    Kind.NOT_SEGMENTED: "visible, not segmented",
}
QUANTITIES = {
    "long_axis": ("", "longer", "shorter"),
    "short_axis": ("the short axis of ", "longer", "shorter"),
    "volume": ("the volume of ", "larger", "smaller"),
    "suv_peak": ("the uptake of ", "higher", "lower"),
}
DECISIONS = {
    "relink": "is the same lesion as VALUE",
    "role": "counts as VALUE",
    "node": "is a lymph node: VALUE",
    "status": "was seen as VALUE",
    "site": "lies in VALUE",
    "reject": "is no lesion",
    "confirm": "is confirmed",
    "outline": "has an outline that is VALUE",
}
CONTRARY = {"reject": "is a lesion after all", "confirm": "is not confirmed"}
"""What is said by `false`."""


def visits_of(course: Course, responses: Sequence[Response]) -> tuple[When, ...]:
    """Return the dates that the criteria judged or at which a lesion was seen; without any those of the studies."""
    dates = {point.date for response in responses for point in response.time_points}
    dates |= {one.date for one in course.sightings}
    dates = dates or {visit.study_date for visit in course.visits}
    first = min(dates, default=None)
    return tuple(
        When(
            date=day,
            days=(day - first).days if first else 0,
            study_instance_uids=tuple(v.study_instance_uid for v in course.visits if v.study_date == day),
        )
        for day in sorted(dates)
    )


def lesions_of(
    course: Course, visits: Sequence[When], criteria: str = "recist1.1"
) -> tuple[LesionCourse, ...]:
    """Return the lesions, targets first, then non-targets, new ones, and those that the criteria do not judge."""
    judged = {seen.lesion for visit in course.history(criteria).visits for seen in visit.seen}
    seen: dict[str, list[Sighting]] = defaultdict(list)
    for one in course.sightings:
        seen[one.lesion].append(one)
    order = {Role.TARGET: 0, Role.NON_TARGET: 1, Role.NEW: 2, None: 3}
    names = course.names
    kinds = {True} if criteria in UPTAKE else {True, False} if criteria in BOTH else {False}
    judged |= {s.lesion for s in course.sightings if is_unconfirmed(s) and s.on_pet in kinds}
    roles = {uid: _role(sightings if uid in judged else ()) for uid, sightings in seen.items()}
    counts: dict[Role | None, int] = defaultdict(int)
    made = []
    for uid in sorted(seen, key=lambda uid: order[roles[uid][0]]):
        role, _ = roles[uid]
        counts[role] += 1
        code = f"{CODES[role] if role else 'X'}{counts[role]}"
        made.append(_lesion(uid, names, seen[uid], code, roles[uid], visits))
    return tuple(made)


def _role(sightings: Sequence[Sighting]) -> tuple[Role | None, str]:
    """Return the role that a lesion had last, and who gave it."""
    last = next((s for s in reversed(sightings) if s.role is not None), None)
    return (None, "") if last is None else (last.role, last.role_by)


def _lesion(
    uid: str,
    names: Mapping[str, str],
    sightings: Sequence[Sighting],
    code: str,
    role: tuple[Role | None, str],
    visits: Sequence[When],
) -> LesionCourse:
    node = any(s.node for s in sightings)
    axis = "short_axis" if node else "long_axis"
    cells: list[Cell] = []
    lengths: list[float] = []
    paces, over_all = paces_of(sightings)
    for visit in visits:
        here = [s for s in sightings if s.date == visit.date]
        cell = _cell(visit.date, [s for s in here if s.counts] or here, axis, names)
        if cell.counted_mm is not None:
            cell = _with_changes(cell, cell.counted_mm, lengths)
            lengths.append(cell.counted_mm or 0.0)
        cells.append(replace(cell, pace=paces.get(visit.date)))
    return LesionCourse(
        code=code,
        name=names[uid],
        tracking_uid=uid,
        role=role[0].value if role[0] else "",
        role_by=role[1],
        node=node,
        site=next((s.site for s in sorted(reversed(sightings), key=lambda s: s.on_pet) if s.site), ""),
        cells=tuple(cells),
        pace=over_all,
    )


def _cell(day: date, counting: Sequence[Sighting], axis: str, names: Mapping[str, str]) -> Cell:
    """Return one lesion at one visit; parts of a lesion that fell apart are added up, a PET gives its uptake only."""
    if not counting:
        return Cell(date=day, status="", words="")
    sized = [s for s in counting if not s.on_pet] or counting
    there = {s.status for s in sized}
    status = next(one for one in STATUS_WORDS if one in there)
    drawn = [s for s in sized if s.measurements]
    linked_by = next((by for s in sized if (by := _linked_by(s))), "")
    linked = next((s.link for s in sized if s.link is not None), None) if not linked_by else None
    counted_mm = _counted_mm(status, sized, axis)
    words = [_status_words(status, counted_mm)]
    if linked is not None and linked.kind in (Kind.CUT, Kind.OUT_OF_VIEW, Kind.NOT_SEGMENTED):
        words.append(LINK_WORDS[linked.kind])
    if whole := next((s.whole for s in sized if s.whole), ""):
        words.append(f"grown together with {names[whole]}")
    if len(drawn) > 1:
        words.append(f"{len(drawn)} parts")
    made_by = dict.fromkeys(f"{s.plugin} {s.plugin_version}".strip() for s in counting)
    made_by |= dict.fromkeys(m.made_by for s in counting for m in s.measurements.values())
    return Cell(
        date=day,
        status=status.value,
        words=", ".join(filter(None, words)),
        numbers=_numbers([s for s in counting if s.on_pet]) | _numbers(drawn),
        counted_mm=counted_mm,
        confidence=min((s.confidence for s in counting if s.confidence is not None), default=None),
        link=LINK_WORDS[linked.kind] if linked else linked_by and f"linked by {linked_by}",
        link_confidence=linked.confidence if linked else None,
        reason=linked.reason if linked else "",
        automatic=all(s.automatic for s in counting),
        made_by=", ".join(filter(None, made_by)),
        place=_place(sized),
    )


def _place(sized: Sequence[Sighting]) -> Place:
    """Return where the largest part of a lesion is shown."""
    lengths = [one.measurements.get("long_axis") for one in sized]
    one, length = max(zip(sized, lengths, strict=True), key=lambda pair: pair[1].value if pair[1] else 0.0)
    return Place(
        study_instance_uid=one.study_instance_uid,
        series_instance_uid=one.series_instance_uid,
        sop_instance_uid=(length.sop_instance_uid if length else None) or "",
    )


def _numbers(drawn: Sequence[Sighting]) -> dict[str, Number]:
    """Return the numbers; of parts only those that add up are told, and the highest uptake."""
    names = dict.fromkeys(name for s in drawn for name in s.measurements)
    together = {}
    for name in names:
        parts = [s.measurements[name] for s in drawn if name in s.measurements]
        known = [p.uncertainty for p in parts if p.uncertainty is not None]
        if len(parts) > 1 and name in ADDED:
            value = sum(p.value for p in parts)
        elif len(parts) == 1 or name in HIGHEST:
            value = max(p.value for p in parts)
        else:
            continue
        sd = math.hypot(*known) if len(known) == len(parts) else None
        together[name] = Number(value=value, unit=parts[0].unit, sd=sd)
    return together


def _counted_mm(status: Status, sized: Sequence[Sighting], axis: str) -> float | None:
    """Return what the criteria count of a lesion; None when that is not known."""
    if status is Status.ABSENT:
        return 0.0
    if status is Status.TOO_SMALL and axis == "long_axis":
        return TOO_SMALL_TENTHS / 10
    tenths = sum_tenths(sized, axis)
    is_known = status is Status.TOO_SMALL or is_sized(status, sized)
    return None if not is_known or tenths is None else tenths / 10


def _status_words(status: Status, counted_mm: float | None) -> str:
    """Return what was seen in words, with what counts of a lesion that is too small (RECIST 1.1, 4.3.2)."""
    counts = status is Status.TOO_SMALL and counted_mm is not None
    return f"{STATUS_WORDS[status]}, counts {counted_mm:g} mm" if counts else STATUS_WORDS[status]


def _with_changes(cell: Cell, length: float, before: Sequence[float]) -> Cell:
    if not before:
        return replace(cell, to_baseline_percent=0.0)
    nadir = min(before)
    return replace(
        cell,
        to_baseline_percent=100 * (length - before[0]) / before[0] if before[0] else None,
        to_nadir_percent=100 * (length - nadir) / nadir if nadir else None,
    )


def codes_of(course: Course, lesions: Sequence[LesionCourse]) -> dict[str, str]:
    """Return the short name for each Tracking UID, those of parts and of what was relinked too."""
    names = {lesion.tracking_uid: lesion.code for lesion in lesions}
    for one in course.sightings:
        for uid in (one.tracking_uid, one.written_uid, one.choice_uid):
            names.setdefault(uid, names[one.lesion])
    return names


def coded(text: str, names: Mapping[str, str]) -> str:
    """Return text in which lesions have their short names instead of their Tracking UIDs."""
    return re.sub(r"[0-9]+(?:\.[0-9]+)+", lambda found: names.get(found[0], found[0]), text)


def margins_in_words(margins: Sequence[Margin], names: Mapping[str, str]) -> tuple[str, ...]:
    """Return what would have to be otherwise for another verdict: `T2 would have to be 1.3 mm longer (...) for PD`."""
    told = []
    for margin in margins:
        of, more, less = QUANTITIES.get(
            margin.quantity, (f"the {margin.quantity.replace('_', ' ')} of ", "higher", "lower")
        )
        unit = pretty_unit(margin.unit)
        amount = f"{abs(margin.change):.1f} {unit}".rstrip()
        sds = (
            ""
            if margin.standard_deviations is None
            else f" ({margin.standard_deviations:.1f} standard deviations)"
        )
        who = f"{of}{names.get(margin.lesion, margin.lesion)}"
        sentence = (
            f"{who} would have to be {amount} {more if margin.change > 0 else less}{sds} for {margin.verdict}"
        )
        told.append(sentence[0].upper() + sentence[1:])
    return tuple(told)


def events_of(
    course: Course, lesions: Sequence[LesionCourse], names: Mapping[str, str]
) -> tuple[tuple[date, str], ...]:
    """Return what happened to lesions besides growing and shrinking, by date and lesion."""
    called = {
        lesion.tracking_uid: f"{lesion.code} ({lesion.name})" if lesion.name else lesion.code
        for lesion in lesions
    }
    told: dict[tuple[date, str], None] = {}
    for one in course.sightings:
        said = _event(one, names) if one.counts else coded(one.note, names)
        for words in filter(None, (said, *(coded(remark, names) for remark in one.remarks))):
            told[one.date, f"{called[one.lesion]}: {words}"] = None
    return tuple(sorted(told, key=lambda event: event[0]))


def _event(one: Sighting, names: Mapping[str, str]) -> str:
    """Return what happened to a lesion at a visit, empty when it is simply there."""
    link = one.link
    if linked_by := _linked_by(one):
        return f"linked by {linked_by}"
    if link is None or link.kind is Kind.SAME:
        quiet = one.status in (Status.MEASURED, Status.PRESENT)
        counted_mm = _counted_mm(one.status, [one], "short_axis" if one.node else "long_axis")
        return "" if quiet else _status_words(one.status, counted_mm)
    words = LINK_WORDS[link.kind]
    if one.whole and one.status is Status.ABSENT:
        words += ", and gone since"
    if link.kind in (Kind.MERGED, Kind.SPLIT) and link.earlier:
        before = " and ".join(dict.fromkeys(names.get(uid, uid) for uid in link.earlier))
        words += f" (before: {before})"
    if one.status is Status.NOT_EVALUABLE:
        words += ", so not evaluable"
    if is_unconfirmed(one):
        words += ", not confirmed by a person and not counted"
    return f"{words}: {coded(link.reason, names).rstrip('.')} (confidence {link.confidence:.2f})"


def _linked_by(one: Sighting) -> str:
    """Return who said which lesion this is, against or beside the tracking; empty when nobody did."""
    return next((d.author for d in reversed(one.decisions) if d.kind == "relink"), "")


def corrections_of(course: Course, names: Mapping[str, str]) -> tuple[Correction, ...]:
    """Return what people decided, each decision once, and who declared which patients to be one, by time."""
    found: dict[int, Correction] = {}
    for one in course.sightings:
        for made in one.decisions:
            words = decision_words(made, names)
            correction = Correction(at=made.at, author=made.author, lesion=names[one.lesion], words=words)
            found.setdefault(made.number, correction)
    ordered = [found[number] for number in sorted(found)]
    return tuple(sorted([*map(_merge, course.merges), *ordered], key=lambda one: one.at))


def decision_words(made: Decision, names: Mapping[str, str]) -> str:
    """Return a choice in words, with its note; `names` are those of lesions by Tracking UID."""
    words = DECISIONS.get(made.kind, f"{made.kind}: VALUE")
    if made.value == "false":
        words = CONTRARY.get(made.kind, words)
    note = f" ({made.note})" if made.note else ""
    return words.replace("VALUE", coded(made.value, names)) + note


def _merge(made: Merged) -> Correction:
    one, other = (
        f"{patient_id} ({issuer})" if issuer else patient_id
        for patient_id, issuer in ((made.patient_id, made.issuer), (made.into_patient_id, made.into_issuer))
    )
    note = f" ({made.note})" if made.note else ""
    return Correction(at=made.at, author=made.author, lesion="", words=f"{one} is the patient {other}{note}")


def made_of(course: Course) -> tuple[Made, ...]:
    """Return the analyses whose numbers stand in the course, by their first visit."""
    dates: dict[tuple[str, str, str], dict[date, None]] = defaultdict(dict)
    for one in course.sightings:
        if one.plugin:
            dates[one.plugin, one.plugin_version, one.model_sha256][one.date] = None
    return tuple(
        Made(plugin=plugin, version=version, model_sha256=sha256, dates=tuple(days))
        for (plugin, version, sha256), days in dates.items()
    )


def densities_of(course: Course) -> tuple[DensityCourse, ...]:
    """Return each number of the density of each region over time; of several on one date the last counts."""
    found: dict[tuple[str, str], list[Density]] = defaultdict(list)
    for one in course.densities:
        for name in NAMES:
            if name in one.measurements:
                found[one.region, name].append(one)
    courses = []
    for (region, name), own in found.items():
        last = own[-1].measurements[name]
        courses.append(
            DensityCourse(
                region=region,
                name=name,
                quantity=last.concept.meaning if last.concept else name,
                unit=pretty_unit(last.unit),
                method=last.method,
                values={one.date: one.measurements[name].value for one in own},
                made_by=tuple(dict.fromkeys(one.made_by for one in own)),
            )
        )
    return tuple(sorted(courses, key=lambda one: (one.region, NAMES.index(one.name))))


__all__ = [
    "coded", "codes_of", "corrections_of", "decision_words", "densities_of", "events_of", "lesions_of", "made_of",
    "margins_in_words", "visits_of",
]  # fmt: skip
