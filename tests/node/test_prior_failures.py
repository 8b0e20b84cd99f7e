"""Earlier studies that cannot be had, or not at once: waited for, tried again, parked, and told."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from prior_bench import TODAY, Bench, uids
from pydicom import dcmread

from node.pacs import HeldSeries
from node.priors import PriorFetcher
from plugins.errors import Refused, Unavailable
from store import priors
from store.prior_tables import Prior, PriorSearch
from store.tables import Event, Instance


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.node.database.dispose()


def test_another_patients_object_is_refused_with_an_event_and_the_others_come_all_the_same(
    bench: Bench,
) -> None:
    wrong, right = bench.series("wrong", study_date="20250601"), bench.series("right", study_date="20250101")
    uid = str(dcmread(wrong[0]).StudyInstanceUID)
    foreign = bench.series("foreign", patient_id="P2", study_uid=uid, series_number=2)
    bench.archive.add([*wrong, *right])
    bench.archive.swaps = {next(iter(uids(wrong[:1]))): foreign[0]}
    bench.receive(bench.series("today", study_date=TODAY))
    bench.settle()
    bench.fetch()
    assert sorted(bench.events()) == ["prior-parked", "quarantine"]
    assert [(f"{one.study_date:%m%d}", len(one.objects)) for one in bench.earlier()] == [
        ("0101", 2),
        ("0601", 1),
    ]
    assert not uids(foreign) & {row.sop_instance_uid for row in bench.node.rows(Instance)}


def test_an_earlier_study_without_a_listed_instance_is_not_told_as_done_and_comes_when_it_is_asked_for_again(
    bench: Bench,
) -> None:
    old = bench.series("old", study_date="20250101")
    bench.archive.add(old)
    bench.archive.hides = uids(old)
    bench.receive(bench.series("today", study_date=TODAY))
    bench.settle()
    bench.fetch()
    (row,) = bench.node.rows(Prior)
    assert (row.state, row.attempt, row.error_code) == ("waiting", 1, "incomplete-prior")
    assert str(row.error_text).endswith("lists no instance of a series that it told of")
    for _ in range(3):
        bench.fetch(bench.later(hours=1))
    assert [(row.state, row.attempt) for row in bench.node.rows(Prior)] == [("parked", 3)]
    assert bench.events() == ["prior-parked"]
    bench.archive.hides = set()
    with bench.node.database.transaction() as session:
        assert priors.retry_parked(session, bench.now) == 1
    bench.fetch()
    assert [(row.state, row.error_code) for row in bench.node.rows(Prior)] == [("done", None)]
    assert set(bench.archive.given) == uids(old)


def test_an_outage_delays_no_analysis_and_is_waited_out_for_a_week(bench: Bench) -> None:
    bench.archive.add(bench.series("old", study_date="20250101"))
    bench.archive.failure = Unavailable("it is down")
    bench.receive(bench.series("today", study_date=TODAY))
    assert bench.settle() == 2
    assert bench.fetch() == 1
    for _ in range(12):
        assert bench.fetch(bench.later(minutes=20)) == 1
    (search,) = bench.node.rows(PriorSearch)
    assert (search.state, search.error_code) == ("waiting", "unavailable")
    assert timedelta(minutes=11) < search.run_after - bench.now < timedelta(minutes=19)
    bench.archive.failure = None
    assert bench.fetch(bench.later(minutes=20)) == 2
    assert bench.dates() == ["20250101"]
    (search,) = bench.node.rows(PriorSearch)
    assert (search.state, search.error_code) == ("done", None)


def test_what_is_down_for_longer_than_a_week_is_parked_and_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.priors.GIVE_UP", timedelta(seconds=-1))
    bench.archive.failure = Unavailable("it is down")
    bench.receive(bench.series("today", study_date=TODAY))
    bench.settle()
    bench.fetch()
    assert [row.state for row in bench.node.rows(PriorSearch)] == ["parked"]
    assert bench.events() == ["prior-parked"]


def test_a_study_whose_oddness_nobody_foresaw_is_parked_and_told_and_stops_no_other(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    odd, sound = bench.series("odd", study_date="20250601"), bench.series("sound", study_date="20250101")
    bench.archive.add([*odd, *sound])
    study_series = bench.archive.study_series

    def series_of(uid: str) -> tuple[HeldSeries, ...]:
        if uid == str(dcmread(odd[0]).StudyInstanceUID):
            raise ValueError("Doe^John is too long")
        return study_series(uid)

    monkeypatch.setattr(bench.archive, "study_series", series_of)
    bench.receive(bench.series("today", study_date=TODAY))
    bench.settle()
    for _ in range(4):
        bench.fetch(bench.later(hours=1))
    assert bench.dates() == ["20250101"]
    parked, done = bench.node.rows(Prior)
    assert (parked.state, parked.attempt, parked.error_code) == ("parked", 3, "fault")
    assert (done.state, done.error_code) == ("done", None)
    (event,) = bench.node.rows(Event)
    assert event.kind == "prior-parked"
    assert event.text.startswith("fault: a fault of our own: ValueError at ")
    assert "Doe" not in event.text
    assert "prior-broken" in caplog.text


def test_a_refusal_is_parked_at_the_third_time_and_asked_again_when_the_study_settles_again(
    bench: Bench,
) -> None:
    bench.archive.add(bench.series("old", study_date="20250101"))
    bench.archive.failure = Refused("association-rejected", "who are you?")
    bench.receive(bench.series("today", study_date=TODAY))
    bench.settle()
    for _ in range(5):
        bench.fetch(bench.later(hours=1))
    (search,) = bench.node.rows(PriorSearch)
    assert (search.state, search.attempt, search.error_code) == ("parked", 3, "association-rejected")
    bench.archive.failure = None
    bench.receive(bench.series("more", study_date=TODAY, series_number=2))
    assert bench.settle() == 2
    bench.fetch()
    assert bench.dates() == ["20250101"]


def test_after_a_break_only_what_is_missing_is_fetched(bench: Bench) -> None:
    old = bench.series("old", count=5, study_date="20250101")
    bench.archive.add(old)
    bench.archive.breaks_after = 2
    bench.receive(bench.series("today", study_date=TODAY))
    bench.settle()
    bench.fetch()
    assert len(bench.archive.given) == 2
    bench.archive.breaks_after = 10
    bench.fetch(bench.later(minutes=1))
    assert sorted(bench.archive.given) == sorted(uids(old))
    bench.receive(bench.series("again", study_date="20260302"))  # the next study of the same patient
    bench.settle()
    bench.fetch()
    assert sorted(bench.archive.given) == sorted(uids(old))


def test_a_fetch_tells_that_it_goes_on_also_after_the_clock_was_set_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.archive.add(bench.series("old", study_date="20250101"))
    bench.receive(bench.series("today", study_date=TODAY))
    bench.settle()
    right, take = bench.now, bench.intake.take
    clock, leases = [right + timedelta(hours=1)], []

    def set_back(*args: object, **kwargs: object) -> object:
        clock[:] = [right]
        leases.append(bench.node.rows(Prior)[0].run_after)
        return take(*args, **kwargs)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr("node.priors.BEAT_SECONDS", -1.0)
    monkeypatch.setattr(bench.node.database, "now", lambda: clock[0])
    monkeypatch.setattr(bench.intake, "take", set_back)
    bench.fetch()
    assert leases == [right + timedelta(hours=1, seconds=30), right + timedelta(seconds=30)]


def test_a_series_that_cannot_be_had_keeps_no_other_from_coming_and_is_asked_for_again(bench: Bench) -> None:
    first = bench.series("first", study_date="20250101")
    bench.archive.add([*first, *bench.series("second", study_date="20250101", series_number=2)])
    (broken,) = bench.folder.glob("first/*1.dcm")
    bench.archive.swaps = {next(iter(uids([broken]))): Path(__file__)}
    bench.receive(bench.series("today", study_date=TODAY))
    bench.settle()
    for _ in range(4):
        bench.fetch(bench.later(hours=1))
    assert [len(one.objects) for one in bench.earlier()] == [3]
    assert [(row.state, row.error_code) for row in bench.node.rows(Prior)] == [("parked", "not-part10")]
    bench.archive.swaps = {}
    bench.receive(bench.series("more", study_date=TODAY, series_number=2))
    bench.settle()
    bench.fetch()
    assert [len(one.objects) for one in bench.earlier()] == [4]


def test_a_query_that_brings_half_the_archive_is_refused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.priors.MAX_ROWS", 3)
    for number in range(4):
        bench.archive.add(bench.series(f"s{number}", patient_id=f"Q{number}", study_date="20250101"))
    bench.receive(bench.series("today", patient_id="*", study_date=TODAY))
    bench.settle()
    bench.fetch()
    (search,) = bench.node.rows(PriorSearch)
    assert (search.state, search.error_code) == ("waiting", "query-too-wide")


def test_a_node_that_stops_fetches_no_further_and_goes_on_after_the_next_start(bench: Bench) -> None:
    bench.archive.add(bench.series("old", count=3, study_date="20250101"))
    bench.receive(bench.series("today", study_date=TODAY))
    bench.settle()
    fetcher = PriorFetcher(bench.node.database, bench.intake, bench.archive)
    fetcher.interrupt()
    while fetcher.tick(bench.now):
        pass
    assert bench.dates() == []
    assert list(bench.folder.glob("*.part")) == []
    bench.fetch(bench.later(minutes=1))
    assert bench.dates() == ["20250101"]
