"""How the databases answer what is asked each second or at each start: by an index, not by reading whole tables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, event

from store import studies
from store.database import Database
from store.objects import ObjectStore, strays
from store.worklist import worklist

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@contextmanager
def _asked(database: Database) -> Iterator[list[tuple[str, Any]]]:
    """Give the questions that are asked meanwhile, with their values."""
    asked: list[tuple[str, Any]] = []

    def note(_: Connection, cursor: Any, statement: str, values: Any, *__: object) -> None:
        asked.append((statement, values))

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        yield asked
    finally:
        event.remove(database.engine, "before_cursor_execute", note)


def _plan(database: Database, statement: str, values: Any) -> str:
    """Return how a question is answered when no table is too small for an index."""
    with database.engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
            return "\n".join(row[3] for row in rows)
        connection.exec_driver_sql("SET enable_seqscan = off")
        return "\n".join(row[0] for row in connection.exec_driver_sql(f"EXPLAIN {statement}", values))


def test_what_settles_is_asked_of_the_studies_that_are_being_received_alone(database: Database) -> None:
    with _asked(database) as asked, database.reading() as session:
        studies.due(session, now=NOON, quiet_seconds=60, hard_cap_seconds=5400)
    ((statement, values),) = ((said, v) for said, v in asked if "FROM study" in said)
    plan = _plan(database, statement, values)
    (line,) = (line for line in plan.splitlines() if "ix_study_receiving" in line)
    assert "USING INDEX" in line or "Index Scan" in line
    assert "SCAN pull" not in plan and "Seq Scan on pull" not in plan


def test_the_names_of_results_are_read_by_the_beginning_of_their_hash(
    database: Database, objects: ObjectStore
) -> None:
    with _asked(database) as asked, database.reading() as session:
        assert strays(session, objects, "ab") == ([], [])
    ((statement, values),) = ((said, v) for said, v in asked if "FROM result" in said)
    assert "ix_result_sha256" in _plan(database, statement, values)


def test_what_is_done_is_listed_from_the_newest_study_and_not_sorted(sqlite: Database) -> None:
    with _asked(sqlite) as asked, sqlite.reading() as session:
        worklist(session, NOON, stage="done")
    ((statement, values),) = ((said, v) for said, v in asked if "ORDER BY study" in said)
    plan = _plan(sqlite, statement, values)
    assert "ix_study_last_arrival_at" in plan
    assert "ix_study_receiving" not in plan and "TEMP B-TREE" not in plan
