"""The rows of workitems: only drawn transitions, each once, on both engines."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from sqlmodel import col, select, update

from plugins.errors import Refused
from store import workitems
from store.database import Database
from store.tables import Event
from store.workitems import STATES, TRANSITIONS, Workitem

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
LIST = "http://pacs/rs"


def test_a_workitem_goes_the_drawn_ways_and_no_other(database: Database) -> None:
    made = set()
    with database.transaction() as session:
        assert workitems.begin(session, LIST, "1.2", "2.25.1", label="x", now=NOON)
        for before, after in product(STATES, STATES):
            session.exec(update(Workitem).values(state=before, ended_at=None))
            row = workitems.get(session, 1)
            try:
                assert workitems.move(session, row, after, NOON, told="y")
            except Refused as refused:
                assert refused.code == "illegal-transition"
            else:
                made.add((before, after))
                row = workitems.get(session, 1)
                assert (row.state, row.ended_at is None) == (after, after in workitems.OPEN)
    assert made == TRANSITIONS
    ends = {after for _, after in TRANSITIONS} - {before for before, _ in TRANSITIONS}
    assert ends == {workitems.COMPLETED, workitems.CANCELLED, workitems.FORGOTTEN}
    with database.reading() as session:
        forgotten = sum(after == workitems.FORGOTTEN for _, after in TRANSITIONS)
        assert len(session.exec(select(Event).where(Event.kind == "workitem-forgotten")).all()) == forgotten


def test_what_somebody_else_changed_meanwhile_is_not_changed_again(database: Database) -> None:
    with database.transaction() as session:
        workitems.begin(session, LIST, "1.2", "2.25.1", label="x", now=NOON)
        seen = workitems.get(session, 1).model_copy()
        assert workitems.move(session, workitems.get(session, 1), workitems.CLAIMED, NOON)
        assert not workitems.move(session, seen, workitems.LOST, NOON)
        assert not workitems.stay(session, seen, progress=50)
        workitems.stop(session, 1, NOON, reason="requested", told="Enough.")
        with pytest.raises(Refused, match="is cancelling"):
            workitems.stop(session, 1, NOON, reason="requested", told="Enough.")


def test_a_lost_workitem_is_begun_again_after_an_hour_under_another_transaction_uid(
    database: Database,
) -> None:
    with database.transaction() as session:
        assert workitems.begin(session, LIST, "1.2", "2.25.1", label="x", now=NOON)
        assert not workitems.begin(session, LIST, "1.2", "2.25.2", label="x", now=NOON)
        workitems.move(session, workitems.get(session, 1), workitems.LOST, NOON, told="Taken.")
        assert workitems.settled_elsewhere(session, LIST, ["1.2", "1.3"], NOON) == {"1.2"}
        later = NOON + timedelta(minutes=61)
        assert workitems.settled_elsewhere(session, LIST, ["1.2"], later) == frozenset()
        assert workitems.begin(session, LIST, "1.2", "2.25.3", label="x", now=later)
        assert workitems.get(session, 1).transaction_uid == "2.25.3"
        assert len(session.exec(select(Workitem).where(col(Workitem.worklist) == LIST)).all()) == 1
