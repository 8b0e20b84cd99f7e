"""Whom an identifier is of: compared by PatientID, by issuer where both are known, and by what was merged."""

from __future__ import annotations

import pytest
from whole_node import START

from store.database import Database
from store.patients import is_another, merge
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
