"""The input of a workitem that comes by halves: it is not analysed, and no result of it is delivered."""

from __future__ import annotations

from datetime import timedelta

from performing_node import UID, MakeNode, PerformingNode, results
from sqlmodel import select
from worklist_manager import WorklistManager

from plugins.errors import Unavailable
from store.tables import Revision, RevisionInstance


class Outage:
    """Lets an archive give one image and then nothing, until it is over."""

    def __init__(self, node: PerformingNode) -> None:
        self.is_over, self.asked, self._give = False, 0, node.archive.gives
        node.archive.gives = self

    def __call__(self, uid: str) -> bytes | None:
        self.asked += 1
        if self.asked > 1 and not self.is_over:
            raise Unavailable("the archive does not answer")
        return self._give(uid)


def revisions(node: PerformingNode) -> list[tuple[bool, int]]:
    """Return of each revision whether it was forced, and how many images it has."""
    with node.database.reading() as session:
        rows = session.exec(select(Revision).order_by(Revision.id)).all()  # type: ignore[arg-type]
        held = list(session.exec(select(RevisionInstance.revision_pk)))
    return [(row.forced, held.count(row.id or 0)) for row in rows]


def test_an_input_that_broke_off_is_analysed_once_the_rest_is_here_and_not_before(
    make: MakeNode, manager: WorklistManager
) -> None:
    item, node = manager.schedule(UID), make()
    outage = Outage(node)
    for _ in range(11):
        node.round()
    assert (node.row.state, node.jobs(), revisions(node)) == ("fetching", [], [])
    outage.is_over = True
    node.now += timedelta(minutes=16)
    node.rounds()
    assert (item.state, revisions(node), len(node.jobs())) == ("COMPLETED", [(False, 3)], 1)


def test_an_input_whose_rest_comes_after_the_longest_time_is_analysed_whole_and_once(
    make: MakeNode, manager: WorklistManager
) -> None:
    item, node = manager.schedule(UID), make()
    outage = Outage(node)
    for _ in range(9):
        node.round(900)
    assert (node.row.state, node.jobs(), revisions(node)) == ("fetching", [], [(True, 1)])
    outage.is_over = True
    node.now += timedelta(minutes=16)
    node.rounds()
    assert (item.state, revisions(node), len(node.jobs())) == ("COMPLETED", [(True, 1), (False, 3)], 1)


def test_an_archive_that_stays_away_leaves_no_result_of_half_the_input(
    make: MakeNode, manager: WorklistManager
) -> None:
    item, node = manager.schedule(UID), make()
    Outage(node)
    for _ in range(120):
        node.round(900)
    assert (item.state, node.row.state) == ("CANCELED", "cancelled")
    assert (node.jobs(), results(node), revisions(node)) == ([], [], [(True, 1)])


def test_an_archive_that_gives_half_and_then_knows_the_study_no_longer_is_not_taken_for_a_sender(
    make: MakeNode, manager: WorklistManager
) -> None:
    item, node = manager.schedule(UID), make()
    Outage(node)
    node.take_up()
    node.archive.study = "1.2.999"
    for _ in range(30):
        node.round(60)
    assert (item.state, node.row.state) == ("CANCELED", "cancelled")
    assert (node.jobs(), results(node)) == ([], [])
