"""A home whose objects are there and whose rows are not."""

from __future__ import annotations

from pathlib import Path

from outbox_rows import waiting_results
from small_node import SmallNode


def home_with_rows_elsewhere(folder: Path) -> Path:
    """Return the home of a node with objects whose rows are in the database in `elsewhere` beside it."""
    small = SmallNode.make(folder / "home")
    waiting_results(small.database, small.objects, folder, ["P@h:104"], count=2)
    small.database.dispose()
    (folder / "elsewhere").mkdir()
    for file in small.home.glob("nadir.sqlite*"):
        file.rename(folder / "elsewhere" / file.name)
    return small.home
