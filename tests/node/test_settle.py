from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from dicom_series import make_series
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from marked_images import report
from pydicom import dcmread
from pytest import MonkeyPatch
from small_node import SmallNode

import node.settle as settle_module
from node.intake import Intake
from node.listener import Listener
from node.loop import Loop
from node.scu import send_files
from node.settle import Settler
from plugins.errors import Refused, Unavailable
from store.instances import OpenAssociation, beat, close_association, open_association
from store.studies import manifest_files
from store.tables import Job, Revision, Study

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """An identity as plain values."""

    plugin: str
    plugin_version: str
    model_sha256: str
    config_sha256: str


ANALYSES = tuple(
    Analysis(plugin=name, plugin_version="1", model_sha256="", config_sha256="c") for name in ("a", "b")
)


class Clock:
    def __init__(self) -> None:
        self.now = T0

    def __call__(self) -> datetime:
        return self.now

    def at(self, seconds: float) -> datetime:
        self.now = T0 + timedelta(seconds=seconds)
        return self.now


@pytest.fixture
def small(tmp_path: Path) -> Iterator[SmallNode]:
    node = SmallNode.make(tmp_path / "node")
    yield node
    node.database.dispose()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    return make_series(tmp_path / "in", np.arange(5 * 64.0).reshape(5, 8, 8))


class Bench:
    def __init__(self, small: SmallNode, clock: Clock) -> None:
        self.small, self.clock = small, clock
        self.intake = Intake(small.database, small.objects, clock=clock)
        self.settler = Settler(
            small.database, ANALYSES, quiet_seconds=60, hard_cap_seconds=600, objects=small.objects
        )

    def arrive(self, path: Path, at: float, association_pk: int | None = None) -> str:
        self.clock.at(at)
        temporary = self.small.objects.temporary()
        temporary.write_bytes(path.read_bytes())
        association = OpenAssociation(pk=association_pk) if association_pk else None
        return self.intake.take(temporary, source="x", association=association).outcome

    def associate(self, at: float) -> int:
        with self.small.database.transaction() as session:
            return open_association(session, "CT", "127.0.0.1", self.clock.at(at))

    def tick(self, at: float) -> list[tuple[int, bool, int]]:
        return [(one.revision, one.forced, one.jobs) for one in self.settler.tick(self.clock.at(at))]


@pytest.fixture
def bench(small: SmallNode, clock: Clock) -> Bench:
    return Bench(small, clock)


def test_a_study_settles_after_the_quiet_time_and_not_before(bench: Bench, images: list[Path]) -> None:
    bench.arrive(images[0], 0)
    bench.arrive(images[1], 50)

    assert bench.tick(60) == []
    assert bench.tick(109) == []
    assert bench.tick(110) == [(1, False, 2)]
    assert bench.tick(500) == []
    assert [(job.plugin, job.state) for job in bench.small.rows(Job)] == [("a", "queued"), ("b", "queued")]


def test_the_manifest_is_what_the_study_held(bench: Bench, images: list[Path]) -> None:
    for image in images:
        bench.arrive(image, 0)
    bench.tick(60)

    (revision,) = bench.small.rows(Revision)
    with bench.small.database.reading() as session:
        files = manifest_files(session, revision.id or 0)
    assert [uid for uid, _ in files] == sorted(str(dcmread(image).SOPInstanceUID) for image in images)


def test_an_open_association_that_touched_the_study_holds_it(bench: Bench, images: list[Path]) -> None:
    row = bench.associate(0)
    bench.arrive(images[0], 0, row)
    with bench.small.database.transaction() as session:
        beat(session, row, bench.clock.at(90))
    assert bench.tick(100) == []
    with bench.small.database.transaction() as session:
        close_association(session, row, bench.clock.at(101))
    assert bench.tick(102) == [(1, False, 2)]


def test_an_association_of_another_study_holds_nothing(bench: Bench, images: list[Path]) -> None:
    bench.associate(50)
    bench.arrive(images[0], 0)
    assert bench.tick(60) == [(1, False, 2)]


def test_an_association_that_gives_no_sign_of_life_holds_nothing(bench: Bench, images: list[Path]) -> None:
    row = bench.associate(0)
    bench.arrive(images[0], 10, row)
    assert bench.tick(71) == [(1, False, 2)]


def test_the_hard_cap_settles_a_study_that_never_rests_and_says_so(bench: Bench, images: list[Path]) -> None:
    row = bench.associate(0)
    for number, image in enumerate(images):
        bench.arrive(image, number * 140, row)
    with bench.small.database.transaction() as session:
        beat(session, row, bench.clock.at(599))
    assert bench.tick(599) == []
    assert bench.tick(600) == [(1, True, 2)]
    assert [revision.forced for revision in bench.small.rows(Revision)] == [True]


def test_a_late_image_makes_a_second_revision_and_supersedes_jobs_that_wait(
    bench: Bench, images: list[Path]
) -> None:
    bench.arrive(images[0], 0)
    bench.tick(60)
    bench.arrive(images[1], 100)
    assert bench.tick(150) == []
    assert bench.tick(160) == [(2, False, 2)]

    states = {(job.revision_pk, job.plugin): job.state for job in bench.small.rows(Job)}
    assert states == {(1, "a"): "superseded", (1, "b"): "superseded", (2, "a"): "queued", (2, "b"): "queued"}


def test_an_identical_resend_changes_nothing(bench: Bench, images: list[Path]) -> None:
    bench.arrive(images[0], 0)
    bench.tick(60)
    assert bench.arrive(images[0], 100) == "identical"
    assert bench.tick(200) == []
    assert [study.state for study in bench.small.rows(Study)] == ["settled"]
    assert len(bench.small.rows(Job)) == 2


def test_an_identical_resend_does_not_lengthen_the_wait(bench: Bench, images: list[Path]) -> None:
    bench.arrive(images[0], 0)
    bench.arrive(images[0], 55)
    assert bench.tick(60) == [(1, False, 2)]


def test_studies_settle_each_in_its_own_time(bench: Bench, images: list[Path], tmp_path: Path) -> None:
    (other,) = make_series(tmp_path / "other", np.ones((1, 8, 8)), patient_id="P2")
    bench.arrive(images[0], 0)
    bench.arrive(other, 30)
    assert len(bench.tick(60)) == 1
    assert len(bench.tick(90)) == 1
    assert len(bench.small.rows(Revision)) == 2


def test_an_image_that_comes_between_looking_and_settling_waits_for_the_next_turn(
    bench: Bench, images: list[Path], monkeypatch: MonkeyPatch
) -> None:
    bench.arrive(images[0], 0)
    real = settle_module.due

    def look_then_arrive(*args: object, **keywords: object) -> object:
        found = real(*args, **keywords)  # type: ignore[arg-type]
        bench.arrive(images[1], 60)
        return found

    monkeypatch.setattr(settle_module, "due", look_then_arrive)
    assert bench.tick(60) == []
    monkeypatch.undo()
    assert bench.tick(120) == [(1, False, 2)]
    assert len(bench.small.rows(Revision)) == 1


def test_one_study_that_cannot_be_settled_holds_no_other_back(
    bench: Bench, images: list[Path], tmp_path: Path, monkeypatch: MonkeyPatch
) -> None:
    (other,) = make_series(tmp_path / "other", np.ones((1, 8, 8)), patient_id="P2")
    bench.arrive(images[0], 0)
    bench.arrive(other, 1)
    real = settle_module.settle

    def fail_first(session: object, study_pk: int, **keywords: object) -> object:
        if study_pk == 1:
            raise Refused("no", "no")
        return real(session, study_pk, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(settle_module, "settle", fail_first)
    assert bench.tick(61) == [(1, False, 2)]
    monkeypatch.undo()
    assert bench.tick(62) == [(1, False, 2)]


def test_settling_and_its_jobs_are_one_transaction(
    bench: Bench, images: list[Path], monkeypatch: MonkeyPatch
) -> None:
    bench.arrive(images[0], 0)

    def fail(*args: object, **keywords: object) -> None:
        raise Unavailable("no")

    monkeypatch.setattr(settle_module, "enqueue", fail)
    assert bench.tick(60) == []
    monkeypatch.undo()
    assert bench.small.rows(Revision) == []
    assert bench.tick(61) == [(1, False, 2)]


def test_the_loop_ticks_until_it_is_told_to_stop(small: SmallNode, images: list[Path]) -> None:
    bench = Bench(small, Clock())
    bench.arrive(images[0], 0)
    settler = Settler(small.database, ANALYSES, quiet_seconds=0)
    loop = Loop("settler", lambda now: bool(settler.tick(now)), bench.clock, 0.02)
    loop.start()
    deadline = time.monotonic() + 60
    while not small.rows(Job) and time.monotonic() < deadline:
        time.sleep(0.02)

    assert loop.stop(60)
    assert len(small.rows(Job)) == 2


def test_through_the_port_a_study_waits_for_its_association_to_end(
    small: SmallNode, images: list[Path]
) -> None:
    listener = Listener(small.database, small.objects, host="127.0.0.1", port=0, accept_any=True)
    listener.start()
    settler = Settler(small.database, ANALYSES, quiet_seconds=0, hard_cap_seconds=600)
    within: list[int] = []
    try:
        send_files(
            images,
            ae_title="NADIR",
            host="127.0.0.1",
            port=listener.port,
            on_progress=lambda sent: within.append(len(settler.tick(small.database.now()))),
        )
    finally:
        listener.stop()

    assert within == [0] * 5
    assert [(one.revision, one.jobs) for one in settler.tick(small.database.now())] == [(1, 2)]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.sampled_from(["arrive", "tick"]), st.integers(0, 4)), max_size=12))
def test_every_image_is_in_the_last_manifest_once_it_is_quiet(
    tmp_path_factory: pytest.TempPathFactory, images: list[Path], steps: list[tuple[str, int]]
) -> None:
    small = SmallNode.make(tmp_path_factory.mktemp("node"))
    bench, now, came = Bench(small, Clock()), 0.0, set()
    for what, number in steps:
        now += 45
        if what == "arrive":
            bench.arrive(images[number], now)
            came.add(number)
        else:
            bench.tick(now)
    bench.tick(now + 60)
    revisions = small.rows(Revision)
    with small.database.reading() as session:
        held = manifest_files(session, revisions[-1].id or 0) if revisions else []
    small.database.dispose()
    assert len(held) == len(came)
    assert [revision.number for revision in revisions] == list(range(1, len(revisions) + 1))


def test_an_analysis_that_needs_a_report_waits_for_one(
    bench: Bench, small: SmallNode, images: list[Path], tmp_path: Path
) -> None:
    needs = {ANALYSES[0].plugin: {"SR", "PR"}}
    bench.settler = Settler(small.database, ANALYSES, quiet_seconds=60, needs=needs)
    bench.arrive(images[0], 0)
    assert bench.tick(60) == [(1, False, 1)]
    bench.arrive(report(tmp_path / "sr.dcm", images[0], []), 100)
    assert bench.tick(160) == [(2, False, 2)]
