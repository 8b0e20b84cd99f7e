"""The rows of what arrived: patients, studies, series, instances, and the associations that brought them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlmodel import Session, and_, col, select, update

from plugins.errors import Refused
from store.charset import storable
from store.database import aware_utc, insert_new
from store.objects import Kept
from store.part10 import Header
from store.priors import Coming, asked_for
from store.tables import Association, AssociationStudy, Event, Instance, Patient, Result, Series, Study

RECEIVING, SETTLED = "receiving", "settled"
Outcome = Literal["new", "identical", "conflict", "own"]


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What became of an instance that arrived."""

    outcome: Outcome
    """new; identical: held and current; conflict: not what was current under this UID, but now is; own: our own."""
    study_pk: int
    """Row of its study."""
    instance_pk: int
    """Row of the instance."""


def record(
    session: Session,
    header: Header,
    kept: Kept,
    *,
    source: str,
    now: datetime,
    association_pk: int | None = None,
    coming: Coming = "sent",
) -> Recorded:
    """Return what became of an instance whose bytes are on disk.

    New content re-opens its study; identical bytes change nothing; our own results are kept and never analysed, and
    neither is an earlier study that was asked for, until somebody sends it (`coming`). Other bytes under a known UID
    become the current ones, also those that were so before: what came last counts, and an Event tells of it. An
    instance whose patient is not the study's is kept with an Event too, and reading refuses the mixture. Refuses
    `uid-collision`, a SOP or series UID of another study, and what `store.priors.asked_for` refuses.
    """
    now = aware_utc(now)
    own = header.own or _is_result(session, header.sop_instance_uid)
    is_prior = asked_for(session, header, coming)
    patient_pk = _patient(session, header)
    study = _study(session, header, patient_pk, now, prior=own or is_prior)
    study_pk = _id(study)
    series_pk = _series(session, header, study_pk)
    if association_pk is not None:
        insert_link(session, association_pk, study_pk)
    earlier = _same_uid(session, header.sop_instance_uid, study_pk)
    # What was once content stays content, whatever a later file claims about its maker.
    own = own and all(instance.own for instance in earlier)
    held = next((instance for instance in earlier if instance.sha256 == kept.sha256), None)
    # What somebody sends is to be analysed, also when it lay here before as an earlier study of a patient.
    is_content = not own and not (is_prior and study.prior)
    is_known = held is not None and (held.current or own)
    if is_content and (study.prior or not is_known):
        _touch(session, study, patient_pk, now, source)
    if held is not None and is_known:
        session.flush()
        return Recorded(outcome="identical", study_pk=study_pk, instance_pk=_id(held))
    instance = held or _instance(header, kept, series_pk, source, now, own)
    for old in earlier:
        old.current = False
    instance.current = True
    session.add(instance)
    session.flush()
    if earlier:
        text = f"Other content came under the same SOP Instance UID from {source}."
        _event(session, now, "conflict", kept.sha256, text)
    outcome: Outcome = "own" if own else "conflict" if earlier else "new"
    return Recorded(outcome=outcome, study_pk=study_pk, instance_pk=_id(instance))


def open_association(session: Session, calling_ae: str, address: str, now: datetime) -> int:
    """Return the id of a new open association."""
    now = aware_utc(now)
    row = Association(calling_ae=storable(calling_ae), address=storable(address), opened_at=now, alive_at=now)
    session.add(row)
    session.flush()
    return _id(row)


def beat(session: Session, association_pk: int, now: datetime) -> None:
    """Say that an association is still alive."""
    _update_association(session, association_pk, {"alive_at": aware_utc(now)})


def close_association(session: Session, association_pk: int, now: datetime) -> None:
    """Say that an association ended, however it did; a second time changes nothing."""
    _update_association(session, association_pk, {"closed_at": aware_utc(now)})


def insert_link(session: Session, association_pk: int, study_pk: int) -> None:
    """Say that an association touched a study; a second time changes nothing."""
    if session.get(AssociationStudy, (association_pk, study_pk)) is None:
        session.add(AssociationStudy(association_pk=association_pk, study_pk=study_pk))
        session.flush()


def _update_association(session: Session, association_pk: int, values: dict[str, Any]) -> None:
    condition = and_(col(Association.id) == association_pk, col(Association.closed_at).is_(None))
    statement = update(Association).where(condition).values(values)
    session.exec(statement, execution_options={"synchronize_session": False})


def _is_result(session: Session, sop_instance_uid: str) -> bool:
    return (
        session.exec(select(Result.id).where(col(Result.sop_instance_uid) == sop_instance_uid)).first()
        is not None
    )


def _patient(session: Session, header: Header) -> int:
    # Without a PatientID nobody knows whose study it is: it gets a patient of its own, so that no two are joined.
    issuer = header.issuer if header.patient_id else f"study {header.study_instance_uid}"
    key = and_(col(Patient.issuer) == issuer, col(Patient.patient_id) == header.patient_id)
    found = session.exec(select(Patient.id).where(key)).first()
    if found is not None:
        return found
    values = {
        "issuer": issuer,
        "patient_id": header.patient_id,
        "patient_name": header.patient_name,
        "patient_sex": header.patient_sex,
        "patient_birth_date": header.patient_birth_date,
    }
    return insert_new(session, Patient, values) or int(session.exec(select(Patient.id).where(key)).one() or 0)


def _study(session: Session, header: Header, patient_pk: int, now: datetime, *, prior: bool) -> Study:
    """Return the study's row, locked until the transaction ends: settling waits for us, or we for it."""
    statement = (
        select(Study)
        .where(col(Study.study_instance_uid) == header.study_instance_uid)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    study = session.exec(statement).first()
    if study is not None:
        return study
    values = {
        "patient_pk": patient_pk,
        "study_instance_uid": header.study_instance_uid,
        "study_date": header.study_date,
        "study_description": header.study_description,
        "accession_number": header.accession_number,
        # Of an earlier study, and of one of which only our own results are here, nothing is waited for.
        "state": SETTLED if prior else RECEIVING,
        "prior": prior,
        "first_arrival_at": now,
        "last_arrival_at": now,
    }
    insert_new(session, Study, values)
    return session.exec(statement).one()


def _series(session: Session, header: Header, study_pk: int) -> int:
    statement = select(Series).where(col(Series.series_instance_uid) == header.series_instance_uid)
    series = session.exec(statement).first()
    if series is None:
        values = {
            "study_pk": study_pk,
            "series_instance_uid": header.series_instance_uid,
            "modality": header.modality,
            "series_number": header.series_number,
            "series_description": header.series_description,
            "frame_of_reference_uid": header.frame_of_reference_uid,
        }
        insert_new(session, Series, values)
        series = session.exec(statement).one()
    if series.study_pk != study_pk:
        raise Refused("uid-collision", "The Series Instance UID belongs to another study.")
    return _id(series)


def _same_uid(session: Session, sop_instance_uid: str, study_pk: int) -> list[Instance]:
    statement = (
        select(Instance, Series.study_pk)
        .join(Series, col(Series.id) == col(Instance.series_pk))
        .where(col(Instance.sop_instance_uid) == sop_instance_uid)
        .order_by(col(Instance.id))
    )
    rows = session.exec(statement).all()
    if any(other != study_pk for _, other in rows):
        raise Refused("uid-collision", "The SOP Instance UID belongs to another study.")
    return [instance for instance, _ in rows]


def _instance(header: Header, kept: Kept, series_pk: int, source: str, now: datetime, own: bool) -> Instance:
    return Instance(
        series_pk=series_pk,
        sop_instance_uid=header.sop_instance_uid,
        sop_class_uid=header.sop_class_uid,
        transfer_syntax_uid=header.transfer_syntax_uid,
        sha256=kept.sha256,
        size_bytes=kept.size_bytes,
        received_at=now,
        source=storable(source),
        own=own,
    )


def _touch(session: Session, study: Study, patient_pk: int, now: datetime, source: str) -> None:
    study.prior = False
    if study.state != RECEIVING:
        study.state = RECEIVING
        study.first_arrival_at = now
        study.settle_now = False
    # Two hosts may hand in their clocks in either order; the quiet time never runs backwards.
    study.last_arrival_at = max(study.last_arrival_at, now)
    if study.patient_pk != patient_pk:
        study.patient_pk = patient_pk
        _event(
            session,
            now,
            "patient-conflict",
            str(study.id),
            f"An instance of another patient came from {source}.",
        )


def _event(session: Session, now: datetime, kind: str, subject: str, text: str) -> None:
    session.add(Event(at=now, kind=kind, subject=subject, text=storable(text)))


def _id(row: Any) -> int:
    return int(row.id)
