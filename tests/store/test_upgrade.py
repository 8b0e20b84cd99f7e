from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlmodel import select

from store.database import MIGRATIONS, Database
from store.schema import METADATA
from store.tables import Patient

REVISIONS = [path.name[:4] for path in sorted((MIGRATIONS / "versions").glob("[0-9]*_*.py"))]
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
Rows = dict[str, list[dict[str, Any]]]


def config_at(connection: sa.Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config


def value(column: sa.Column[Any], number: int) -> Any:
    """Return something that fits a column; what points to another table points to its row of that number."""
    if column.foreign_keys or (column.primary_key and isinstance(column.type, sa.Integer)):
        return number
    kind = column.type.python_type
    made: dict[type, Any] = {
        int: number,
        float: number + 0.5,
        bool: number % 2 == 1,
        bytes: bytes([number]),
        date: date(2026, 3, number),
    }
    if kind is datetime:
        return NOON.replace(minute=number)
    return made.get(kind, f"{column.name} {number}")


def fill(connection: sa.Connection) -> Rows:
    """Put two rows into every table as it is at this revision, and return them as they are read."""
    metadata = sa.MetaData()
    metadata.reflect(connection)
    for table in metadata.sorted_tables:
        if table.name != "alembic_version":
            rows = [{column.name: value(column, number) for column in table.columns} for number in (1, 2)]
            connection.execute(table.insert(), rows)
    return read(connection)


def read(connection: sa.Connection) -> Rows:
    metadata = sa.MetaData()
    metadata.reflect(connection)
    return {
        table.name: [
            dict(row) for row in connection.execute(sa.select(table).order_by(*table.columns)).mappings()
        ]
        for table in metadata.sorted_tables
        if table.name != "alembic_version"
    }


@pytest.mark.parametrize(
    "revision",
    # Released migrations do not change: the first goes through all of them, the last two to what is new.
    [REVISIONS[0], *(pytest.param(r, marks=pytest.mark.long) for r in REVISIONS[1:-2]), *REVISIONS[-2:]],
)
def test_a_database_of_each_released_schema_is_brought_up_with_every_row(
    empty_url: str, revision: str
) -> None:
    database = Database(empty_url)
    with database.engine.execution_options(nadir_foreign_keys="OFF").begin() as connection:
        command.upgrade(config_at(connection), revision)
        before = fill(connection)
    database.upgrade()
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
        after = read(connection)
    for table, rows in before.items():
        kept = set(rows[0]) & set(after[table][0])
        told = [{name: row[name] for name in kept} for row in after[table]]
        assert told == [{name: row[name] for name in kept} for row in rows], table
        assert kept == set(rows[0]), f"{table}: a column was dropped"
    with database.reading() as session:
        assert [patient.patient_id for patient in session.exec(select(Patient))] == [
            "patient_id 1",
            "patient_id 2",
        ]
    database.dispose()


def test_the_revisions_are_one_line_without_a_fork() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    script = ScriptDirectory.from_config(config)
    assert [one.revision for one in script.walk_revisions()] == REVISIONS[::-1]
    assert script.get_heads() == [REVISIONS[-1]]
