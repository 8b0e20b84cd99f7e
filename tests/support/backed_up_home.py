"""The home of a node with results, its backups, and what rows and files there are."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from outbox_rows import waiting_results
from sqlalchemy import select

from store.backup import Backup, back_up
from store.database import Database
from store.objects import ObjectStore
from store.schema import METADATA

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def made_home(folder: Path, database: Database) -> Path:
    """Return the home of a node with results, a model's folder, a key and things that are made again."""
    home = folder / "node"
    for path in ("models/f/1-abc/card.json", "audit.key", "scratch/x", "reports/p.html"):
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_text(path)
    (home / "audit.key").chmod(0o600)
    waiting_results(database, ObjectStore(home / "store"), folder / "made", ["P@h:104"], count=3)
    return home


def rows_of(database: Database) -> dict[str, list[Any]]:
    """Return every row of every table."""
    with database.reading() as session:
        return {
            table.name: [tuple(row) for row in session.connection().execute(select(table))]
            for table in METADATA.sorted_tables
        }


def files_below(folder: Path) -> dict[str, str]:
    """Return path to sha256 of every file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def make(database: Database, home: Path, folder: Path, hours: int = 0) -> Backup:
    """Back a node up, some hours after noon."""
    now = NOON + timedelta(hours=hours)
    return back_up(database, ObjectStore(home / "store"), home, folder, now=now, version="0.1.0")
