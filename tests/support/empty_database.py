"""A database with all tables and no rows, made once in a process: migrating takes longer than most tests."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from store.database import Database


@cache
def _empty() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "nadir.sqlite"
        database = Database(f"sqlite:///{file}", sync=False)
        database.upgrade()
        database.dispose()
        return file.read_bytes()


def place_database(home: Path) -> Path:
    """Write a migrated database into a home folder that has none, and return its path."""
    file = home / "nadir.sqlite"
    if not file.exists():
        home.mkdir(parents=True, exist_ok=True)
        file.write_bytes(_empty())
    return file


def empty_database(home: Path) -> Database:
    """Return the migrated database of a home folder, which waits for no disk: that takes longer than most tests."""
    return Database(f"sqlite:///{place_database(home)}", sync=False)
