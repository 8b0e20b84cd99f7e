"""Workitems that are cancelled, raced for, cut off or killed: each ends once, and nothing is lost."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from performing_node import UID, MakeNode, results
from sqlmodel import col, select
from whole_node import START, image
from worklist_manager import WorklistManager

from node import ups
from store import jobs, workitems
from store.tables import Result

# --- cancelling ---------------------------------------------------------------------------------------------------


def test_a_person_cancels_and_the_analysis_that_waits_is_taken_off(
    make: MakeNode, manager: WorklistManager
) -> None:
    item = manager.schedule(UID)
    node = make()
    node.take_up()
    with node.database.transaction() as session:
        workitems.stop(
            session, int(node.row.id or 0), node.now, reason="requested", told="Dr. Grey cancelled it."
        )
    node.round()
    assert item.state == "CANCELED"
    assert item.progress("ReasonForCancellation") == "Dr. Grey cancelled it."
    assert [job.state for job in node.jobs()] == [jobs.SUPERSEDED]
    node.rounds(3)
    assert results(node) == []


def test_an_analysis_that_runs_is_fenced_off_even_while_the_worklist_is_away(
    make: MakeNode, manager: WorklistManager
) -> None:
    item = manager.schedule(UID)
    node = make()
    node.take_up()
    job = node.whole.claim(node.now)
    assert job is not None
    with node.database.transaction() as session:
        workitems.stop(session, int(node.row.id or 0), node.now, reason="requested", told="No longer needed.")
    manager.faults = ["refused"] * 3
    node.performer.tick(node.now)
    with node.database.transaction() as session, pytest.raises(jobs.Fenced):
        jobs.require_held(session, int(job.id or 0), job.attempt)
    assert item.state == "IN PROGRESS"
    manager.faults = []
    node.rounds(4)
    assert item.state == "CANCELED"


@pytest.mark.long
def test_what_another_workitem_asks_for_goes_on_when_one_is_cancelled(
    make: MakeNode, manager: WorklistManager
) -> None:
    first, second = manager.schedule(UID), manager.schedule("1.2.3.5")
    node = make()
    node.now += timedelta(seconds=1)
    for _ in range(4):
        node.performer.tick(node.now)
    while node.fetcher.tick(node.now):
        pass
    node.settle()
    pk = next(int(row.id or 0) for row in node.rows() if row.workitem_uid == UID)
    with node.database.transaction() as session:
        workitems.stop(session, pk, node.now, reason="requested", told="Not this one.")
    node.rounds(5)
    assert (first.state, second.state) == ("CANCELED", "COMPLETED")


def test_a_worklist_that_cancels_by_itself_stops_the_work(make: MakeNode, manager: WorklistManager) -> None:
    item = manager.schedule(UID)
    node = make()
    node.take_up()
    item.become("CANCELED")
    node.now += timedelta(minutes=2)
    node.performer.tick(node.now)
    assert node.row.state == workitems.CANCELLED
    assert node.row.told == "The worklist cancelled it."
    assert [job.state for job in node.jobs()] == [jobs.SUPERSEDED]


# --- races, outages, crashes --------------------------------------------------------------------------------------


def test_two_performers_race_and_one_does_it(make: MakeNode, manager: WorklistManager) -> None:
    item = manager.schedule(UID)
    nodes = [make("a", ae_title="A"), make("b", ae_title="B")]
    for node in nodes:  # both have seen it as scheduled before either claims
        node.performer._search(node.now)
    for _ in range(10):
        for node in nodes:
            node.round()
    assert item.history == ["SCHEDULED", "IN PROGRESS", "COMPLETED"]
    assert sorted(node.row.state for node in nodes) == [workitems.COMPLETED, workitems.LOST]
    assert sum(len(node.jobs()) for node in nodes) == 1


@pytest.mark.long
@pytest.mark.fault
@pytest.mark.parametrize("fault", ["cut", "503", "refused"])
def test_every_single_request_may_fail_and_it_still_ends_once(
    make: MakeNode, manager: WorklistManager, fault: str
) -> None:
    counts = []
    for broken in range(12):
        manager.items.clear()
        manager.requests.clear()
        item = manager.schedule(UID)
        node = make(f"n{broken}")
        manager.faults = [""] * broken + [fault]
        node.rounds(14)
        assert item.history == ["SCHEDULED", "IN PROGRESS", "COMPLETED"], f"request {broken} failed"
        assert [uid for uid, _ in item.outputs] == results(node)
        assert len(results(node)) == 1
        counts.append(len(manager.requests))
    assert min(counts) >= 6


class Killed(BaseException):
    """The process ended here."""


@pytest.mark.fault
@pytest.mark.parametrize(
    "place",
    [
        pytest.param("workitem-written", marks=pytest.mark.long),
        "workitem-claimed",
        pytest.param("workitem-made", marks=pytest.mark.long),
        pytest.param("workitem-told", marks=pytest.mark.long),
        pytest.param("workitem-ended", marks=pytest.mark.long),
    ],
)
def test_a_process_that_dies_between_two_steps_ends_its_workitem_once(
    make: MakeNode, manager: WorklistManager, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    item = manager.schedule(UID)
    node = make()

    def reach(name: str) -> None:
        if name == place:
            raise Killed

    monkeypatch.setattr("node.workitems.reach", reach)
    with pytest.raises(Killed):
        node.rounds()
    monkeypatch.setattr("node.workitems.reach", lambda _: None)
    node.begin()
    node.rounds()
    assert item.history == ["SCHEDULED", "IN PROGRESS", "COMPLETED"]
    assert item.lock == node.row.transaction_uid
    assert [uid for uid, _ in item.outputs] == results(node)
    assert len(results(node)) == 1


def test_the_transaction_uid_is_a_row_before_it_is_sent(make: MakeNode, manager: WorklistManager) -> None:
    manager.schedule(UID)
    node = make()
    seen: list[list[str]] = []
    handle = manager.handle

    def watched(method: str, url: str, headers: Any, body: bytes) -> Any:
        if method == "PUT":
            seen.append([row.transaction_uid for row in node.rows()])
            assert seen[-1][0].encode() in body
        return handle(method, url, headers, body)

    manager.handle = watched  # type: ignore[method-assign]  # to look in between
    node.rounds(2)
    assert seen[0] == [node.row.transaction_uid]


@pytest.mark.parametrize("rounds", [1, pytest.param(4, marks=pytest.mark.long)])
def test_a_workitem_that_the_worklist_forgot_ends_here_and_its_results_stay(
    make: MakeNode, manager: WorklistManager, rounds: int
) -> None:
    manager.schedule(UID)
    node = make()
    node.statuses["store"] = 0xA700
    node.rounds(rounds)
    assert node.row.state == (workitems.CLAIMED if rounds == 1 else workitems.ANALYSING)
    manager.items.clear()
    node.statuses.clear()
    node.now += timedelta(minutes=2)
    node.rounds(4)
    assert node.row.state == workitems.FORGOTTEN
    assert "no longer knows" in node.row.told
    assert len(results(node)) == (0 if rounds == 1 else 1)


@pytest.mark.long
def test_a_workitem_that_was_given_to_somebody_else_ends_here(
    make: MakeNode, manager: WorklistManager
) -> None:
    item = manager.schedule(UID)
    node = make()
    node.rounds(1)
    item.lock = "9.9.9"
    node.rounds(8)
    assert node.row.state == workitems.FORGOTTEN
    assert "Transaction UID is incorrect" in node.row.told
    assert item.state == "IN PROGRESS"


@pytest.mark.long
def test_a_worklist_that_does_not_answer_is_asked_ever_more_seldom_and_disturbs_nothing(
    make: MakeNode, manager: WorklistManager
) -> None:
    manager.schedule(UID)
    node = make()
    manager.faults = ["refused"] * 1000
    for _ in range(720):
        node.now += timedelta(seconds=5)
        node.performer.tick(node.now)
    asked = 1000 - len(manager.faults)
    assert 8 <= asked <= 14  # 10, 20, 40, ... 900 seconds within one hour
    for number in (1, 2, 3):
        node.whole.take(image(9, number), node.now)
    node.round(61)
    assert len(results(node)) == 1


@pytest.mark.long
def test_a_claim_that_is_refused_again_and_again_is_given_up_and_tried_again_after_an_hour(
    make: MakeNode, manager: WorklistManager
) -> None:
    item = manager.schedule(UID)
    node = make()
    change = manager._change
    manager._change = lambda *_: (409, {"Warning": "299 manager: not you"}, None)  # type: ignore[method-assign]
    for _ in range(60):
        node.round(20)
    assert node.row.state == workitems.LOST
    assert "not you" in node.row.told
    first = node.row.transaction_uid
    manager._change = change  # type: ignore[method-assign]
    node.now += timedelta(hours=2)
    node.rounds(8)
    assert item.state == "COMPLETED"
    assert node.row.transaction_uid != first


@pytest.mark.long
def test_more_images_that_come_meanwhile_are_analysed_and_only_what_counts_is_listed(
    make: MakeNode, manager: WorklistManager
) -> None:
    item = manager.schedule(UID)
    node = make()
    node.statuses["store"] = 0xA700
    node.rounds(3)
    node.archive.files["1.2.7.1.9"] = image(7, 9)
    node.whole.take(image(7, 9), node.now)
    node.round(61)
    node.statuses["store"] = 0x0000
    node.rounds(8)
    newest = max(node.jobs(), key=lambda job: job.id or 0)
    with node.database.reading() as session:
        made = list(session.exec(select(Result.sop_instance_uid).where(col(Result.job_pk) == newest.id)))
    assert item.state == "COMPLETED"
    assert [uid for uid, _ in item.outputs] == made


@pytest.mark.long
def test_a_transition_that_is_not_drawn_is_refused(make: MakeNode, manager: WorklistManager) -> None:
    manager.schedule(UID)
    node = make()
    node.rounds()
    with node.database.transaction() as session, pytest.raises(Exception, match="illegal-transition"):
        workitems.move(session, node.row, workitems.CLAIMED, node.now)
    with node.database.transaction() as session, pytest.raises(Exception, match="illegal-transition"):
        workitems.stop(session, int(node.row.id or 0), node.now, reason="requested", told="late")


def test_the_table_of_final_states_and_what_is_told_agree() -> None:
    update = ups.cancelled("failed", "It broke.", START, 40)
    assert ups.lacking(update, ups.CANCELED, only=ups.OURS_TO_SET) == ()
    assert ups.lacking(update, ups.COMPLETED, only=ups.OURS_TO_SET) == (
        "UnifiedProcedureStepPerformedProcedureSequence",
        *(p for p in ups.FINAL_STATE if p.startswith("UnifiedProcedureStepPerformedProcedureSequence.")),
    )
    assert "SOPClassUID" in ups.lacking(update, ups.CANCELED)
