"""Requests of storage commitment that wait for their answer: for how long it is tried to give it."""

from __future__ import annotations

import pytest
from ledger import at
from sqlmodel import Session, select

from store import commitment
from store.commitment import Referenced
from store.database import Database
from store.tables import Commitment, Event

HOUR = 3600.0
CT1 = "CT1@10.0.0.7:104"
TWO = [Referenced(sop_class_uid="1.2", sop_instance_uid=uid) for uid in ("1.2.1", "1.2.2")]


def tried(session: Session, begin: float, end: float, step: float = 300.0) -> list[float]:
    """Fail whenever the answer is due between two times; return the hours at which it was."""
    hours, now = [], begin
    while now < end:
        if (request := commitment.due(session, at(now))) is not None:
            commitment.failed(session, request.pk, "nobody is there", at(now))
            hours.append(now / HOUR)
        now += step
    return hours


def events(session: Session) -> list[tuple[str, str, str]]:
    return [(event.kind, event.subject, event.text) for event in session.exec(select(Event))]


def test_a_scanner_that_cannot_be_reached_for_a_day_is_given_up_and_told_of(database: Database) -> None:
    with database.transaction() as session:
        commitment.ask(session, "1.2.3", CT1, TWO, at(0))
        assert tried(session, 0, 48 * HOUR)[-1] == pytest.approx(24, abs=0.5)
        assert session.exec(select(Commitment.state)).all() == ["given-up"]
        told = "no answer to a storage commitment request for 2 instances reached it: nobody is there"
        assert events(session) == [("commitment-given-up", CT1, told)]


def test_days_in_which_the_node_was_off_are_no_part_of_the_day_in_which_a_scanner_is_tried(
    database: Database,
) -> None:
    with database.transaction() as session:
        commitment.ask(session, "1.2.3", CT1, TWO, at(0))
        tried(session, 0, 2 * HOUR)
        hours = tried(session, 50 * HOUR, 100 * HOUR)
        assert hours[0] == 50
        assert hours[-1] == pytest.approx(50 + 22, abs=0.5)
        assert [kind for kind, *_ in events(session)] == ["commitment-given-up"]
