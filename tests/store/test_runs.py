from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from plugins.errors import Refused
from store import leases, runs
from store.database import Database, insert_new
from store.runs import State

NOW = datetime(2026, 11, 20, 3, 0, tzinfo=UTC)
LATER = NOW + timedelta(seconds=61)


def test_of_two_runs_of_a_family_the_second_is_told_who_runs_since_when(database: Database) -> None:
    with database.transaction() as session:
        begun = runs.begin(session, "nodule_segmenter", "host:1", NOW, 60)
    with (
        pytest.raises(Refused, match=r"host:1 .* since 2026-11-20T03:00:00") as refused,
        database.transaction() as session,
    ):
        runs.begin(session, "nodule_segmenter", "host:2", NOW + timedelta(seconds=59), 60)
    assert refused.value.code == "already-running"
    with database.transaction() as session:
        assert runs.begin(session, "petct_multitask", "host:2", NOW, 60) != begun


def test_a_run_that_ends_while_another_asks_for_its_place_leaves_it_to_that_one(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[object] = []

    def taken_at_first(*asked: Any) -> int | None:
        tried.append(asked)
        return None if len(tried) == 1 else insert_new(*asked)

    monkeypatch.setattr(runs, "insert_new", taken_at_first)
    with database.transaction() as session:
        pk = runs.begin(session, "nodule_segmenter", "host:1", NOW, 60)
        assert runs.get(session, pk).owner == "host:1"


def test_a_run_whose_lease_ended_is_abandoned_by_the_next_and_can_write_no_more(database: Database) -> None:
    with database.transaction() as session:
        first = runs.begin(session, "nodule_segmenter", "host:1", NOW, 60)
        runs.note(session, first, "host:1", folder="training/nodule_segmenter/1")
    with database.transaction() as session:
        second = runs.begin(session, "nodule_segmenter", "host:2", LATER, 60)
    with database.transaction() as session:
        assert not runs.keep(session, first, "host:1", LATER, 60)
        assert runs.keep(session, second, "host:2", LATER, 60)
    for write in (
        lambda s: runs.note(s, first, "host:1", labels=3),
        lambda s: runs.move(s, first, "host:1", State.FITTING),
        lambda s: runs.end(s, first, "host:1", State.FAILED, "late", LATER),
    ):
        with pytest.raises(runs.Overtaken), database.transaction() as session:
            write(session)
    with database.reading() as session:
        assert [run.state for run in runs.list_runs(session)] == ["abandoned", "collecting"]
        (gone,) = runs.list_runs(session, "nodule_segmenter", [State.ABANDONED])
        assert gone.folder == "training/nodule_segmenter/1"


@pytest.mark.parametrize(
    ("next_lease", "ended"),
    [(60, NOW + timedelta(seconds=200)), (3600, NOW), (20, NOW + timedelta(seconds=240))],
    ids=["the same lease", "a longer one", "a shorter one"],
)
def test_a_killed_run_ended_at_its_last_sign_of_life_and_not_when_the_next_one_began(
    database: Database, next_lease: float, ended: datetime
) -> None:
    with database.transaction() as session:
        killed = runs.begin(session, "nodule_segmenter", "host:1", NOW, 60)
        assert runs.keep(session, killed, "host:1", NOW + timedelta(seconds=200), 60)
    with database.transaction() as session:
        runs.begin(session, "nodule_segmenter", "host:2", NOW + timedelta(days=7), next_lease)
        assert runs.get(session, killed).ended_at == ended


def test_a_run_that_is_kept_alive_stays_and_ends_free_its_place(database: Database) -> None:
    with database.transaction() as session:
        pk = runs.begin(session, "nodule_segmenter", "host:1", NOW, 60)
        assert runs.keep(session, pk, "host:1", NOW + timedelta(seconds=50), 60)
    with pytest.raises(Refused, match="already-running"), database.transaction() as session:
        runs.begin(session, "nodule_segmenter", "host:2", LATER, 60)
    with database.transaction() as session:
        runs.move(session, pk, "host:1", State.FITTING, labels=12, new_labels=7)
        runs.move(session, pk, "host:1", State.JUDGING)
        runs.end(session, pk, "host:1", State.REFUSED, "no better", LATER)
    with database.transaction() as session:
        assert runs.begin(session, "nodule_segmenter", "host:2", LATER, 60) > pk
        ended = runs.get(session, pk)
        assert (ended.state, ended.labels, ended.said, ended.slot) == ("refused", 12, "no better", None)
        assert [run.id for run in runs.list_runs(session, states=runs.LEARNED)] == [pk]


@pytest.mark.parametrize("to", [State.PROPOSED, State.REFUSED, State.JUDGING])
def test_a_run_that_has_learned_nothing_proposes_nothing(database: Database, to: State) -> None:
    with database.transaction() as session:
        pk = runs.begin(session, "nodule_segmenter", "host:1", NOW, 60)
    with pytest.raises(Refused, match="illegal-transition"), database.transaction() as session:
        runs.move(session, pk, "host:1", to)


def test_a_lease_has_one_owner_until_it_ends_or_is_given_back(database: Database) -> None:
    with database.transaction() as session:
        assert leases.take(session, "scheduler", "a", NOW, 60)
        assert not leases.take(session, "scheduler", "b", NOW, 60)
        assert leases.take(session, "scheduler", "a", NOW + timedelta(seconds=30), 60)
        assert leases.holder(session, "scheduler", LATER) == "a"
    with database.transaction() as session:
        assert not leases.take(session, "scheduler", "b", LATER, 60)
        leases.give_back(session, "scheduler", "b")
        assert leases.take(session, "scheduler", "b", LATER + timedelta(seconds=30), 60)
        leases.give_back(session, "scheduler", "b")
        assert leases.holder(session, "scheduler", LATER) is None
        assert leases.take(session, "scheduler", "a", NOW, 60)
