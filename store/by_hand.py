"""What people measured by hand: reports of theirs on lesions of the patient.

A lesion is known by its Tracking UID. Viewers that give their own have drawn a line: it is of the one lesion of the
study in whose middle it lies.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import lru_cache, partial

import numpy as np
from pydicom import Dataset
from sqlmodel import Session, col, select

from plugins import codes
from store.dicom.image_line import Point, in_space
from store.dicom.items import same
from store.dicom.measured import MeasuredGroup, MeasuredNumber, MeasuredReport
from store.elsewhere import read_report, sighting_of
from store.identity import drawn
from store.object_header import header_of
from store.objects import ObjectStore
from store.sighting import Measure, Sighting
from store.sightings import Dated
from store.tables import Instance, Series

PLUGIN = "report"
"""What stands for the analysis of a sighting that a person measured."""
REPORTS = ("1.2.840.10008.5.1.4.1.1.88.22", "1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.88.34")
"""Enhanced, Comprehensive and Comprehensive 3D SR."""
SIZES = ("long_axis", "short_axis", "volume")
ALIKE_MM = 1.0
"""Axes that differ by no more may be of one round lesion, measured twice."""
ReadHeader = Callable[[str], Dataset | None]
"""Gives the header of an object by its sha256, as `header_of`."""


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    """Where something was measured."""

    ends_mm: dict[str, tuple[Point, Point]]
    """Ends of each line, LPS mm, by the name of what was measured."""
    series_instance_uid: str
    """Series of the images; empty when none of them is here."""
    frame_of_reference_uid: str
    """Its frame of reference."""


def measured_by_hand(
    session: Session, objects: ObjectStore, studies: Sequence[Dated], found: Sequence[Sighting]
) -> tuple[Sighting, ...]:
    """Return what was `found`, and what people measured of these lesions, at each study the newest of each.

    A report is a person's when it names one as its observer. Groups of one report with one Tracking UID are one. Sizes
    that are none are left out and told in remarks, of what was found where a person gave nothing else.
    """
    when = {pk: (uid, on) for pk, uid, on in studies}
    statement = (
        select(Series.study_pk, Instance.sha256)
        .join(Series, col(Series.id) == col(Instance.series_pk))
        .where(col(Series.study_pk).in_(when), ~col(Instance.own), col(Instance.current))
        .where(col(Instance.sop_class_uid).in_(REPORTS))
        .order_by(col(Instance.sop_instance_uid))
    )
    read = [(study_pk, read_report(objects, sha256)) for study_pk, sha256 in session.exec(statement).all()]
    reports = [(study_pk, report) for study_pk, report in read if report is not None and report.person]
    replaced = {uid for _, report in reports for uid in report.replaces}
    newest: dict[tuple[str, str], Sighting] = {}
    header: ReadHeader = lru_cache(64)(
        partial(header_of, objects)
    )  # most lines of a report are on few images
    for study_pk, report in sorted(reports, key=lambda pair: _made_at(pair[1])):
        if report.sop_instance_uid not in replaced:
            places = [[_drawn(session, header, one) for one in _apart(group)] for group in report.groups]
            for one in _sightings(report, places, *when[study_pk], found):
                place = (one.study_instance_uid, one.tracking_uid)
                before = newest.get(place)
                if before is not None and not _is_sized(one):
                    one = replace(before, remarks=(*before.remarks, *one.remarks))
                newest[place] = one
    by_hand = [one for one in newest.values() if _is_sized(one)]
    unusable = {place: one.remarks for place, one in newest.items() if not _is_sized(one)}
    return (*(_remarked(one, unusable) for one in found), *by_hand)


def with_rest(one: Sighting, group: Sequence[Sighting]) -> Sighting:
    """Return what a report measured with the other numbers of the first drawing of its lesion there, if there is one.

    An axis that does not fit the person's, a short one longer than the long one, is left out and told.
    """
    place = (one.tracking_uid, one.study_instance_uid, one.status)
    alike = [s for s in group if (s.tracking_uid, s.study_instance_uid, s.status) == place]
    ours = next((s for s in alike if drawn(s) and s.plugin != PLUGIN), None)
    if ours is None:
        return one
    made_by = f"{ours.plugin} {ours.plugin_version}".strip()
    rest = {n: replace(m, made_by=made_by) for n, m in ours.measurements.items() if n not in one.measurements}
    every = {**rest, **one.measurements}
    long, short = every.get("long_axis"), every.get("short_axis")
    unfit = [name for name in ("long_axis", "short_axis") if name in rest]
    if long is None or short is None or short.value <= long.value + ALIKE_MM or len(unfit) != 1:
        return replace(one, measurements=every)
    words = (
        f"A short axis of {short.value:g} mm does not fit a long axis of {long.value:g} mm: the "
        f"{unfit[0].replace('_', ' ')} of '{ours.plugin}' is left out, and a person has to measure both."
    )
    del every[unfit[0]]
    return replace(one, measurements=every, remarks=(*one.remarks, words))


def _made_at(report: MeasuredReport) -> str:
    return "" if report.made_at is None else report.made_at.isoformat()


def _is_sized(one: Sighting) -> bool:
    return any(name in one.measurements for name in SIZES)


def _remarked(one: Sighting, unusable: Mapping[tuple[str, str], tuple[str, ...]]) -> Sighting:
    """Return what was found with what is to be told of what a person gave in vain."""
    remarks = unusable.get((one.study_instance_uid, one.written_uid), ())
    return replace(one, remarks=(*one.remarks, *remarks)) if remarks else one


def _sightings(
    report: MeasuredReport,
    places: Sequence[Sequence[_Drawn]],
    study_instance_uid: str,
    on: date,
    found: Sequence[Sighting],
) -> list[Sighting]:
    known = {uid for one in found for uid in (one.written_uid, one.choice_uid)}
    there = [one for one in found if one.study_instance_uid == study_instance_uid and drawn(one)]
    made: defaultdict[str, list[Sighting]] = defaultdict(list)
    for group, where in zip(report.groups, places, strict=True):
        if group.is_time_point:
            continue
        own = [
            _placed(sighting_of(part, report, study_instance_uid, on, {}), place)
            for part, place in zip(_apart(group), where, strict=True)
        ]
        if group.tracking_uid in known:
            of = next((s for s in there if s.written_uid == group.tracking_uid), None)
            own = [replace(one, before_uid="" if of is None else of.before_uid) for one in own]
        elif (of := next((of for one in own if (of := _beneath(one, there)) is not None), None)) is not None:
            own = [_called(one, of) for one in own]
        else:
            continue
        words = tuple(_unusable_words(number, report.person) for number in group.unusable)
        made[own[0].tracking_uid] += [replace(own[0], remarks=words), *own[1:]]
    together = (_together(own, report.person) for own in made.values())
    return [one for one in together if _is_sized(one) or one.remarks]


def _apart(group: MeasuredGroup) -> list[MeasuredGroup]:
    """Return a group in parts of which each gives a number of one name once."""
    parts: list[dict[str, MeasuredNumber]] = [{}]
    for number in group.numbers:
        free = next((part for part in parts if number.name not in part), None)
        if free is None:
            parts.append(free := {})
        free[number.name] = number
    return [replace(group, numbers=tuple(part.values())) for part in parts]


def _together(parts: Sequence[Sighting], person: str) -> Sighting:
    """Return what one report says of a lesion: of several values of a size the largest, one called an axis first."""
    measurements = {name: m for part in parts for name, m in part.measurements.items()}
    remarks = [words for part in parts for words in part.remarks]
    for name in SIZES:
        given = [part.measurements[name] for part in parts if name in part.measurements]
        if len({m.value for m in given}) > 1:
            best = measurements[name] = max(given, key=lambda m: (not _is_plain(m), m.value))
            values = " and ".join(f"{m.value:g} {m.unit}" for m in given)
            remarks.append(
                f"{person} gave its {name.replace('_', ' ')} as {values}, of which {best.value:g} {best.unit} counts"
                + (
                    "; a length that is not called an axis is taken for a long one."
                    if _is_plain(best)
                    else "."
                )
            )
    return replace(
        parts[0],
        measurements=measurements,
        remarks=tuple(remarks),
        automatic=False,
        plugin=PLUGIN,
        plugin_version="",
        model_sha256="",
        confidence=None,
    )


def _is_plain(measure: Measure) -> bool:
    """Return whether a report calls a number a length or a diameter, not one of the axes."""
    return same(measure.concept, codes.LENGTH) or same(measure.concept, codes.DIAMETER)


def _unusable_words(number: MeasuredNumber, person: str) -> str:
    given = f"{number.value:g} {number.unit or 'of no unit'}"
    return f"{person} gave its {number.name.replace('_', ' ')} as {given}, which is no size and is left out."


def _placed(one: Sighting, place: _Drawn) -> Sighting:
    """Return what was measured with where that was."""
    measurements = {
        name: replace(m, end_points_mm=place.ends_mm.get(name)) for name, m in one.measurements.items()
    }
    ends = next((place.ends_mm[name] for name in SIZES if name in place.ends_mm), None)
    middle = None if ends is None else tuple(float(x) for x in np.mean(ends, axis=0))
    return replace(
        one,
        measurements=measurements,
        centroid_mm=one.centroid_mm if middle is None else (middle[0], middle[1], middle[2]),
        series_instance_uid=place.series_instance_uid or one.series_instance_uid,
        frame_of_reference_uid=place.frame_of_reference_uid or one.frame_of_reference_uid,
    )


def _beneath(one: Sighting, there: Sequence[Sighting]) -> Sighting | None:
    """Return the only lesion that a line was drawn across: their middles are within half of the shorter length."""
    axis = one.measurements.get("long_axis")
    if (
        axis is None
        or axis.end_points_mm is None
        or one.centroid_mm is None
        or not one.frame_of_reference_uid
    ):
        return None
    near: dict[str, Sighting] = {}
    for other in there:
        length = other.measurements.get("long_axis")
        if length is None or other.centroid_mm is None or other.on_pet:
            continue
        is_near = math.dist(one.centroid_mm, other.centroid_mm) <= min(length.value, axis.value) / 2
        if is_near and other.frame_of_reference_uid == one.frame_of_reference_uid:
            near[other.written_uid] = other
    return next(iter(near.values())) if len(near) == 1 else None


def _called(one: Sighting, other: Sighting) -> Sighting:
    """Return what was measured as that of a lesion."""
    names = ("lesion", "tracking_uid", "written_uid", "before_uid", "label")
    what = ("type", "type_code", "site", "site_code", "node")
    return replace(one, **{name: getattr(other, name) for name in (*names, *what)})


def _drawn(session: Session, header: ReadHeader, group: MeasuredGroup) -> _Drawn:
    """Return where the lines of a group lie; those on images that are not here lie nowhere."""
    lines = [number for number in group.numbers if number.line is not None]
    ends: dict[str, tuple[Point, Point]] = {}
    series, frame = "", ""
    for number in lines:
        statement = (
            select(Series.series_instance_uid, Series.frame_of_reference_uid, Instance.sha256)
            .join(Instance, col(Instance.series_pk) == col(Series.id))
            .where(col(Instance.sop_instance_uid) == (number.sop_instance_uid or ""), col(Instance.current))
        )
        image = session.exec(statement).first()
        if image is not None:
            series, frame = image[0], image[1]
        where = _ends(number, None if image is None else image[2], header)
        if where is not None:
            ends[number.name] = where
    return _Drawn(ends_mm=ends, series_instance_uid=series, frame_of_reference_uid=frame)


def _ends(number: MeasuredNumber, sha256: str | None, header: ReadHeader) -> tuple[Point, Point] | None:
    assert number.line is not None
    if len(number.line[0]) == 3:
        (a, b, c), (d, e, f) = number.line
        return (a, b, c), (d, e, f)
    image = None if sha256 is None else header(sha256)
    return None if image is None else in_space(image, number.line)


__all__ = ["PLUGIN", "SIZES", "measured_by_hand", "with_rest"]
