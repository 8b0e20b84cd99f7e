"""What was measured elsewhere: results of Nadir that came from the PACS, read back from their SRs and SEGs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from sqlmodel import Session, col, select

from plugins import codes
from store.dicom.items import same
from store.dicom.measured import MeasuredGroup, MeasuredNumber, MeasuredReport, read_measured
from store.dicom.values import quiet
from store.normal import NormalTissue
from store.object_header import header_of
from store.objects import ObjectStore
from store.response.history import Status
from store.sighting import Measure, Sighting
from store.sightings import Dated, is_lesion
from store.tables import Instance, Result, Series


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """What the reports say that other nodes wrote."""

    sightings: tuple[Sighting, ...] = ()
    """The lesions."""
    analysed: tuple[tuple[date, str], ...] = ()
    """On which dates which analysis wrote a report."""
    normal: tuple[NormalTissue, ...] = ()
    """Their liver references."""


def found_elsewhere(
    session: Session, objects: ObjectStore, studies: Sequence[Dated], here: Collection[tuple[str, str]]
) -> Elsewhere:
    """Return what our reports say that this node did not write.

    `here` are the (Study Instance UID, analysis) that this node has results of: those count alone. Of the reports of
    an analysis on a study the newest counts, a volumetric before a planar one. End points are not read: a length has
    the image it was drawn on only where the report says so. Objects that are gone or broken are passed over.
    """
    when = {pk: (uid, on) for pk, uid, on in studies}
    rows = session.exec(
        select(Series.study_pk, Series.modality, Instance.sop_instance_uid, Instance.sha256)
        .join(Series, col(Series.id) == col(Instance.series_pk))
        .where(col(Series.study_pk).in_(when), col(Instance.own), col(Instance.current))
        .where(col(Instance.sop_instance_uid).not_in(select(Result.sop_instance_uid)))
        .order_by(col(Instance.sop_instance_uid))
    ).all()
    segs = {uid: sha256 for _, modality, uid, sha256 in rows if modality == "SEG"}
    reports: defaultdict[tuple[int, str], list[MeasuredReport]] = defaultdict(list)
    for study_pk, modality, _, sha256 in rows:
        report = read_report(objects, sha256) if modality == "SR" else None
        if report is not None and (when[study_pk][0], report.device) not in here:
            reports[study_pk, report.device].append(report)
    found: list[Sighting] = []
    wrote: set[tuple[date, str]] = set()
    normal: list[NormalTissue] = []
    for (study_pk, plugin), own in reports.items():
        uid, on = when[study_pk]
        newest = _newest(own)
        if newest is not None:
            wrote.add((on, plugin))
            found += [sighting_of(group, newest, uid, on, segs) for group in _lesions(newest)]
            normal += [_normal(group, on) for group in newest.groups if _is_liver(group)]
    return Elsewhere(sightings=tuple(found), analysed=tuple(sorted(wrote)), normal=tuple(normal))


def read_report(objects: ObjectStore, sha256: str) -> MeasuredReport | None:
    """Return what an SR in the object store says; None when it is gone or broken."""
    header = header_of(objects, sha256)
    with quiet():
        return None if header is None else read_measured(header)


def _newest(reports: Sequence[MeasuredReport]) -> MeasuredReport | None:
    """Return the report that counts of one analysis on one study; reports of several time points are none."""
    replaced = {uid for one in reports for uid in one.replaces}
    standing = [
        one
        for one in reports
        if one.sop_instance_uid not in replaced and not any(group.is_time_point for group in one.groups)
    ]
    return max(standing, key=_rank, default=None)


def _rank(report: MeasuredReport) -> tuple[str, int, str]:
    made_at = "" if report.made_at is None else report.made_at.isoformat()
    return made_at, sum(group.segment is not None for group in report.groups), report.sop_instance_uid


def _lesions(report: MeasuredReport) -> Iterable[MeasuredGroup]:
    return (
        group for group in report.groups if group.tracking_uid and is_lesion(group.finding, group.category)
    )


def _is_liver(group: MeasuredGroup) -> bool:
    return same(group.finding, codes.REFERENCE_REGION) and same(group.site, codes.LIVER)


def _normal(group: MeasuredGroup, on: date) -> NormalTissue:
    return NormalTissue(
        date=on,
        series_instance_uid=group.series_instance_uid,
        measurements={number.name: _measure(number) for number in group.numbers},
    )


def sighting_of(
    group: MeasuredGroup, report: MeasuredReport, study_instance_uid: str, on: date, segs: Mapping[str, str]
) -> Sighting:
    """Return a group of a report as a sighting; `segs` are the SEGs that are here, by SOP Instance UID."""
    numbers = {number.name: number for number in group.numbers}
    confidence = numbers.pop("confidence", None)
    seg, segment = group.segment or ("", None)
    site = group.site
    return Sighting(
        lesion=group.tracking_uid,
        tracking_uid=group.tracking_uid,
        written_uid=group.tracking_uid,
        label=group.tracking_identifier or group.tracking_uid,
        study_instance_uid=study_instance_uid,
        date=on,
        series_instance_uid=group.series_instance_uid or study_instance_uid,
        segment_number=segment,
        seg_sha256=segs.get(seg),
        type="" if group.finding is None else group.finding.meaning,
        type_code=group.finding,
        site="" if site is None else site.meaning,
        site_code=site,
        node=same(group.finding, codes.LYMPH_NODE) or same(site, codes.LYMPH_NODE),
        status=Status.MEASURED if numbers else Status.PRESENT,
        measurements={name: _measure(number) for name, number in numbers.items()},
        confidence=None if confidence is None else confidence.value / 100,
        automatic=report.device != "contours",
        plugin=report.device,
        plugin_version=report.version,
        model_sha256=report.model_sha256,
    )


def _measure(number: MeasuredNumber) -> Measure:
    return Measure(
        value=number.value,
        unit=number.unit,
        uncertainty=number.uncertainty,
        sop_instance_uid=number.sop_instance_uid,
        method=number.method,
        concept=number.concept,
    )


__all__ = ["Elsewhere", "found_elsewhere", "read_report", "sighting_of"]
