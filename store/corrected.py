"""What the objects of a study say of it now: a corrected patient reaches the rows when the study settles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlmodel import Session, and_, col, select

from plugins.errors import NadirError
from store.known import patient_key
from store.objects import ObjectStore
from store.part10 import Header, scan_header
from store.patients import same_person
from store.succession import supersede_rows
from store.tables import Event, Job, Patient, Revision, Study


@dataclass(frozen=True, kw_only=True)
class Held:
    """A current object of a study that is no result of ours."""

    pk: int
    """Row of the instance."""
    series_pk: int
    """Row of its series."""
    sop_class_uid: str
    """SOP Class UID."""
    sha256: str
    """Name of its file."""
    fresh: bool
    """Whether the study did not hold it when it last settled."""


Said = tuple[Held, Header]


def correct(
    session: Session, study: Study, held: Sequence[Held], objects: ObjectStore, now: datetime
) -> None:
    """Let the rows of a study say what its objects say now, and tell in an Event what became different.

    `held` by row. The study goes to another patient only when all of its objects name that one; what was found in it
    for the patient before is superseded then. Only the newest object of each series is read while nothing differs.
    """
    newest = {one.series_pk: one for one in held if one.fresh}
    said = _read(objects, newest.values())
    patient = session.get_one(Patient, study.patient_pk)
    if not any(_differs(header, patient) for _, header in said):
        return
    said = _read(objects, held)
    changed = _move(session, study, said if len(said) == len(held) else ())
    if changed:
        text = f"What its objects say of it now counts: {', '.join(changed)}."
        session.add(Event(at=now, kind="corrected", subject=str(study.id), text=text))
        session.flush()


def _read(objects: ObjectStore, held: Iterable[Held]) -> list[Said]:
    """Return what objects say, without those that are gone or broken."""
    said = []
    for one in held:
        try:
            said.append((one, scan_header(objects.path(one.sha256))))
        except NadirError:
            continue
    return said


def _differs(header: Header, patient: Patient) -> bool:
    return patient_key(header)[1:] != (patient.issuer, patient.patient_id)


def _move(session: Session, study: Study, said: Sequence[Said]) -> list[str]:
    """Give the study to the patient that all of its objects name, when that is another one."""
    keys = {patient_key(header)[1:] for _, header in said}
    if len(keys) != 1:
        return []
    issuer, patient_id = keys.pop()
    same_id = and_(col(Patient.issuer) == issuer, col(Patient.patient_id) == patient_id)
    patient_pk = session.exec(select(Patient.id).where(same_id)).first()
    if patient_pk is None or patient_pk == study.patient_pk:
        return []
    if patient_pk not in same_person(session, study.patient_pk):
        earlier = select(Job.id).join(Revision, col(Revision.id) == col(Job.revision_pk))
        earlier = earlier.where(col(Revision.study_pk) == study.id)
        supersede_rows(session, col(Job.id).in_(earlier))
    study.patient_pk = patient_pk
    return ["the patient"]


__all__ = ["Held", "correct"]
