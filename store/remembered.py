"""What the rows and files know of a patient's past, gathered for one job."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import date

from sqlmodel import Session, col, select

from store import jobs
from store.chosen import chosen
from store.course import course
from store.identity import drawn
from store.objects import ObjectStore
from store.patients import same_person
from store.priors import EarlierStudy, earlier, later, outstanding
from store.retrack import SEG, passed
from store.strangers import apart, of_others
from store.tables import Finding, Job, LesionLink, Patient, Result, Revision, Study
from store.tracking.past import EarlierResults, Named, Past, Relinked, Said, SeriesFiles

NO_IMAGES = ("1.2.840.10008.5.1.4.1.1.66", "1.2.840.10008.5.1.4.1.1.88", "1.2.840.10008.5.1.4.1.1.481")
"""So begin the SOP classes that hold no image to compare: SEG, SR, RT."""


def past_of(session: Session, objects: ObjectStore, job: Job, limit: int) -> Past:
    """Return what a job is told of the patient's past, of at most `limit` earlier studies and the next later one.

    A patient without PatientID has no past but that of the study itself. Files that are gone are left out.
    """
    revision = session.get_one(Revision, job.revision_pk)
    study = session.get_one(Study, revision.study_pk)
    patient = session.get_one(Patient, study.patient_pk)
    members = same_person(session, study.patient_pk)
    left = apart(session, members)
    same, said, last = _same(session, objects, job, study, members)
    before = None
    if last in left.jobs:
        before, _, _ = _same(session, objects, job, study, members, left.jobs)
    strangers = tuple(sorted({*_strangers(session, study, members), *left.uids}))
    if not patient.patient_id:
        return Past(same=same, said=said, before=before, strangers=strangers)
    pk = int(study.id or 0)
    names = _names(session, job, study, left.uids)
    others = {one.tracking_uid for plugin, given in names.items() if plugin != job.plugin for one in given}
    known = passed(session, members)
    run = known.run_of(last)
    relinked, rejected = _choices(session, study, job.plugin)
    return Past(
        earlier=_results(objects, reversed(earlier(session, pk)), limit),
        later=_results(objects, later(session, pk), min(limit, 1)),
        same=same,
        said=said,
        before=before,
        has_news=run is not None and known.news(job.plugin, run) is not None,
        names=names.get(job.plugin, ()),
        others=tuple(sorted(others)),
        strangers=strangers,
        relinked=relinked,
        rejected=rejected,
        lacking=outstanding(session, pk),
    )


def _results(objects: ObjectStore, studies: Iterable[EarlierStudy], limit: int) -> tuple[EarlierResults, ...]:
    """Return the first `limit` studies that hold a SEG of ours."""
    found: list[EarlierResults] = []
    for study in studies:
        segs = [one.sha256 for one in study.results if one.sop_class_uid == SEG]
        if not segs:
            continue
        if len(found) == limit:
            break
        images: dict[str, list[str]] = {}
        for one in study.objects:
            if not one.sop_class_uid.startswith(NO_IMAGES):
                images.setdefault(one.series_instance_uid, []).append(one.sha256)
        found.append(
            EarlierResults(
                study_instance_uid=study.study_instance_uid,
                study_date=study.study_date.isoformat(),
                segmentations=_files(objects, segs),
                images=tuple(
                    SeriesFiles(series_instance_uid=uid, files=_files(objects, hashes))
                    for uid, hashes in images.items()
                ),
            )
        )
    return tuple(found)


def _files(objects: ObjectStore, hashes: Sequence[str]) -> tuple[str, ...]:
    paths = [objects.path(sha256) for sha256 in hashes]
    return tuple(str(path) for path in paths if path.is_file())


def _same(
    session: Session,
    objects: ObjectStore,
    job: Job,
    study: Study,
    members: Sequence[int],
    without: Collection[int] = (),
) -> tuple[EarlierResults | None, tuple[Said, ...], int]:
    """Return what the newest other job of the analysis on the study made and said, and its row, if one ended.

    What was made while the study was another patient's is left out, and the jobs `without`.
    """
    statement = (
        select(Job.id)
        .join(Revision, col(Revision.id) == col(Job.revision_pk))
        .join(Result, col(Result.job_pk) == col(Job.id))
        .where(col(Revision.study_pk) == study.id, col(Job.plugin) == job.plugin, col(Job.id) != job.id)
        .where(col(Job.state).in_((jobs.DELIVERING, jobs.DONE)), ~of_others(members))
        .where(col(Job.id).not_in(without))
        .order_by(col(Revision.number).desc(), col(Job.id).desc())
    )
    last = session.exec(statement.limit(1)).first()
    if last is None:
        return None, (), 0
    segs = select(Result.sha256).where(col(Result.job_pk) == last, col(Result.kind) == "seg")
    same = EarlierResults(
        study_instance_uid=study.study_instance_uid,
        study_date=(study.study_date or date.min).isoformat(),
        segmentations=_files(objects, session.exec(segs.order_by(col(Result.id))).all()),
    )
    rows = session.exec(
        select(LesionLink).where(col(LesionLink.job_pk) == last).order_by(col(LesionLink.id))
    ).all()
    said = tuple(
        Said(
            tracking_uid=row.tracking_uid,
            study_instance_uid=row.earlier_study_instance_uid,
            confidence=row.confidence,
        )
        for row in rows
    )
    return same, said, last


def _strangers(session: Session, study: Study, members: Sequence[int]) -> tuple[str, ...]:
    """Return the Tracking UIDs that were given in the study while it was another patient's."""
    given = select(Finding.tracking_uid).where(
        col(Finding.study_pk) == study.id, col(Finding.patient_pk).not_in(members)
    )
    return tuple(sorted(set(session.exec(given))))


def _names(
    session: Session, job: Job, study: Study, strangers: Collection[str]
) -> dict[str, tuple[Named, ...]]:
    """Return the identities that each analysis gave in the patient, in any study and revision, by UID."""
    statement = (
        select(Job.plugin, Finding.tracking_uid, Finding.tracking_identifier)
        .join(Job, col(Job.id) == col(Finding.job_pk))
        .where(
            col(Finding.patient_pk).in_(same_person(session, study.patient_pk)),
            col(Job.id) != job.id,
        )
        .distinct()
        .order_by(col(Finding.tracking_uid), col(Finding.tracking_identifier))
    )
    names: dict[str, tuple[Named, ...]] = {}
    for plugin, uid, identifier in session.exec(statement):
        if uid in strangers:
            continue
        one = Named(tracking_uid=uid, tracking_identifier=identifier)
        names[plugin] = (*names.get(plugin, ()), one)
    return names


def _choices(session: Session, study: Study, plugin: str) -> tuple[tuple[Relinked, ...], tuple[str, ...]]:
    """Return what people said of who is who, as it is now, and which lesions they called none.

    What an analysis drew itself is told as that: two analyses may write one Tracking UID for what was told apart.
    """
    decided = chosen(session, study.patient_pk)
    if not decided.decisions:
        return (), ()
    relinks = decided.relinks
    now = {
        (uid, at): Relinked(
            tracking_uid=uid, study_instance_uid=at, other_uid=one.value, before_uid=uid, is_decided=True
        )
        for (uid, at), one in relinks.items()
    }
    seen = [one for one in course(session, study.patient_pk).sightings if drawn(one)]
    for one in sorted(seen, key=lambda one: one.plugin == plugin):
        place = (one.written_uid, one.study_instance_uid)
        is_decided = (one.choice_uid, one.study_instance_uid) in relinks
        if is_decided or one.tracking_uid != one.written_uid or place in now:
            now[place] = Relinked(
                tracking_uid=one.written_uid,
                study_instance_uid=one.study_instance_uid,
                other_uid=one.tracking_uid,
                before_uid=one.choice_uid,
                is_decided=is_decided,
            )
    relinked = tuple(now[place] for place in sorted(now))
    rejects = {
        one.tracking_uid: one.value
        for one in decided.counting
        if one.kind == "reject" and not one.study_instance_uid
    }
    return relinked, tuple(sorted(uid for uid, value in rejects.items() if value == "true"))


__all__ = ["past_of"]
