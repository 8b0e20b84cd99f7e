"""What this node found in a patient's studies, and what its tracking said, read from the rows as they count now."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import date
from typing import Any

from pydicom.sr.coding import Code
from sqlmodel import Session, col, select

from plugins import codes
from store.dicom.items import same
from store.model_tables import SeriesFact
from store.response.history import Status
from store.sighting import Measure, Point, Sighting, Tracked
from store.strangers import of_others
from store.tables import Finding, Job, LesionLink, Measurement, Result, Revision, Series, Study
from store.tracking.link import Kind

LESIONS = (
    codes.LESION,
    codes.NODULE,
    codes.MASS,
    codes.NEOPLASM,
    codes.NEOPLASM_PRIMARY,
    codes.NEOPLASM_SECONDARY,
    codes.GROSS_TUMOR_VOLUME,
    codes.LYMPH_NODE,
)
"""Types of findings that are lesions, besides all that are coded as abnormal."""
COUNTING = ("delivering", "done")
"""States of a job whose results count."""
UNDRAWN = {
    Kind.GONE: Status.ABSENT,
    Kind.OUT_OF_VIEW: Status.NOT_EVALUABLE,
    Kind.NOT_SEGMENTED: Status.NOT_EVALUABLE,
}
"""What a link without a finding says of its lesion."""
Dated = tuple[int, str, date]
"""Row, Study Instance UID and Study Date of a study."""


def studies_of(session: Session, patient_pks: Sequence[int]) -> tuple[Dated, ...]:
    """Return the studies of patients that have a date, oldest first."""
    statement = (
        select(Study)
        .where(col(Study.patient_pk).in_(patient_pks), col(Study.study_date).is_not(None))
        .order_by(col(Study.study_date), col(Study.study_instance_uid))
    )
    return tuple(
        (int(row.id or 0), row.study_instance_uid, row.study_date)
        for row in session.exec(statement)
        if row.study_date is not None
    )


def found_here(
    session: Session, studies: Sequence[Dated], patient_pks: Sequence[int], superseded: bool = False
) -> tuple[Sighting, ...]:
    """Return what counts of the lesions in these studies, by date, study and row; no choice is applied.

    With `superseded` what counted before instead. What was found while a study was another patient's than one of these
    rows is none of theirs. Lungs, organs and reference regions are none. A drawing whose Tracking UID is that of a
    lesion is one, whatever its code.
    """
    when = {pk: (uid, on) for pk, uid, on in studies}
    rows = session.exec(
        select(Finding, Job)
        .join(Job, col(Job.id) == col(Finding.job_pk))
        .where(col(Finding.study_pk).in_(when), col(Finding.superseded) == superseded)
        .where(col(Job.state).in_(COUNTING))
        .where(col(Finding.patient_pk).in_(patient_pks))
        .order_by(col(Finding.id))
    ).all()
    jobs = {int(job.id or 0): (job, finding.study_pk) for finding, job in rows}
    links = _links(session, list(when), patient_pks, superseded)
    linked = {link.finding_pk: link for link, *_ in links if link.finding_pk is not None}
    measures = measures_of(session, [int(finding.id or 0) for finding, _ in rows])
    segs = _segs(session, [finding for finding, _ in rows], list(jobs))
    frames = _frames(session, {finding.series_instance_uid for finding, _ in rows})
    known = {f.tracking_uid for f, _ in rows if finding_is_lesion(f) or f.id in linked}
    found = [
        replace(
            _sighting(
                finding, job, *when[finding.study_pk], linked.get(int(finding.id or 0)), measures, segs
            ),
            frame_of_reference_uid=frames.get(finding.series_instance_uid, ""),
        )
        for finding, job in rows
        if finding.tracking_uid in known
    ]
    labels = {one.written_uid: one.label for one in found}
    found += [
        _undrawn(link, job, *when[study_pk], labels)
        for link, job, study_pk in links
        if link.finding_pk is None and Kind(link.kind) in UNDRAWN
    ]
    return tuple(sorted(found, key=lambda one: (one.date, one.study_instance_uid)))


def analysed_on(
    session: Session, studies: Sequence[Dated], patient_pks: Sequence[int]
) -> tuple[tuple[int, date, str], ...]:
    """Return of which studies, on which dates, which analysis of this node gave a result that counts, also none.

    What it found for another patient than one of these rows does not count.
    """
    when = {pk: on for pk, _, on in studies}
    statement = (
        select(Revision.study_pk, Job.plugin)
        .join(Job, col(Job.revision_pk) == col(Revision.id))
        .join(Result, col(Result.job_pk) == col(Job.id))
        .where(col(Revision.study_pk).in_(when), col(Job.state).in_(COUNTING), ~of_others(patient_pks))
        .distinct()
    )
    return tuple(sorted((study_pk, when[study_pk], plugin) for study_pk, plugin in session.exec(statement)))


def is_lesion(kind: Code | None, category: Code | None) -> bool:
    """Return whether a finding of this type and category is a lesion, not an organ or a place to measure at."""
    return same(category, codes.MORPHOLOGICALLY_ABNORMAL) or any(same(kind, one) for one in LESIONS)


def finding_is_lesion(finding: Finding) -> bool:
    """Return whether a finding of ours is a lesion."""
    return is_lesion(_type(finding), _category(finding))


def _type(finding: Finding) -> Code:
    return Code(finding.type_value, finding.type_scheme, finding.type_meaning)


def _category(finding: Finding) -> Code:
    return Code(finding.category_value, finding.category_scheme, finding.category_meaning)


def _links(
    session: Session, study_pks: Sequence[int], patient_pks: Sequence[int], superseded: bool
) -> list[tuple[LesionLink, Job, int]]:
    statement = (
        select(LesionLink, Job, Revision.study_pk)
        .join(Job, col(Job.id) == col(LesionLink.job_pk))
        .join(Revision, col(Revision.id) == col(Job.revision_pk))
        .where(col(Revision.study_pk).in_(study_pks), col(LesionLink.superseded) == superseded)
        .where(col(Job.state).in_(COUNTING))
        .where(col(LesionLink.patient_pk).in_(patient_pks))
        .order_by(col(LesionLink.id))
    )
    return [(link, job, study_pk) for link, job, study_pk in session.exec(statement)]


def measures_of(session: Session, finding_pks: Sequence[int]) -> dict[int, dict[str, Measure]]:
    """Return the measurements of each finding by our names; a finding without any is not among them."""
    found: defaultdict[int, dict[str, Measure]] = defaultdict(dict)
    statement = select(Measurement).where(col(Measurement.finding_pk).in_(finding_pks))
    for row in session.exec(statement.order_by(col(Measurement.id))):
        first, last = _point(row.x1_mm, row.y1_mm, row.z1_mm), _point(row.x2_mm, row.y2_mm, row.z2_mm)
        found[row.finding_pk][row.name] = Measure(
            value=row.value,
            unit=row.unit,
            uncertainty=row.uncertainty,
            end_points_mm=None if first is None or last is None else (first, last),
            sop_instance_uid=row.sop_instance_uid,
            method=row.method,
            concept=Code(row.concept_value, row.concept_scheme, row.concept_meaning),
        )
    return found


def _frames(session: Session, series: Collection[str]) -> dict[str, str]:
    statement = select(Series.series_instance_uid, Series.frame_of_reference_uid)
    return dict(session.exec(statement.where(col(Series.series_instance_uid).in_(series))).all())


def on_slices(session: Session, sightings: Sequence[Sighting]) -> tuple[Sighting, ...]:
    """Return the sightings with the distance of the slices that they were drawn on, where an analysis told of it."""
    uids = {one.series_instance_uid for one in sightings}
    statement = select(SeriesFact.series_instance_uid, SeriesFact.slice_distance_mm)
    known = dict(session.exec(statement.where(col(SeriesFact.series_instance_uid).in_(uids))).all())
    return tuple(replace(one, slice_mm=known.get(one.series_instance_uid)) for one in sightings)


def _segs(
    session: Session, findings: Sequence[Finding], job_pks: Sequence[int]
) -> dict[tuple[int, str], str]:
    """Return the SEG of each job and source series: a job writes one for each, in the order of its findings."""
    statement = select(Result.job_pk, Result.sha256).where(col(Result.job_pk).in_(job_pks))
    written: defaultdict[int, list[str]] = defaultdict(list)
    for job_pk, sha256 in session.exec(statement.where(col(Result.kind) == "seg").order_by(col(Result.id))):
        written[job_pk].append(sha256)
    series: defaultdict[int, dict[str, None]] = defaultdict(dict)
    for finding in findings:
        series[finding.job_pk][finding.series_instance_uid] = None
    return {
        (job_pk, uid): sha256
        for job_pk, uids in series.items()
        for uid, sha256 in zip(uids, written[job_pk], strict=False)
    }


def _sighting(
    finding: Finding,
    job: Job,
    study_instance_uid: str,
    on: date,
    link: LesionLink | None,
    measures: dict[int, dict[str, Measure]],
    segs: dict[tuple[int, str], str],
) -> Sighting:
    measured = measures.get(int(finding.id or 0), {})
    is_cut = link is not None and Kind(link.kind) is Kind.CUT
    status = Status.NOT_EVALUABLE if is_cut else Status.MEASURED if measured else Status.PRESENT
    site = (finding.site_value, finding.site_scheme, finding.site_meaning)
    return Sighting(
        lesion=finding.tracking_uid,
        tracking_uid=finding.tracking_uid,
        written_uid=finding.tracking_uid,
        before_uid=finding.before_uid,
        label=finding.tracking_identifier or finding.label,
        study_instance_uid=study_instance_uid,
        date=on,
        series_instance_uid=finding.series_instance_uid,
        segment_number=finding.segment_number,
        seg_sha256=segs.get((finding.job_pk, finding.series_instance_uid)),
        type=finding.type_meaning,
        type_code=_type(finding),
        site=finding.site_meaning or "",
        site_code=Code(*map(str, site)) if all(site) else None,
        node=same(_type(finding), codes.LYMPH_NODE) or finding.site_value == codes.LYMPH_NODE.value,
        status=status,
        measurements=measured,
        centroid_mm=(finding.centroid_x_mm, finding.centroid_y_mm, finding.centroid_z_mm),
        confidence=finding.confidence,
        automatic=finding.automatic,
        link=None if link is None else _tracked(link),
        **_made_by(job),
    )


def _undrawn(
    link: LesionLink, job: Job, study_instance_uid: str, on: date, labels: dict[str, str]
) -> Sighting:
    return Sighting(
        lesion=link.tracking_uid,
        tracking_uid=link.tracking_uid,
        written_uid=link.tracking_uid,
        label=labels.get(link.tracking_uid, link.tracking_identifier),
        study_instance_uid=study_instance_uid,
        date=on,
        status=UNDRAWN[Kind(link.kind)],
        link=_tracked(link),
        **_made_by(job),
    )


def _tracked(link: LesionLink) -> Tracked:
    return Tracked(
        kind=Kind(link.kind),
        confidence=link.confidence,
        reason=link.reason,
        earlier=tuple(json.loads(link.earlier)),
        earlier_study_instance_uid=link.earlier_study_instance_uid,
        expected_mm=_point(link.expected_x_mm, link.expected_y_mm, link.expected_z_mm),
    )


def _made_by(job: Job) -> dict[str, Any]:
    return {
        "plugin": job.plugin,
        "plugin_version": job.plugin_version,
        "model_sha256": job.model_sha256,
        "made_at": job.started_at,
    }


def _point(x: float | None, y: float | None, z: float | None) -> Point | None:
    return None if x is None or y is None or z is None else (x, y, z)


__all__ = [
    "Dated",
    "analysed_on",
    "finding_is_lesion",
    "found_here",
    "is_lesion",
    "measures_of",
    "on_slices",
    "studies_of",
]
