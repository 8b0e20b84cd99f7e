"""Patients: found by their identifier, never by name, and declared by an administrator to be one person."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlmodel import Session, col, select

from plugins.errors import Refused
from store.charset import storable
from store.database import aware_utc
from store.tables import Patient, PatientMerge


@dataclass(frozen=True, kw_only=True)
class Merged:
    """That a patient is another one, as somebody declared it."""

    at: datetime
    """When."""
    author: str
    """Who declared it."""
    patient_id: str
    """PatientID of the one."""
    issuer: str = ""
    """Who gave it out."""
    into_patient_id: str
    """PatientID of the other one."""
    into_issuer: str = ""
    """Who gave that out."""
    note: str = ""
    """Why, in words."""


def find_patient(session: Session, patient_id: str, issuer: str | None = None) -> Patient:
    """Return the patient with this PatientID, and this IssuerOfPatientID when one is given.

    Several that were merged are one: that into which they were merged. Refuses `no-such-patient` and, when
    several issuers gave the identifier, `several-issuers`.
    """
    found = _with_id(session, patient_id, issuer)
    of_one = {same_person(session, int(one.id or 0))[0] for one in found}
    if len(of_one) > 1:
        raise _ambiguous(found)
    return session.get_one(Patient, of_one.pop())


def patient_row(session: Session, patient_id: str, issuer: str | None = None) -> Patient:
    """Return the patient with this identifier himself, whatever he was merged into. Refuses as `find_patient`."""
    found = _with_id(session, patient_id, issuer)
    if len(found) > 1:
        raise _ambiguous(found)
    return found[0]


def _with_id(session: Session, patient_id: str, issuer: str | None) -> Sequence[Patient]:
    statement = select(Patient).where(col(Patient.patient_id) == patient_id).order_by(col(Patient.issuer))
    if issuer is not None:
        statement = statement.where(col(Patient.issuer) == issuer)
    found = session.exec(statement).all() if patient_id else []
    if not found:
        where = "" if issuer is None else f" from the issuer '{issuer}'"
        raise Refused("no-such-patient", f"there is no patient '{patient_id}'{where}")
    return found


def _ambiguous(found: Sequence[Patient]) -> Refused:
    issuers = ", ".join(repr(one.issuer) for one in found)
    sentence = f"'{found[0].patient_id}' was given by several issuers ({issuers}); name one with --issuer"
    return Refused("several-issuers", sentence)


def same_person(session: Session, patient_pk: int) -> tuple[int, ...]:
    """Return the rows of the patients that are one person with this one, first the one that speaks for them."""
    into = _into(session)
    head = _head(into, patient_pk)
    members = sorted(pk for pk in {*into, patient_pk} if pk != head and _head(into, pk) == head)
    return (head, *members)


def ever_one(session: Session, patient_pks: Collection[int]) -> frozenset[int]:
    """Return these rows and those who were ever declared to be one person with any of them, parted or not."""
    declared = select(PatientMerge.patient_pk, PatientMerge.into_pk).where(
        col(PatientMerge.into_pk).is_not(None)
    )
    found = set(patient_pks)
    pairs = [{one, into} for one, into in session.exec(declared)] if found else []
    while more := {pk for pair in pairs if pair & found for pk in pair if pk is not None} - found:
        found |= more
    return frozenset(found)


def were_one(session: Session, patient_pk: int, other_pk: int, at: datetime) -> bool:
    """Return whether two patients were one person at a time, as it had been declared until then."""
    into = _into(session, at)
    return _head(into, patient_pk) == _head(into, other_pk)


def is_another(session: Session, patient_pk: int, patient_id: str, issuer: str = "") -> bool:
    """Return True when an identifier is of another person than this patient; False where either has no PatientID.

    Issuers are compared only where both are known.
    """
    members = [session.get_one(Patient, pk) for pk in same_person(session, patient_pk)]
    known = [one for one in members if one.patient_id]
    is_one = any(one.patient_id == patient_id and issuer in ("", one.issuer or issuer) for one in known)
    return bool(patient_id and known) and not is_one


def hold(session: Session, *patient_pks: int) -> None:
    """Let nobody else decide of these persons before the transaction ends; what it reads from now on is the newest."""
    held: set[int] = set()
    while wanted := {pk for one in patient_pks for pk in same_person(session, one)} - held:
        rows = select(Patient.id).where(col(Patient.id).in_(wanted)).order_by(col(Patient.id))
        session.exec(rows.with_for_update(key_share=True)).all()
        held |= wanted


def heads(session: Session) -> tuple[int, ...]:
    """Return one row for each person, by issuer and PatientID."""
    into = _into(session)
    order = (col(Patient.issuer), col(Patient.patient_id))
    return tuple(int(pk or 0) for pk in session.exec(select(Patient.id).order_by(*order)) if pk not in into)


def members_of(session: Session, patient_pks: Collection[int] | None = None) -> dict[int, tuple[int, ...]]:
    """Return the rows of each person, by the row that speaks for them, by issuer and PatientID; or of these alone."""
    into = _into(session)
    members = {pk: [pk] for pk in heads(session)}
    for pk in into:
        members[_head(into, pk)].append(pk)
    wanted = members if patient_pks is None else {_head(into, pk) for pk in patient_pks}
    return {head: tuple(own) for head, own in members.items() if head in wanted}


def merge(
    session: Session, patient_pk: int, into_pk: int, author: str, now: datetime, note: str = ""
) -> None:
    """Declare that a patient is another one: these two rows, so that to part the first takes it back.

    Refuses `same-patient` when they are one already, and `merged-already` when the first is yet another one.
    """
    hold(session, patient_pk, into_pk)
    into = _into(session)
    if (head := _head(into, patient_pk)) == _head(into, into_pk):
        raise Refused("same-patient", "the two are one patient already")
    if patient_pk in into:
        is_of, other, wanted = (session.get_one(Patient, pk).patient_id for pk in (patient_pk, head, into_pk))
        words = f"'{is_of}' is '{other}' already; merge '{other}' into '{wanted}', or part '{is_of}' first"
        raise Refused("merged-already", words)
    _add(session, patient_pk, into_pk, author, now, note)


def part(session: Session, patient_pk: int, author: str, now: datetime, note: str = "") -> None:
    """Take back that a patient is another one. Refuses `not-merged`."""
    hold(session, patient_pk)
    if patient_pk not in _into(session):
        raise Refused("not-merged", "the patient was not merged into another one")
    _add(session, patient_pk, None, author, now, note)


def merged(session: Session, members: Sequence[int]) -> tuple[Merged, ...]:
    """Return why these rows are one person: of each the declaration that counts, by time."""
    statement = select(PatientMerge).where(col(PatientMerge.patient_pk).in_(members))
    newest = {row.patient_pk: row for row in session.exec(statement.order_by(col(PatientMerge.id)))}
    counting = sorted(newest.values(), key=lambda row: row.id or 0)
    named = {p.id: p for p in _patients(session, counting)}
    return tuple(
        Merged(
            at=row.at,
            author=row.author,
            patient_id=named[row.patient_pk].patient_id,
            issuer=named[row.patient_pk].issuer,
            into_patient_id=named[row.into_pk].patient_id,
            into_issuer=named[row.into_pk].issuer,
            note=row.note,
        )
        for row in counting
        if row.into_pk is not None
    )


def merges(session: Session) -> list[dict[str, Any]]:
    """Return what was declared, oldest first, as plain rows."""
    rows = session.exec(select(PatientMerge).order_by(col(PatientMerge.id))).all()
    named = {int(p.id or 0): (p.patient_id, p.issuer) for p in _patients(session, rows)}
    return [
        {
            "at": row.at,
            "author": row.author,
            "patient_id": named[row.patient_pk][0],
            "issuer": named[row.patient_pk][1],
            "into_patient_id": None if row.into_pk is None else named[row.into_pk][0],
            "into_issuer": None if row.into_pk is None else named[row.into_pk][1],
            "note": row.note,
        }
        for row in rows
    ]


def _patients(session: Session, rows: Sequence[PatientMerge]) -> Sequence[Patient]:
    pks = {row.patient_pk for row in rows} | {row.into_pk for row in rows}
    return session.exec(select(Patient).where(col(Patient.id).in_([pk for pk in pks if pk]))).all()


def _into(session: Session, at: datetime | None = None) -> dict[int, int]:
    """Return what counts, or counted at a time: each patient that is another one, and which."""
    newest: dict[int, int | None] = {}
    declared = select(PatientMerge).order_by(col(PatientMerge.id))
    for row in session.exec(declared if at is None else declared.where(col(PatientMerge.at) <= at)):
        newest[row.patient_pk] = row.into_pk
    return {pk: into for pk, into in newest.items() if into is not None}


def _head(into: dict[int, int], patient_pk: int) -> int:
    # Ends: only patients that are no other one are merged, and never into one who is them.
    while patient_pk in into:
        patient_pk = into[patient_pk]
    return patient_pk


def _add(
    session: Session, patient_pk: int, into_pk: int | None, author: str, now: datetime, note: str
) -> None:
    if not author.strip():
        raise Refused("no-author", "a merge needs the name of whoever declares it; give --author")
    session.add(
        PatientMerge(
            patient_pk=patient_pk,
            into_pk=into_pk,
            at=aware_utc(now),
            author=storable(author.strip()),
            note=storable(note),
        )
    )
    session.flush()


__all__ = [
    "Merged", "ever_one", "find_patient", "heads", "hold", "is_another", "members_of", "merge", "merged", "merges",
    "part", "patient_row", "same_person", "were_one",
]  # fmt: skip
