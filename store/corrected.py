"""What the objects of a study say of it now: corrected patients, dates and words reach the rows when it settles."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from sqlmodel import Session, and_, col, select

from plugins.errors import NadirError
from store.known import patient_key
from store.objects import ObjectStore
from store.part10 import Header, scan_header
from store.patients import same_person
from store.succession import supersede_rows
from store.tables import Event, Job, Patient, Revision, Series, Study

OF_PATIENT: Final = {
    "patient_name": "PatientName",
    "patient_sex": "PatientSex",
    "patient_birth_date": "PatientBirthDate",
}
OF_STUDY: Final = {"study_description": "StudyDescription", "accession_number": "AccessionNumber"}
OF_SERIES: Final = {
    "modality": "Modality",
    "series_number": "SeriesNumber",
    "series_description": "SeriesDescription",
    "frame_of_reference_uid": "FrameOfReferenceUID",
}
NO_IMAGES: Final = tuple(f"1.2.840.10008.5.1.4.1.1.{kind}" for kind in ("66", "88", "481", "11.", "104"))
"""So begin the SOP classes that hold no image: SEG, SR, RT, presentation states, documents."""


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


def read_ahead(
    session: Session, study: Study, held: Sequence[Held], objects: ObjectStore
) -> dict[str, Header]:
    """Return by sha256 the headers that `correct` asks for: for who holds others back while it runs."""
    said = _read(objects, _newest(held), {})
    if _differs(session, study, said):
        said = _read(objects, held, _by_file(said))
    return _by_file(said)


def correct(
    session: Session,
    study: Study,
    held: Sequence[Held],
    objects: ObjectStore,
    now: datetime,
    ahead: Mapping[str, Header] = MappingProxyType({}),
) -> None:
    """Let the rows of a study say what its objects say now, and tell in an Event what became different.

    `held` by row. The study goes to another patient only when all of its objects name that one; what was found in it
    for the patient before is superseded then. A word stays while one of the objects says it, else that of the newest
    counts; the Study Date is the earliest of its images. Nothing known gives way to an empty value. Only the newest
    object of each series is read while nothing differs, and none that is in `ahead`.
    """
    if not _differs(session, study, _read(objects, _newest(held), ahead)):
        return
    said = _read(objects, held, ahead)
    changed = _move(session, study, said if len(said) == len(held) else ())
    patient = session.get_one(Patient, study.patient_pk)
    said = [(one, header) for one, header in said if _names(header, patient)]
    headers = [header for _, header in said]
    changed += _take(patient, OF_PATIENT, headers) + _dated(study, said) + _take(study, OF_STUDY, headers)
    for series in _series(session, said):
        changed += _take(series, OF_SERIES, [header for one, header in said if one.series_pk == series.id])
    if changed:
        text = f"What its objects say of it now counts: {', '.join(dict.fromkeys(changed))}."
        session.add(Event(at=now, kind="corrected", subject=str(study.id), text=text))
    session.flush()


def _read(objects: ObjectStore, held: Iterable[Held], ahead: Mapping[str, Header]) -> list[Said]:
    """Return what objects say, without those that are gone or broken."""
    said = []
    for one in held:
        try:
            said.append((one, ahead.get(one.sha256) or scan_header(objects.path(one.sha256))))
        except NadirError:
            continue
    return said


def _newest(held: Sequence[Held]) -> Collection[Held]:
    """Return the newest of the fresh objects of each series."""
    return {one.series_pk: one for one in held if one.fresh}.values()


def _by_file(said: Sequence[Said]) -> dict[str, Header]:
    return {one.sha256: header for one, header in said}


def _differs(session: Session, study: Study, said: Sequence[Said]) -> bool:
    """Return whether an object says anything else than the rows."""
    patient = session.get_one(Patient, study.patient_pk)
    series = {one.id: one for one in _series(session, said)}
    own = {"study_date": "", "study_time": "", **OF_STUDY}
    return any(
        not _names(header, patient)
        or _says_other(patient, OF_PATIENT, header)
        or _says_other(study, own, header)
        or _says_other(series[one.series_pk], OF_SERIES, header)
        for one, header in said
    )


def _names(header: Header, patient: Patient) -> bool:
    return patient_key(header)[1:] == (patient.issuer, patient.patient_id)


def _says_other(row: Any, names: Collection[str], header: Header) -> bool:
    said = ((getattr(header, name), getattr(row, name)) for name in names)
    return any(value not in ("", None, known) for value, known in said)


def _series(session: Session, said: Sequence[Said]) -> Sequence[Series]:
    pks = {one.series_pk for one, _ in said}
    return session.exec(select(Series).where(col(Series.id).in_(pks)).order_by(col(Series.id))).all()


def _take(row: Any, names: dict[str, str], headers: Sequence[Header]) -> list[str]:
    """Let a row say what these headers say; return the attributes that became different."""
    before = {name: getattr(row, name) for name in names}
    for name in names:
        setattr(row, name, _said(before[name], [getattr(header, name) for header in headers]))
    return [attribute for name, attribute in names.items() if getattr(row, name) != before[name]]


def _said(known: Any, values: Iterable[Any]) -> Any:
    """Return what is known while one says it, else the newest that says anything."""
    said = [value for value in values if value not in ("", None)]
    return known if known in said or not said else said[-1]


def _dated(study: Study, said: Sequence[Said]) -> list[str]:
    """Give the study the earliest Study Date of its images, with a time of theirs; return what became different."""
    dated = [(one, header) for one, header in said if header.study_date is not None]
    images = [header for one, header in dated if not one.sop_class_uid.startswith(NO_IMAGES)]
    headers = images or [header for _, header in dated]
    if not headers:
        return []
    first = min(header.study_date for header in headers if header.study_date is not None)
    is_other = study.study_date != first
    study.study_date = first
    of_day = [header for header in headers if header.study_date == first]
    return ["StudyDate"] * is_other + _take(study, {"study_time": "StudyTime"}, of_day)


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
    return ["PatientID"]


__all__ = ["Held", "correct", "read_ahead"]
