"""Two people who decide of the same thing at the same moment: the second knows of the first, on both engines."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import date

import pytest
from course_rows import Clock, lesion, visit
from ledger import at
from sqlmodel import Session, col, select

from plugins.errors import Refused
from store import accounts, choices, patients, sessions
from store.access_tables import WebSession
from store.chosen import chosen
from store.database import Database
from store.tables import Patient

ONE = "2.25.1"
LONG_ENOUGH = 0.5
"""Seconds after which who has not ended waits for the other."""


@pytest.fixture
def other(database_url: str) -> Iterator[Database]:
    """Give the same database as another process has it."""
    made = Database(database_url, sync=False)
    yield made
    made.dispose()


@pytest.fixture
def pk(database: Database) -> int:
    """Write a patient with one lesion and return the row."""
    with database.transaction() as session:
        visit(session, Clock(), date(2026, 1, 10), [lesion(ONE)])
        return session.exec(select(Patient.id)).one() or 0


def second_of(
    first: Callable[[Session], object], second: Callable[[Session], object], here: Database, other: Database
) -> str:
    """Return what refused the second, which begins while the first is not committed; empty when nothing did."""
    refused: list[str] = []

    def late() -> None:
        try:
            with other.transaction() as session:
                second(session)
        except Refused as refusal:
            refused.append(refusal.code)

    thread = threading.Thread(target=late)
    with here.transaction() as session:
        first(session)
        thread.start()
        thread.join(LONG_ENOUGH)
        assert thread.is_alive()
    thread.join(60)
    assert not thread.is_alive()
    return "".join(refused)


def role(value: str, pk: int, author: str) -> Callable[[Session], object]:
    return lambda session: choices.choose(session, pk, "role", ONE, value, author=author, now=at(100))


def test_of_two_who_take_back_one_choice_at_one_time_the_second_is_refused(
    database: Database, other: Database, pk: int
) -> None:
    with database.transaction() as session:
        number = choices.choose(session, pk, "role", ONE, "target", author="A", now=at(50)).number

    def undo(session: Session) -> object:
        return choices.undo(session, pk, number, author="B", now=at(100))

    assert second_of(undo, undo, database, other) == "undone"
    with database.reading() as session:
        assert [one.kind for one in chosen(session, pk).decisions] == ["role", "undo"]


def test_a_choice_waits_for_one_of_the_same_patient_that_is_under_way(
    database: Database, other: Database, pk: int
) -> None:
    assert second_of(role("target", pk, "A"), role("ignore", pk, "B"), database, other) == ""
    with database.reading() as session:
        assert [one.value for one in chosen(session, pk).decisions] == ["target", "ignore"]


def test_two_patients_cannot_become_each_other_at_one_time(
    database: Database, other: Database, pk: int
) -> None:
    with database.transaction() as session:
        visit(session, Clock(), date(2026, 1, 10), [], study="1.2.9", patient={"patient_id": "Q"})
        into = session.exec(select(Patient.id).where(col(Patient.id) != pk)).one() or 0

    def merge(one: int, two: int) -> Callable[[Session], object]:
        return lambda session: patients.merge(session, one, two, "A", at(100))

    assert second_of(merge(pk, into), merge(into, pk), database, other) == "same-patient"
    with database.reading() as session:
        assert patients.same_person(session, pk) == (into, pk)


@pytest.mark.sec
@pytest.mark.parametrize("way", ["role", "disabled"])
def test_two_administrators_cannot_remove_each_other_at_one_time(
    database: Database, other: Database, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "SCRYPT_N", 1 << 4)
    with database.transaction() as session:
        for name in ("ada", "bea"):
            accounts.add_account(session, name, "administrator", "seven tall green tables", at(0))

    def remove(name: str) -> Callable[[Session], object]:
        def by_role(session: Session) -> None:
            accounts.set_role(session, name, "viewer")

        def by_disabling(session: Session) -> None:
            accounts.require_another_administrator(session, name)
            accounts.set_disabled(session, name, disabled=True)

        return by_role if way == "role" else by_disabling

    assert second_of(remove("bea"), remove("ada"), database, other) == "last-administrator"
    with database.transaction() as session:
        assert [accounts.is_last_administrator(session, name) for name in ("ada", "bea")] == [True, False]


@pytest.mark.sec
def test_a_new_password_waits_for_a_session_that_begins_and_ends_it(
    database: Database, other: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "SCRYPT_N", 1 << 4)
    with database.transaction() as session:
        accounts.add_account(session, "ada", "viewer", "seven tall green tables", at(0))
    with database.reading() as session:
        checked = accounts.require_account(session, "ada")

    def begin(session: Session) -> None:
        assert accounts.is_still(session, checked)
        sessions.begin(session, checked.id, at(1))

    def change(session: Session) -> None:
        accounts.set_password(session, "ada", "nine grey wooden doors")

    assert second_of(begin, change, database, other) == ""
    with database.transaction() as session:
        assert session.exec(select(WebSession)).all() == []
        assert not accounts.is_still(session, checked)
