"""Deliveries that an earlier version wrote: their passwords go, and nothing else."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from outbox_rows import waiting_results
from small_node import SmallNode
from sqlalchemy import Connection, create_engine, text

from store.database import MIGRATIONS, Database

AS_IT_WAS = (
    ("https://nadir:old@archive/dicom-web/", "delivered"),
    ("https://nadir:new@archive/dicom-web", "pending"),
    ("https://nadir:old@archive/dicom-web", "parked"),
    ("PACS@10.0.0.1:104", "sending"),
)
"""Two deliveries of each of two results, as the first version named their destinations."""


def to_first_version(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.downgrade(config, "0001")


def test_passwords_leave_the_destinations_and_one_row_a_result_stays(tmp_path: Path) -> None:
    small = SmallNode.make(tmp_path / "home")
    waiting_results(small.database, small.objects, tmp_path, ["A@h:1", "B@h:2"], count=2)
    small.database.dispose()
    path = tmp_path / "home" / "nadir.sqlite"
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        to_first_version(connection)
        for number, (destination, state) in enumerate(AS_IT_WAS, start=1):
            connection.execute(
                text("UPDATE delivery SET destination = :d, state = :s WHERE id = :i"),
                {"d": destination, "s": state, "i": number},
            )
    database = Database(f"sqlite:///{path}")
    database.upgrade()
    database.dispose()
    with engine.connect() as connection:
        left = connection.execute(text("SELECT id, destination, state, resends FROM delivery ORDER BY id"))
        assert [tuple(row) for row in left] == [
            (1, "https://archive/dicom-web", "delivered", 0),
            (3, "https://archive/dicom-web", "parked", 0),
            (4, "PACS@10.0.0.1:104", "sending", 0),
        ]
    engine.dispose()
    assert b"nadir:" not in path.read_bytes()
