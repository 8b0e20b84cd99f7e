"""What people measured by hand: reports of theirs that carry the Tracking UID of a lesion of the patient."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import date

from sqlmodel import Session, col, select

from store.dicom.measured import MeasuredReport
from store.elsewhere import read_report, sighting_of
from store.objects import ObjectStore
from store.sighting import Sighting
from store.sightings import Dated
from store.tables import Instance, Series

PLUGIN = "report"
"""What stands for the analysis of a sighting that a person measured."""
REPORTS = ("1.2.840.10008.5.1.4.1.1.88.22", "1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.88.34")
"""Enhanced, Comprehensive and Comprehensive 3D SR."""
SIZES = ("long_axis", "short_axis", "volume")


def measured_by_hand(
    session: Session, objects: ObjectStore, studies: Sequence[Dated], known: Collection[str]
) -> tuple[Sighting, ...]:
    """Return what people measured of lesions that are `known` by their Tracking UIDs, at each study the newest of each.

    A report is a person's when it names one as its observer. Groups of one report with one Tracking UID are one.
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
    newest: dict[tuple[str, str], tuple[str, Sighting]] = {}
    for study_pk, report in reports:
        if report.sop_instance_uid not in replaced:
            made_at = "" if report.made_at is None else report.made_at.isoformat()
            for one in _sightings(report, *when[study_pk], known):
                place = (one.study_instance_uid, one.tracking_uid)
                if place not in newest or newest[place][0] <= made_at:
                    newest[place] = (made_at, one)
    return tuple(one for _, one in newest.values())


def _sightings(
    report: MeasuredReport, study_instance_uid: str, on: date, known: Collection[str]
) -> list[Sighting]:
    found: dict[str, Sighting] = {}
    for group in report.groups:
        if group.tracking_uid in known and not group.is_time_point:
            one = sighting_of(group, report, study_instance_uid, on, {})
            if (before := found.get(group.tracking_uid)) is not None:
                one = replace(before, measurements={**before.measurements, **one.measurements})
            found[group.tracking_uid] = replace(
                one, automatic=False, plugin=PLUGIN, plugin_version="", model_sha256="", confidence=None
            )
    return [one for one in found.values() if any(name in one.measurements for name in SIZES)]


__all__ = ["PLUGIN", "SIZES", "measured_by_hand"]
