"""A small real node that keeps its promises, copied for each test on each engine."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fsck_faults import LATER
from postgres_server import PostgresServer
from whole_node import WholeNode, image

from node.sender import Answer
from store.database import Database
from store.objects import ObjectStore


def build(database: Database, objects: ObjectStore) -> None:
    """Let a node analyse and deliver two studies, one of them with a changed image."""
    node = WholeNode(database=database, objects=objects)
    for study in (1, 2):
        for number in (1, 2, 3):
            node.take(image(study, number))
    node.take(image(2, 3, content=1))
    node.settle(LATER)
    assert node.analyse(LATER) == 2
    while node.send(LATER, lambda parcel: Answer(status=0x0000)):
        pass
    database.dispose()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Path:
    """Return the home of that node."""
    home = tmp_path_factory.mktemp("built")
    shutil.copyfile(sqlite_template, home / "nadir.sqlite")
    build(Database(f"sqlite:///{home / 'nadir.sqlite'}"), ObjectStore(home / "store", sync=False))
    return home


@pytest.fixture(scope="module")
def built_postgres(
    tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer, postgres_template: str
) -> tuple[str, Path]:
    """Return the same on PostgreSQL: the name of its database, and its home."""
    name, home = postgres.create(postgres_template), tmp_path_factory.mktemp("built")
    build(Database(postgres.url(name)), ObjectStore(home / "store", sync=False))
    return name, home


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[WholeNode]:
    """Give a copy of that node, on each engine."""
    objects = ObjectStore(tmp_path / "store", sync=False)
    if request.param == "sqlite":
        home: Path = request.getfixturevalue("built")
        shutil.copyfile(home / "nadir.sqlite", tmp_path / "nadir.sqlite")
        url = f"sqlite:///{tmp_path / 'nadir.sqlite'}"
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        template, home = request.getfixturevalue("built_postgres")
        name = server.create(template)
        url = server.url(name)
    shutil.copytree(home / "store", tmp_path / "store", dirs_exist_ok=True)
    database = Database(url)
    yield WholeNode(database=database, objects=objects)
    database.dispose()
    if request.param != "sqlite":
        server.drop(name)
