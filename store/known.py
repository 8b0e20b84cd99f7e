"""Which patient, study and series an instance belongs to: found or made, and remembered."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import MutableMapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlmodel import Session, and_, col, select

from plugins.errors import Refused
from store.database import insert_new
from store.part10 import Header
from store.tables import Patient, Series, Study

MOST = 100_000
Rows = MutableMapping[tuple[object, ...], tuple[int, ...]]


class Known:
    """Ids of rows by their keys. They never change once they are committed, so that nobody asks for them twice.

    What a transaction finds is kept apart (`begin`) and learnt when it has committed (`learn`): a rollback leaves
    nothing here. Not safe to share between threads.
    """

    def __init__(self) -> None:
        self._rows: dict[tuple[object, ...], tuple[int, ...]] = {}

    @property
    def rows(self) -> Rows:
        """Return what is known; for reading."""
        return self._rows

    def begin(self) -> ChainMap[tuple[object, ...], tuple[int, ...]]:
        """Return what is known, with room for what the next transaction adds."""
        return ChainMap({}, self._rows)

    def learn(self, rows: ChainMap[tuple[object, ...], tuple[int, ...]]) -> None:
        """Remember what a transaction added, now that it is committed."""
        if len(self._rows) > MOST:
            self._rows.clear()
        self._rows.update(rows.maps[0])

    def forget(self) -> None:
        """Ask for everything again."""
        self._rows.clear()


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an instance belongs; the ids of its rows."""

    patient_pk: int
    """Patient that its header names; not always the patient of its study."""
    study_pk: int
    """Study."""
    series_pk: int
    """Series."""


def place(session: Session, rows: Rows, header: Header, now: datetime, values: dict[str, Any]) -> Place:
    """Return where an instance belongs; rows that are missing are made, a new study with `values`.

    Refuses `uid-collision` when the series belongs to another study.
    """
    patient_pk = _patient(session, rows, header)
    study_pk = _study(session, rows, header, patient_pk, now, values)
    series_pk, owner_pk = _series(session, rows, header, study_pk)
    if owner_pk != study_pk:
        raise Refused("uid-collision", "The Series Instance UID belongs to another study.")
    return Place(patient_pk=patient_pk, study_pk=study_pk, series_pk=series_pk)


def patient_key(header: Header) -> tuple[str, str, str]:
    """Return what the patient of an instance is known by."""
    # Without a PatientID nobody knows whose study it is: it gets a patient of its own, so that no two are joined.
    issuer = header.issuer if header.patient_id else f"study {header.study_instance_uid}"
    return "patient", issuer, header.patient_id


def _patient(session: Session, rows: Rows, header: Header) -> int:
    key = patient_key(header)
    known = rows.get(key)
    if known is not None:
        return known[0]
    _, issuer, _ = key
    statement = select(Patient.id).where(
        and_(col(Patient.issuer) == issuer, col(Patient.patient_id) == header.patient_id)
    )
    found = session.exec(statement).first()
    if found is None:
        values = {
            "issuer": issuer,
            "patient_id": header.patient_id,
            "patient_name": header.patient_name,
            "patient_sex": header.patient_sex,
            "patient_birth_date": header.patient_birth_date,
        }
        found = insert_new(session, Patient, values) or session.exec(statement).one()
    rows[key] = (int(found or 0),)
    return int(found or 0)


def _study(
    session: Session, rows: Rows, header: Header, patient_pk: int, now: datetime, values: dict[str, Any]
) -> int:
    known = rows.get(("study", header.study_instance_uid))
    if known is not None:
        return known[0]
    statement = select(Study.id).where(col(Study.study_instance_uid) == header.study_instance_uid)
    found = session.exec(statement).first()
    if found is None:
        new = {
            "patient_pk": patient_pk,
            "study_instance_uid": header.study_instance_uid,
            "study_date": header.study_date,
            "study_time": header.study_time,
            "study_description": header.study_description,
            "accession_number": header.accession_number,
            "first_arrival_at": now,
            "last_arrival_at": now,
            **values,
        }
        found = insert_new(session, Study, new) or session.exec(statement).one()
    rows["study", header.study_instance_uid] = (int(found or 0),)
    return int(found or 0)


def _series(session: Session, rows: Rows, header: Header, study_pk: int) -> tuple[int, ...]:
    """Return the row of the series and that of its study."""
    known = rows.get(("series", header.series_instance_uid))
    if known is not None:
        return known
    statement = select(Series.id, Series.study_pk).where(
        col(Series.series_instance_uid) == header.series_instance_uid
    )
    found = session.exec(statement).first()
    if found is None:
        values = {
            "study_pk": study_pk,
            "series_instance_uid": header.series_instance_uid,
            "modality": header.modality,
            "series_number": header.series_number,
            "series_description": header.series_description,
            "frame_of_reference_uid": header.frame_of_reference_uid,
        }
        insert_new(session, Series, values)
        found = session.exec(statement).one()
    rows["series", header.series_instance_uid] = (int(found[0] or 0), int(found[1]))
    return rows["series", header.series_instance_uid]


__all__ = ["Known", "Place", "Rows", "patient_key", "place"]
