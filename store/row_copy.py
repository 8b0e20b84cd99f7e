"""Every row of one database put into another one, whichever engine either is."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Table, func, insert, select, text
from sqlmodel import Session

from store.schema import METADATA

BATCH = 2000


def copy_rows(source: Session, target: Session) -> int:
    """Return how many rows were copied: all of every table, in an order in which each finds what it points to.

    Both have the tables of this release, and the target has no row.
    """
    copied = 0
    for table in METADATA.sorted_tables:
        order = list(table.primary_key)
        rows = source.connection().execution_options(yield_per=BATCH).execute(select(table).order_by(*order))
        for batch in rows.mappings().partitions(BATCH):
            target.connection().execute(insert(table), [dict(row) for row in batch])
            copied += len(batch)
        if target.get_bind().dialect.name == "postgresql":
            _count_on(target, table)
    return copied


def has_rows(session: Session) -> bool:
    """Return True when any table has a row."""
    tables = METADATA.sorted_tables
    return any(session.connection().execute(select(table).limit(1)).first() is not None for table in tables)


def _count_on(session: Session, table: Table) -> None:
    """Let PostgreSQL number new rows after the copied ones."""
    column: Any = table.c.get("id")
    if column is None or table.name == "alembic_version":
        return
    sequence = session.connection().execute(
        text("SELECT pg_get_serial_sequence(:table, 'id')"), {"table": table.name}
    )
    name, last = sequence.scalar(), session.connection().execute(select(func.max(column))).scalar()
    if name is not None and last is not None:
        session.connection().execute(text("SELECT setval(:name, :last)"), {"name": name, "last": last})


__all__ = ["copy_rows", "has_rows"]
