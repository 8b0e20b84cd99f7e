"""Nobody is learned from and judged on, whatever is declared of identifiers and whenever."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import pytest
from course_rows import Clock, lesion, patient_pk, visit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger import at
from sqlmodel import Session, col, select

from plugins.errors import Refused
from store import patients
from store.database import Database
from store.model_tables import PatientSide
from store.patient_key import patient_key
from store.sides import JUDGE, LEARN, NEITHER, Sides, assign, lot, salt_of, sides
from store.tables import Patient, Study

SALT = b"pepper"


class _Undo(Exception):
    """Takes back what a test wrote."""


@pytest.fixture(scope="module")
def database(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    path = tmp_path_factory.mktemp("sides") / "nadir.sqlite"
    shutil.copyfile(sqlite_template, path)
    database = Database(f"sqlite:///{path}", sync=False)
    yield database
    database.dispose()


@contextmanager
def undone(database: Database) -> Iterator[Session]:
    """Give a session whose writing is taken back at the end."""
    try:
        with database.transaction() as session:
            yield session
            raise _Undo
    except _Undo:
        pass


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with undone(database) as session:
        yield session


def arrive(session: Session, patient_id: str, issuer: str = "") -> int:
    row = Patient(issuer=issuer, patient_id=patient_id)
    session.add(row)
    session.flush()
    return int(row.id or 0)


def drawn(session: Session, *pks: int, learned: tuple[str, ...] = (), salt: bytes = SALT) -> Sides:
    return assign(session, pks, salt=salt, now=at(0), learned=learned)


def somebody(side: str, beside: tuple[str, ...] = ()) -> str:
    """Return a PatientID that the lot puts on a side."""
    names = (f"N{n}" for n in range(100))
    return next(n for n in names if n not in beside and (lot(SALT, patient_key(n)) < 0.3) == (side == JUDGE))


def test_about_three_in_ten_are_judged_on_and_the_salt_decides_who() -> None:
    keys = [patient_key(f"P{n}") for n in range(3000)]
    judged = {key for key in keys if lot(SALT, key) < 0.3}
    assert len(judged) == pytest.approx(900, abs=75)  # three standard deviations
    assert judged != {key for key in keys if lot(b"salt", key) < 0.3}


def test_a_side_is_drawn_once_and_told_with_its_reason(session: Session) -> None:
    one, other = arrive(session, somebody(JUDGE)), arrive(session, somebody(LEARN))
    assert sides(session).side == {}
    first = drawn(session, one)
    assert first.side == {patient_key(somebody(JUDGE)): JUDGE}
    both = drawn(session, one, other, salt=b"another one")
    assert both.of(patient_key(somebody(JUDGE))) == JUDGE
    rows = session.exec(select(PatientSide).where(col(PatientSide.patient_pk) == one)).all()
    assert [(row.number, row.side, row.at) for row in rows] == [(1, JUDGE, at(0))]
    assert rows[0].because.startswith("the lot was 0.")


def test_whom_the_model_learned_from_learns_by_either_key(session: Session) -> None:
    key = patient_key(somebody(JUDGE))
    with_key = patient_key(key)  # as a card has it of a case whose patient is a key
    one, other = arrive(session, somebody(JUDGE)), arrive(session, somebody(JUDGE, (somebody(JUDGE),)))
    second = patient_key(somebody(JUDGE, (somebody(JUDGE),)))
    found = drawn(session, one, other, learned=(with_key, second))
    assert found.side == {key: LEARN, second: LEARN}


def test_who_was_judged_on_and_then_learned_from_elsewhere_stands_on_neither(session: Session) -> None:
    one = arrive(session, somebody(JUDGE))
    key = patient_key(somebody(JUDGE))
    assert drawn(session, one).of(key) == JUDGE
    assert drawn(session, learned=(key,)).of(key) == NEITHER
    assert drawn(session, one).of(key) == NEITHER


def test_identifiers_of_both_sides_that_are_one_person_stand_on_neither_for_ever(session: Session) -> None:
    one, other = arrive(session, somebody(JUDGE)), arrive(session, somebody(LEARN))
    drawn(session, one, other)
    patients.merge(session, one, other, "Admin", at(1))
    assert set(sides(session).side.values()) == {NEITHER}
    patients.part(session, one, "Admin", at(2))
    assert set(sides(session).side.values()) == {NEITHER}  # also when no run came in between
    assert set(drawn(session).side.values()) == {NEITHER}
    assert set(sides(session).person.values()) == {patient_key(somebody(JUDGE))}


def test_a_new_identifier_of_a_known_person_stands_where_he_does(session: Session) -> None:
    one = arrive(session, somebody(LEARN))
    drawn(session, one)
    other, third = arrive(session, somebody(JUDGE)), arrive(session, somebody(LEARN), "other hospital")
    patients.merge(session, one, other, "Admin", at(1))
    assert set(drawn(session, other, third).side.values()) == {LEARN}
    newest = {row.patient_pk: row.side for row in session.exec(select(PatientSide))}
    assert newest == {one: LEARN, other: LEARN, third: LEARN}


def test_a_study_that_got_another_patient_makes_the_two_one_person(session: Session) -> None:
    uid = visit(
        session, Clock(), date(2026, 1, 10), [lesion("2.25.1")], patient={"patient_id": somebody(LEARN)}
    )
    one, other = patient_pk(session, somebody(LEARN)), arrive(session, somebody(JUDGE))
    assert set(drawn(session, one, other).side.values()) == {LEARN, JUDGE}
    session.exec(select(Study).where(col(Study.study_instance_uid) == uid)).one().patient_pk = other
    session.flush()
    assert set(sides(session).side.values()) == set(drawn(session).side.values()) == {NEITHER}


def test_both_databases_keep_sides(database_url: str) -> None:
    database = Database(database_url, sync=False)
    with database.transaction() as session:
        pks = [arrive(session, f"N{n}") for n in range(6)]
    with database.transaction() as session:
        found = drawn(session, *pks)
    with database.transaction() as session:
        assert drawn(session, *pks) == sides(session) == found
    database.dispose()


def test_patients_without_identifier_get_no_side(session: Session) -> None:
    assert drawn(session, arrive(session, "", "study 1.2.3")).side == {}


def test_the_salt_is_made_once(tmp_path: Path) -> None:
    salt = salt_of(tmp_path)
    assert salt_of(tmp_path) == salt and len(salt) == 64
    assert [path.name for path in tmp_path.iterdir()] == ["sides.salt"]
    assert (tmp_path / "sides.salt").stat().st_mode & 0o777 == 0o600


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("arrive"), st.integers(0, 11), st.integers(0, 1)),
        st.tuples(st.just("merge"), st.integers(0, 11), st.integers(0, 11)),
        st.tuples(st.just("part"), st.integers(0, 11), st.just(0)),
        st.tuples(
            st.just("run"), st.sets(st.integers(0, 11), min_size=4), st.sets(st.integers(0, 11), max_size=2)
        ),
    ),
    min_size=4,
    max_size=24,
)


@given(steps=STEPS)
@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_nobody_is_ever_learned_from_and_judged_on(database: Database, steps: list[tuple]) -> None:  # type: ignore[type-arg]
    with undone(database) as session:
        rows = [arrive(session, f"N{n}", "I0") for n in range(8)]
        learned: set[str] = set()
        judged: set[str] = set()
        groups: list[set[str]] = []
        for n, (what, a, b) in enumerate(steps):
            if what == "arrive":
                known = session.exec(
                    select(Patient.id).where(Patient.patient_id == f"N{a}", Patient.issuer == f"I{b}")
                ).first()
                if known is None:
                    rows.append(arrive(session, f"N{a}", f"I{b}"))
            elif what == "run":
                labelled = [pk for i, pk in enumerate(rows) if i in a]
                card = [
                    patient_key(f"N{i}") for i in b if f"N{i}" in session.exec(select(Patient.patient_id))
                ]
                found = drawn(session, *labelled, learned=tuple(card))
                learned |= {key for key, side in found.side.items() if side == LEARN}
                judged |= {key for key, side in found.side.items() if side == JUDGE}
                # Who were ever declared one person stand together.
                assert all(len({found.of(k) for k in group if found.of(k)}) <= 1 for group in groups)
                # Whom a model learned from is judged on no more.
                assert not any(found.of(key) == JUDGE for key in card)
            elif rows:
                one, other = rows[a % len(rows)], rows[b % len(rows)]
                try:
                    if what == "part":
                        patients.part(session, one, "A", at(n))
                    else:
                        patients.merge(session, one, other, "A", at(n))
                        members = patients.same_person(session, one)
                        groups.append(
                            {patient_key(session.get_one(Patient, pk).patient_id) for pk in members}
                        )
                except Refused:
                    pass
            assert not learned & judged
