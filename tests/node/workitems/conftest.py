"""A strict worklist manager, and nodes that perform for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from performing_node import MakeNode, PerformingNode
from worklist_manager import WorklistManager

from store.database import Database


@pytest.fixture
def manager() -> WorklistManager:
    return WorklistManager()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "nadir.sqlite"
    database = Database(f"sqlite:///{path}")
    database.upgrade()
    database.dispose()
    return path


@pytest.fixture
def make(tmp_path: Path, manager: WorklistManager, template: Path) -> Iterator[MakeNode]:
    made: list[PerformingNode] = []

    def node(name: str = "node", **settings: Any) -> PerformingNode:
        (tmp_path / name).mkdir()
        made.append(PerformingNode(tmp_path / name, manager, template, **settings))
        return made[-1]

    yield node
    for one in made:
        one.close()
