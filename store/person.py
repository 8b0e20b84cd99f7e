"""What is known of the lesions of one person, for whoever asks which of them a drawing is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlmodel import Session, col, select

from store.chosen import Chosen, chosen
from store.course import Course, course
from store.objects import ObjectStore
from store.sightings import finding_is_lesion
from store.tables import Finding, Job, Patient, Study


@dataclass(frozen=True, kw_only=True, eq=False)
class Person:
    """What is known of one person's lesions."""

    members: Sequence[int]
    """Rows of the patients that he is, first the one that speaks for them."""
    head: Patient
    """That one."""
    course: Course
    """What was seen of each lesion."""
    chosen: Chosen
    """What people decided."""
    made_by: dict[str, tuple[str, str]]
    """Analysis and model of the newest finding of each lesion, by Tracking UID."""

    @property
    def uids(self) -> frozenset[str]:
        """Return every Tracking UID under which Nadir knows a lesion of the person."""
        seen = (uid for s in self.course.sightings if s.automatic for uid in (s.written_uid, s.tracking_uid))
        return frozenset((*seen, *self.made_by)) - {""}

    def name(self, uid: str, study_instance_uid: str) -> tuple[str, str]:
        """Return Tracking UID and lesion of what a person drew at a study, by the Tracking UID that is written there.

        It is the lesion that Nadir's own drawing of that name is there, after relinks.
        """
        seen = self.course.sightings
        there = [s for s in seen if s.study_instance_uid == study_instance_uid]
        relink = self.chosen.relinks.get((uid, study_instance_uid))
        to = uid if relink is None else relink.value
        named = [s for s in there if s.written_uid == uid and s.automatic]
        named += [s for s in (*there, *seen) if s.tracking_uid == to]
        named += [s for s in seen if s.written_uid == to]
        return (named[0].tracking_uid, named[0].lesion) if named else (to, to)

    def rejected_by(self, tracking_uid: str, lesion: str, study_instance_uid: str) -> str | None:
        """Return who said that a lesion, or this fragment of it, is none, there or at all; None when nobody did."""
        own = [s for s in self.course.sightings if s.lesion == lesion]
        there = [s for s in own if s.study_instance_uid == study_instance_uid]
        there = [s for s in there if s.tracking_uid == tracking_uid] or there
        said = {
            d.number: d
            for s in there or own
            for d in s.decisions
            if d.kind == "reject" and d.study_instance_uid in ("", study_instance_uid)
        }
        newest = said[max(said)] if said else None
        return newest.author if newest is not None and newest.value == "true" else None


def person(session: Session, objects: ObjectStore, members: Sequence[int]) -> Person:
    """Return what is known of the person who these rows are; see `store.patients.same_person`."""
    findings = (
        select(Finding, Job)
        .join(Job, col(Job.id) == col(Finding.job_pk))
        .join(Study, col(Study.id) == col(Finding.study_pk))
        .where(col(Study.patient_pk).in_(members), col(Finding.automatic))
        .order_by(col(Finding.id))
    )
    return Person(
        members=members,
        head=session.get_one(Patient, members[0]),
        course=course(session, members[0], objects),
        chosen=chosen(session, members[0]),
        made_by={
            finding.tracking_uid: (job.plugin, job.model_sha256)
            for finding, job in session.exec(findings)
            if finding_is_lesion(finding)
        },
    )


__all__ = ["Person", "person"]
