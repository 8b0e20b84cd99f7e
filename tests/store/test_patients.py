"""Whom an identifier is of: compared by PatientID, by issuer where both are known, and by what was merged."""

from __future__ import annotations

import pytest
from sqlmodel import Session
from whole_node import START

from plugins.errors import Refused
from store.database import Database
from store.patients import is_another, merge, merged, part, same_person
from store.tables import Patient


@pytest.mark.parametrize(
    ("held", "named", "another"),
    [
        (("A", "P1"), ("P1", "A"), False),
        (("A", "P1"), ("P1", ""), False),
        (("", "P1"), ("P1", "B"), False),
        (("A", "P1"), ("P1", "B"), True),
        (("A", "P1"), ("p1", "A"), True),
        (("A", "P1"), ("", "B"), False),
        (("A", ""), ("P1", "A"), False),
        (("A", "OLD"), ("NEW", "B"), False),
        (("A", "OLD"), ("NEW", "A"), True),
    ],
)
def test_an_identifier_is_of_another_patient_when_no_name_of_the_person_matches_it(
    database: Database, held: tuple[str, str], named: tuple[str, str], another: bool
) -> None:
    with database.transaction() as session:
        row = Patient(issuer=held[0], patient_id=held[1])
        old, new = Patient(issuer="A", patient_id="OLD"), Patient(issuer="B", patient_id="NEW")
        session.add_all([old, new] if held == ("A", "OLD") else [row, old, new])
        session.flush()
        merge(session, int(old.id or 0), int(new.id or 0), "grey", START)
        pk = int((old if held == ("A", "OLD") else row).id or 0)
        assert is_another(session, pk, *named) is another


def three(session: Session) -> list[int]:
    rows = [Patient(patient_id=name) for name in "ABC"]
    session.add_all(rows)
    session.flush()
    return [int(row.id or 0) for row in rows]


def test_a_patient_who_is_another_one_already_is_not_declared_to_be_a_third(database: Database) -> None:
    with database.transaction() as session:
        a, b, c = three(session)
        merge(session, a, b, "grey", START)
        with pytest.raises(
            Refused, match="'A' is 'B' already; merge 'B' into 'C', or part 'A' first"
        ) as refused:
            merge(session, a, c, "grey", START)
        assert refused.value.code == "merged-already"
        assert [same_person(session, pk) for pk in (a, b, c)] == [(b, a), (b, a), (c,)]
        merge(session, b, c, "grey", START)
        part(session, a, "grey", START)
        assert [same_person(session, pk) for pk in (a, b, c)] == [(a,), (c, b), (c, b)]


def test_what_is_kept_of_a_merge_is_the_pair_that_was_declared_and_to_part_the_first_takes_it_back(
    database: Database,
) -> None:
    with database.transaction() as session:
        a, b, c = three(session)
        merge(session, a, b, "grey", START)
        merge(session, c, a, "grey", START)
        assert [(m.patient_id, m.into_patient_id) for m in merged(session, (b, a, c))] == [
            ("A", "B"),
            ("C", "A"),
        ]
        assert same_person(session, c) == (b, a, c)
        part(session, c, "grey", START)
        assert [same_person(session, pk) for pk in (a, b, c)] == [(b, a), (b, a), (c,)]
        merge(session, c, a, "grey", START)
        part(session, a, "grey", START)
        assert [same_person(session, pk) for pk in (a, b, c)] == [(a, c), (b,), (a, c)]
