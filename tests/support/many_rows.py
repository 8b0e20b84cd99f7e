"""Thousands of rows like the first of a table, and what SQLite does over them, counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from sqlalchemy import text
from sqlmodel import Session


def multiply(session: Session, table: str, differs: Mapping[str, str], count: int) -> None:
    """Write the first row of a table until there are so many, with what differs as SQL of the number `n.i`."""
    names = [row[1] for row in session.connection().execute(text(f"PRAGMA table_info({table})"))]
    values = ", ".join({"id": "n.i", **differs}.get(name, f"{table}.{name}") for name in names)
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < {count})"
    rows = f"INSERT INTO {table} ({', '.join(names)}) SELECT {values} FROM {table}, n WHERE {table}.id = 1"
    session.connection().execute(text(f"{numbers} {rows}"))


@contextmanager
def counted_steps(session: Session) -> Iterator[list[int]]:
    """Give the steps that the machine of SQLite takes in the block, in tens, as the length of a list."""
    steps: list[int] = []
    driver = session.connection().connection.driver_connection
    assert driver is not None
    driver.set_progress_handler(lambda: steps.append(0), 10)
    yield steps
    driver.set_progress_handler(None, 0)
