"""Workitems that a worklist does not serve while it serves others: each waits for itself, and is not soon given up."""

from __future__ import annotations

from datetime import timedelta

import pytest
from performing_node import UID, MakeNode, PerformingNode
from sqlmodel import select
from worklist_manager import WorklistManager

from node.pacs import HeldSeries
from store import workitems
from store.tables import Association, Event

OTHER = "1.2.3.5"


def states(node: PerformingNode) -> dict[str, str]:
    return {row.workitem_uid: row.state for row in node.rows()}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"/workitems/{UID}"),
        pytest.param("POST", f"/workitems/{UID}", marks=pytest.mark.long),
        ("PUT", f"/workitems/{UID}/state"),
    ],
)
@pytest.mark.parametrize("status", [500, pytest.param(503, marks=pytest.mark.long)])
def test_a_workitem_that_is_answered_with_a_fault_holds_no_other_back(
    make: MakeNode, manager: WorklistManager, method: str, path: str, status: int
) -> None:
    broken, other = manager.schedule(UID), manager.schedule(OTHER)
    manager.broken = {(method, path): status}
    node = make()
    for _ in range(12):
        node.round()
    assert other.state == "COMPLETED"
    assert broken.state != "COMPLETED"
    manager.broken = {}
    node.now += timedelta(hours=2)
    node.rounds(12)
    assert broken.state == "COMPLETED"


def test_a_workitem_that_is_no_dicom_json_holds_no_other_back_and_the_log_names_it(
    make: MakeNode, manager: WorklistManager, caplog: pytest.LogCaptureFixture
) -> None:
    other = manager.schedule(OTHER)
    item = manager.schedule(UID)
    node = make()
    node.now += timedelta(seconds=1)
    node.performer.tick(node.now)
    node.performer.tick(node.now)
    manager.broken = {("GET", f"/workitems/{UID}"): 200}
    for _ in range(8):
        node.round()
    assert other.state == "COMPLETED"
    (number,) = [row.id for row in node.rows() if row.workitem_uid == UID]
    waits = [r.getMessage() for r in caplog.records if "workitem-waits" in r.getMessage()]
    assert waits
    assert all(f"workitem={number}" in message for message in waits)
    manager.broken = {}
    node.now += timedelta(hours=1)
    node.rounds(12)
    assert item.state == "COMPLETED"


def test_a_claimed_workitem_that_is_not_served_is_given_up_after_a_week_and_no_sooner(
    make: MakeNode, manager: WorklistManager
) -> None:
    manager.schedule(UID)
    node = make()
    node.now += timedelta(seconds=1)
    node.performer.tick(node.now)
    node.performer.tick(node.now)
    assert states(node) == {UID: workitems.CLAIMED}
    manager.broken = {("GET", f"/workitems/{UID}"): 500}
    for _ in range(20):
        node.now += timedelta(hours=8)
        node.performer.tick(node.now)
    assert states(node) == {UID: workitems.CLAIMED}
    node.now += timedelta(hours=9)
    node.performer.tick(node.now)
    assert states(node) == {UID: workitems.FORGOTTEN}
    assert node.row.told == "http://manager/rs answered HTTP 500"


def test_a_search_that_fails_lets_what_is_claimed_go_on(make: MakeNode, manager: WorklistManager) -> None:
    item = manager.schedule(UID)
    node = make()
    node.take_up()
    manager._search = lambda _: (500, {}, None)  # type: ignore[method-assign]
    for _ in range(60):
        node.now += timedelta(minutes=1)
        node.performer.tick(node.now)
    asked = manager.requests.count(("GET", "/workitems"))
    assert 6 <= asked <= 14  # 10, 20, 40, ... 900 seconds
    node.rounds(6)
    assert item.state == "COMPLETED"


@pytest.mark.parametrize("status", [401, 302, pytest.param(403, marks=pytest.mark.long)])
def test_claimed_workitems_outlast_a_password_that_is_wrong_for_days_and_it_is_told_once(
    make: MakeNode, manager: WorklistManager, status: int
) -> None:
    items = [manager.schedule(UID), manager.schedule(OTHER)]
    node = make()
    node.now += timedelta(seconds=1)
    node.performer.tick(node.now)
    node.performer.tick(node.now)
    manager.broken = {(method, "/workitems"): status for method in ("GET", "POST", "PUT")}
    for _ in range(24):
        node.now += timedelta(hours=3)
        node.performer.tick(node.now)
    assert states(node) == {UID: workitems.CLAIMED, OTHER: workitems.CLAIMED}
    with node.database.reading() as session:
        events = [(e.kind, e.subject) for e in session.exec(select(Event))]
    assert events == [("worklist-denied", "http://manager/rs")]
    manager.broken = {}
    node.now += timedelta(hours=1)
    node.rounds(14)
    assert [item.state for item in items] == ["COMPLETED", "COMPLETED"]


def test_a_worklist_that_denies_access_again_after_it_gave_it_is_told_again(
    make: MakeNode, manager: WorklistManager
) -> None:
    node = make()
    for status in (401, 0, 401):
        manager.broken = {("GET", "/workitems"): status} if status else {}
        for _ in range(2):
            node.now += timedelta(hours=1)
            node.performer.tick(node.now)
    with node.database.reading() as session:
        assert [e.kind for e in session.exec(select(Event))] == ["worklist-denied"] * 2


def test_a_series_of_which_an_archive_lists_no_instance_is_no_input_that_is_here(
    make: MakeNode, manager: WorklistManager
) -> None:
    item = manager.schedule(UID)
    node = make()
    node.archive.files = {}
    node.rounds(10)
    assert item.state == "CANCELED"
    assert item.progress("ReasonForCancellation").endswith("lists no instance of a series that it told of.")
    assert node.jobs() == []


def test_the_fetch_of_an_input_tells_that_it_goes_on_also_after_the_clock_was_set_back(
    make: MakeNode, manager: WorklistManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager.schedule(UID)
    node = make()
    clock, gives = [node.now + timedelta(hours=1)], node.archive.gives

    def set_back(uid: str) -> bytes | None:
        clock[:] = [node.now]
        return gives(uid)

    monkeypatch.setattr("node.workitem_input.BEAT_SECONDS", -1.0)
    monkeypatch.setattr(node.database, "now", lambda: clock[0])
    monkeypatch.setattr(node.archive, "gives", set_back)
    node.take_up()
    assert node.row.state == workitems.ANALYSING
    with node.database.reading() as session:
        assert session.exec(select(Association.alive_at)).all() == [node.now]


def test_a_workitem_whose_input_nobody_foresaw_is_given_up_and_told_and_holds_no_other(
    make: MakeNode, manager: WorklistManager, caplog: pytest.LogCaptureFixture
) -> None:
    odd, sound = manager.schedule(UID, study="1.2.8"), manager.schedule(OTHER)
    node = make()
    study_series = node.archive.study_series

    def series_of(study: str) -> tuple[HeldSeries, ...]:
        if study == "1.2.8":
            raise ValueError("Doe^John is too long")
        return study_series(study)

    node.archive.study_series = series_of  # type: ignore[method-assign]
    node.rounds(4)
    node.round(61)
    node.rounds(10)
    assert (odd.state, sound.state) == ("CANCELED", "COMPLETED")
    told = odd.progress("ReasonForCancellation")
    assert told.startswith("The input could not be fetched: a fault of our own: ValueError at ")
    assert "Doe" not in told
    assert "workitem-input-broken" in caplog.text
