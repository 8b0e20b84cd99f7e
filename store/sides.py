"""On which side each person stands: one whom models learn from, one whom they are judged on, or neither.

A lot decides once, and it stays so. Who may be one person is one here, and stays one: rows with the same PatientID, and
rows that were ever declared to be the same, also when that was taken back later; rows one of which got a study that was
analysed as the other's. So sides only ever change to `neither`, and nobody who was on one side is ever on the other.
Only this module writes PatientSide.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

from sqlmodel import Session, col, select

from store.database import aware_utc, insert_new
from store.model_tables import PatientSide
from store.patient_key import known_as, patient_key
from store.secret_file import secret_of
from store.tables import Finding, Patient, PatientMerge, Study

Side = Literal["learn", "judge", "neither"]
LEARN: Final[Side] = "learn"
JUDGE: Final[Side] = "judge"
NEITHER: Final[Side] = "neither"
JUDGED_SHARE: Final = 0.3
"""Part of the persons that models are judged on."""


@dataclass(frozen=True, kw_only=True)
class Sides:
    """The side of every person who has one, by `patient_key` of each PatientID."""

    side: Mapping[str, Side]
    """Where the person stands."""
    person: Mapping[str, str]
    """The key that stands for all identifiers of the person, the one that came first."""

    def of(self, key: str) -> Side | None:
        """Return the side of a person by the key of any identifier; None when no lot was drawn yet."""
        return self.side.get(key)

    @property
    def several(self) -> dict[str, tuple[str, ...]]:
        """Return the keys of all identifiers of persons who have more than one, by each, the oldest first."""
        keys: defaultdict[str, list[str]] = defaultdict(list)
        for key, first in self.person.items():
            keys[first].append(key)
        return {key: tuple(own) for own in keys.values() if len(own) > 1 for key in own}


@dataclass(frozen=True, kw_only=True)
class _Person:
    """The rows that may be one person, oldest first, and what was said of any of them."""

    pks: tuple[int, ...]
    keys: tuple[str, ...]
    said: Mapping[int, tuple[int, str]]
    """Number and side of the newest row of each that has one."""

    @property
    def sides(self) -> set[str]:
        return {side for _, side in self.said.values()}


def sides(session: Session) -> Sides:
    """Return where everybody stands now; who was merged with somebody of the other side stands on neither."""
    found: dict[str, Side] = {}
    standing: dict[str, str] = {}
    for person in _persons(session):
        if (side := _of(person.sides)) is not None:
            found |= dict.fromkeys(person.keys, side)
            standing |= dict.fromkeys(person.keys, person.keys[0])
    return Sides(side=found, person=standing)


def assign(
    session: Session,
    patient_pks: Iterable[int],
    *,
    salt: bytes,
    now: datetime,
    learned: Collection[str] = (),
    share: float = JUDGED_SHARE,
) -> Sides:
    """Return where everybody stands, after a lot was drawn for those of these patients who had no side.

    `learned` are the patients that the present model learned from, as the keys `held_out` of its card (those of an
    identifier, or of such a key): they always learn, and one who was judged on before stands on neither from now on.
    Patients without PatientID get no side, because nobody knows who they are. The same salt gives the same lots.
    """
    wanted = set(patient_pks)
    known = frozenset(learned)
    while any([_settle(session, p, wanted, known, salt, now, share) for p in _persons(session)]):
        pass  # another run may have drawn a lot at the same time: what is written is looked at again
    return sides(session)


def lot(salt: bytes, key: str) -> float:
    """Return the number from 0 to below 1 that a salted hash gives a person."""
    return int.from_bytes(hashlib.sha256(salt + b"|" + key.encode()).digest()[:8], "big") / 2**64


def salt_of(home: Path) -> bytes:
    """Return the salt of this node: a file of its folder. Refuses `empty-secret`; raises Unavailable."""
    return secret_of(home / "sides.salt")


def _settle(
    session: Session,
    person: _Person,
    wanted: set[int],
    learned: frozenset[str],
    salt: bytes,
    now: datetime,
    share: float,
) -> bool:
    """Write the side of a person where it is not what it should be; return whether anything was written."""
    side = _of(person.sides)
    known = any(not learned.isdisjoint(known_as(key)) for key in person.keys)
    if side is None and not wanted.intersection(person.pks):
        return False
    if side is None and known:
        side, because = LEARN, "the model that counts learned from this patient"
    elif side is None:
        drawn = lot(salt, person.keys[0])
        side = JUDGE if drawn < share else LEARN
        because = f"the lot was {drawn:.4f}; below {share:g} is judge"
    elif side == JUDGE and known:
        side, because = NEITHER, "was judged on, and the model that counts learned from this patient"
    elif side == NEITHER:
        because = "identifiers of both sides were declared to be one person"
    else:
        because = "the side of another identifier of the same person"
    written = False
    for pk in person.pks:
        number, before = person.said.get(pk, (0, ""))
        if before != side:
            values = {"patient_pk": pk, "number": number + 1, "side": side, "at": aware_utc(now)}
            insert_new(session, PatientSide, {**values, "because": because})
            written = True
    return written


def _of(said: set[str]) -> Side | None:
    """Return the side of a person by those of his identifiers."""
    if NEITHER in said or len(said) > 1:
        return NEITHER
    if not said:
        return None
    return JUDGE if JUDGE in said else LEARN


def _persons(session: Session) -> list[_Person]:
    """Return the persons who have an identifier, by the row that came first."""
    rows = session.exec(select(Patient).order_by(col(Patient.id))).all()
    parent = {int(row.id or 0): int(row.id or 0) for row in rows}

    def root(pk: int) -> int:
        while parent[pk] != pk:
            parent[pk] = pk = parent[parent[pk]]
        return pk

    def join(one: int, other: int) -> None:
        first, second = sorted((root(one), root(other)))
        parent[second] = first

    of_id: dict[str, int] = {}
    for row in rows:
        if row.patient_id:
            join(int(row.id or 0), of_id.setdefault(row.patient_id, int(row.id or 0)))
    for merge in session.exec(select(PatientMerge)):
        if merge.into_pk is not None:
            join(merge.patient_pk, merge.into_pk)
    moved = (
        select(Finding.patient_pk, Study.patient_pk)
        .join(Study, col(Study.id) == col(Finding.study_pk))
        .where(col(Finding.patient_pk) != col(Study.patient_pk))
        .distinct()
    )
    for before, now in session.exec(moved):
        join(before, now)
    newest: dict[int, tuple[int, str]] = {}
    for one in session.exec(select(PatientSide).order_by(col(PatientSide.number))):
        newest[one.patient_pk] = (one.number, one.side)
    members: defaultdict[int, list[Patient]] = defaultdict(list)
    for row in rows:
        members[root(int(row.id or 0))].append(row)
    found = []
    for own in members.values():
        pks = tuple(int(row.id or 0) for row in own)
        keys = tuple(dict.fromkeys(patient_key(row.patient_id) for row in own if row.patient_id))
        said = {pk: newest[pk] for pk in pks if pk in newest}
        if keys:
            found.append(_Person(pks=pks, keys=keys, said=said))
    return found


__all__ = ["JUDGE", "JUDGED_SHARE", "LEARN", "NEITHER", "Side", "Sides", "assign", "lot", "salt_of", "sides"]
