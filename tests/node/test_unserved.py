"""Results that wait for a destination that the sender does not have: who is told, and how often."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from empty_database import empty_database
from outbox_rows import waiting_results
from patience import eventually
from sqlmodel import select

from node.serve import Node
from node.settings import Settings
from node.unserved import Unserved
from store import outbox
from store.database import Database
from store.objects import ObjectStore
from store.tables import Event

SET, OTHER = "http://orthanc:8042/dicom-web", "PACS@10.0.0.5:104"


def subjects(database: Database) -> list[str]:
    with database.reading() as session:
        return list(session.exec(select(Event.subject).where(Event.kind == "destination-not-set")))


def test_results_that_come_to_wait_for_another_destination_are_told_once_until_none_waits_any_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database, objects = empty_database(tmp_path), ObjectStore(tmp_path / "store")
    unserved, now = Unserved(database, [SET]), database.now()
    assert not unserved.tick(now)
    waiting_results(database, objects, tmp_path, [SET, OTHER])
    assert subjects(database) == []
    for _ in range(2):
        unserved.tick(now)
    assert subjects(database) == [OTHER]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "action=destination-not-set" in record.getMessage() and "waiting=3" in record.getMessage()
    with database.transaction() as session:
        outbox.abandon(session, OTHER, now)
    unserved.tick(now)
    waiting_results(database, objects, tmp_path, [OTHER], patient_id="P2")
    unserved.tick(now)
    assert subjects(database) == [OTHER, OTHER]


def test_a_sender_that_runs_looks_for_them(tmp_path: Path) -> None:
    home = tmp_path / "home"
    node = Node(Settings.load(home=home, destinations=[SET]), ["sender"])
    waiting_results(node.database, node.objects, tmp_path, [OTHER])
    node.start()
    try:
        assert eventually(lambda: subjects(node.database)) == [OTHER]
    finally:
        node.stop()
