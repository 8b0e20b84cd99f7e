"""The choices of people that count for one patient: a pure value, whatever the order of the rows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property

from sqlmodel import Session, col, select

from store.carried import carried
from store.patients import ever_one, same_person, were_one
from store.sighting import Decision
from store.strangers import apart, first_given
from store.tables import Choice, Finding, Study


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What people decided of one patient's lesions."""

    decisions: tuple[Decision, ...] = ()
    """All of them, in any order, also what was undone."""
    void: frozenset[int] = frozenset()
    """Numbers of those that say nothing any more: of lesions of a patient who was parted from this one."""

    @cached_property
    def standing(self) -> tuple[Decision, ...]:
        """Return those that were not taken back, oldest first; an `undo` that was itself undone undoes nothing."""
        undone = set(self.void)
        kept: list[Decision] = []
        for one in sorted(self.decisions, key=lambda one: one.number, reverse=True):
            if one.number in undone:
                continue
            if one.kind == "undo":
                undone.add(int(one.value))
            kept.append(one)
        return tuple(reversed(kept))

    @cached_property
    def counting(self) -> tuple[Decision, ...]:
        """Return those that say something of a lesion and stand, oldest first."""
        return tuple(one for one in self.standing if one.kind != "undo")

    @cached_property
    def moves(self) -> dict[tuple[str, str], list[Decision]]:
        """Return the relinks of each (Tracking UID as written, Study Instance UID), oldest first."""
        found: dict[tuple[str, str], list[Decision]] = {}
        for one in self.counting:
            if one.kind == "relink":
                found.setdefault((one.tracking_uid, one.study_instance_uid), []).append(one)
        return found

    @cached_property
    def relinks(self) -> dict[tuple[str, str], Decision]:
        """Return the newest relink of each (Tracking UID as written, Study Instance UID)."""
        return {place: made[-1] for place, made in self.moves.items()}

    def until(self, at: datetime) -> Chosen:
        """Return what was decided by a time."""
        return replace(self, decisions=tuple(one for one in self.decisions if one.at <= at))

    def of(self, kind: str, lesions: Collection[str]) -> Decision | None:
        """Return the newest choice of a kind that speaks of all visits of a lesion, by any of its Tracking UIDs."""
        found = [d for d in self.counting if d.kind == kind and d.tracking_uid in lesions]
        return next((d for d in reversed(found) if not d.study_instance_uid), None)


def chosen(session: Session, patient_pk: int) -> Chosen:
    """Return what people decided of a patient's lesions, under whichever of his merged identities.

    What was decided while others were one person with him is his where it speaks of his study or lesion. Each names
    what it speaks of as that is called now (`store.carried`).
    """
    members = same_person(session, patient_pk)
    people = ever_one(session, members)
    statement = select(Choice).where(col(Choice.patient_pk).in_(people)).order_by(col(Choice.id))
    rows = session.exec(statement).all()
    if not rows:
        return Chosen()
    strangers: Collection[str] = ()
    if people != set(members):
        owners = _owners(session, rows, people)
        rows = [row for row in rows if owners[int(row.id or 0)] in members]
        strangers = apart(session, members).uids
    decisions, void = carried(session, members, tuple(map(decision_of, rows)), strangers)
    return Chosen(decisions=decisions, void=void)


def _owners(session: Session, rows: Sequence[Choice], people: Collection[int]) -> dict[int, int]:
    """Return of each choice, oldest first, the row of the patient of whom it speaks; else that which it was kept of."""
    of_people = select(Study.study_instance_uid, Study.patient_pk).where(col(Study.patient_pk).in_(people))
    studies = dict(session.exec(of_people).all())
    given = first_given(session, people)
    owners: dict[int, int] = {}
    for row in rows:
        owner = row.patient_pk
        if row.kind == "undo":
            owner = owners.get(int(row.value), owner)
        elif row.study_instance_uid:
            owner = studies.get(row.study_instance_uid, owner)
        elif by := given.get(row.tracking_uid):
            # Versions before kept it of the row that spoke for the person.
            owner = next((pk for pk in by if pk == owner or were_one(session, pk, owner, row.at)), by[0])
        if row.kind == "relink":
            given.setdefault(row.value, [owner])
        owners[int(row.id or 0)] = owner
    return owners


def decided_of(
    session: Session, study_pks: Collection[int] | None = None, kind: str | None = None
) -> list[int]:
    """Return the patients of whose lesions people decided something, of all or of those found in some studies.

    And with each those who ever were one person with him: of whom a choice speaks, `chosen` knows.
    """
    patients = select(Choice.patient_pk).distinct()
    if study_pks is not None:
        found = select(Finding.tracking_uid).where(col(Finding.study_pk).in_(study_pks))
        patients = patients.where(col(Choice.tracking_uid).in_(found))
    if kind is not None:
        patients = patients.where(col(Choice.kind) == kind)
    return sorted(ever_one(session, session.exec(patients).all()))


def decision_of(row: Choice) -> Decision:
    """Return a row as a plain value."""
    return Decision(
        number=int(row.id or 0),
        at=row.at,
        author=row.author,
        kind=row.kind,
        value=row.value,
        tracking_uid=row.tracking_uid,
        study_instance_uid=row.study_instance_uid,
        source=row.source,
        note=row.note,
    )


__all__ = ["Chosen", "chosen", "decided_of", "decision_of"]
