"""A database and an object store in a folder, made quickly, and what is in them."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from empty_database import empty_database
from sqlmodel import SQLModel, select

from store.database import Database
from store.objects import ObjectStore
from store.tables import Instance

Row = TypeVar("Row", bound=SQLModel)


@dataclass(frozen=True, kw_only=True)
class SmallNode:
    """Where a test node keeps things."""

    home: Path
    """Its folder."""
    database: Database
    """Its rows."""
    objects: ObjectStore
    """Its bytes."""

    @classmethod
    def make(cls, home: Path) -> SmallNode:
        """Return a node in an empty folder."""
        return cls(home=home, database=empty_database(home), objects=ObjectStore(home / "store"))

    def rows(self, table: type[Row]) -> Sequence[Row]:
        """Return every row of a table."""
        with self.database.reading() as session:
            return session.exec(select(table)).all()

    def incoming(self) -> list[Path]:
        """Return the files that are still arriving, or were left behind."""
        return sorted((self.home / "store" / "incoming").iterdir())

    def check_whole(self) -> int:
        """Assert that every row has its object with the right bytes; return how many rows there are."""
        rows = self.rows(Instance)
        for row in rows:
            assert hashlib.sha256(self.objects.path(row.sha256).read_bytes()).hexdigest() == row.sha256
        return len(rows)


def instances_in(home: Path) -> dict[str, str]:
    """Return SOP Instance UID to sha256 of every instance that a node in this folder has recorded."""
    with closing(sqlite3.connect(home / "nadir.sqlite")) as connection:
        return dict(connection.execute("SELECT sop_instance_uid, sha256 FROM instance"))
