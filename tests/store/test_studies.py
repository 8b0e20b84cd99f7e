from __future__ import annotations

import shutil
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from ledger import arrive, at, header, kept, queued, settled
from sqlmodel import Session, select

from store import instances, jobs, studies
from store.database import Database
from store.tables import Job, Pull, Revision, Study


def due(session: Session, seconds: float, quiet: float = 60, cap: float = 5400) -> list[tuple[int, bool]]:
    found = studies.due(session, now=at(seconds), quiet_seconds=quiet, hard_cap_seconds=cap, stale_seconds=60)
    return [(one.study_pk, one.forced) for one in found]


def test_a_study_is_due_when_it_was_quiet_for_long_enough(database: Database) -> None:
    with database.transaction() as session:
        study_pk = arrive(session, 1).study_pk
        assert due(session, 59.9) == []
        assert due(session, 60) == [(study_pk, False)]
        arrive(session, 2, seconds=50)
        assert due(session, 60) == []
        assert due(session, 110) == [(study_pk, False)]


def test_an_open_association_that_touched_the_study_holds_it_back_until_it_closes_or_falls_silent(
    database: Database,
) -> None:
    with database.transaction() as session:
        pk = instances.open_association(session, "CT1", "h", at(0))
        other = instances.open_association(session, "CT2", "h", at(0))
        recorded = instances.record(session, header(), kept("a"), source="x", now=at(0), association_pk=pk)
        instances.beat(session, pk, at(100))
        instances.beat(session, other, at(100))
        assert due(session, 159) == []
        assert due(session, 160) == [(recorded.study_pk, False)]
        instances.beat(session, pk, at(160))
        assert due(session, 161) == []
        instances.close_association(session, pk, at(161))
        assert due(session, 161) == [(recorded.study_pk, False)]


def test_a_study_of_which_the_pacs_told_is_held_back_until_its_pull_ended_or_the_hard_cap_has_come(
    database: Database,
) -> None:
    with database.transaction() as session:
        study_pk, other = arrive(session, 1).study_pk, arrive(session, 1, "1.2.4").study_pk
        told = Pull(study_instance_uid="1.2.3", run_after=at(0), requested_at=at(0))
        session.add(told)
        studies.hint_complete(session, "1.2.3")
        assert due(session, 5399) == [(other, False)]
        assert due(session, 5400) == [(study_pk, True), (other, False)]
        for state in ("pulled", "parked"):
            told.state = state
            session.flush()
            assert due(session, 60) == [(study_pk, False), (other, False)]


def test_the_hard_cap_settles_a_study_that_never_falls_quiet_and_says_so(database: Database) -> None:
    with database.transaction() as session:
        for number in range(200):
            study_pk = arrive(session, number, seconds=number * 30).study_pk
            if number * 30 < 5400:
                assert due(session, number * 30) == []
        assert due(session, 5990) == [(study_pk, True)]
        revision = studies.settle(session, study_pk, now=at(5990), forced=True)
        assert revision is not None
        assert revision.forced


def test_a_hint_settles_at_once_but_not_while_someone_still_sends(database: Database) -> None:
    with database.transaction() as session:
        pk = instances.open_association(session, "CT1", "h", at(0))
        recorded = instances.record(session, header(), kept("a"), source="x", now=at(0), association_pk=pk)
        assert studies.hint_complete(session, "1.2.3")
        assert due(session, 1) == []
        instances.close_association(session, pk, at(2))
        assert due(session, 2) == [(recorded.study_pk, False)]
        assert not studies.hint_complete(session, "9.9.9")


def test_a_hint_does_not_outlive_the_revision_it_spoke_of(database: Database) -> None:
    with database.transaction() as session:
        study_pk = arrive(session).study_pk
        studies.hint_complete(session, "1.2.3")
        assert studies.settle(session, study_pk, now=at(1), forced=False) is not None
        assert not studies.hint_complete(session, "1.2.3")
        arrive(session, 2, seconds=10)
        assert due(session, 11) == []


def test_the_manifest_is_what_is_current_and_not_ours(database: Database) -> None:
    with database.transaction() as session:
        arrive(session, 2)
        arrive(session, 1)
        instances.record(session, header(1), kept("changed"), source="x", now=at(1))
        own = header(9, series_instance_uid="2.25.1", own=True)
        instances.record(session, own, kept("own"), source="x", now=at(2))
        study_pk = session.exec(select(Study.id)).one()
        revision = studies.settle(session, int(study_pk or 0), now=at(70), forced=False)
        assert revision is not None
        expected = [("1.2.3.1.1", kept("changed").sha256), ("1.2.3.1.2", kept("1.2.3.1.2").sha256)]
        assert studies.manifest_files(session, int(revision.id or 0)) == expected
        assert revision.manifest_sha256 == studies.manifest_hash(list(reversed(expected)))
        assert (revision.number, revision.settled_at, revision.forced) == (1, at(70), False)


def test_the_manifest_hash_is_the_sha256_of_its_sorted_lines() -> None:
    # printf '1.2 aa\n1.3 bb\n' | sha256sum
    expected = "503af9464d8f4950ef29aeec026cdafa59f460f3418d9d9c65472c14308c2e26"
    assert studies.manifest_hash([("1.3", "bb"), ("1.2", "aa")]) == expected


def test_a_late_image_makes_a_second_revision_with_everything(database: Database) -> None:
    with database.transaction() as session:
        first = settled(session, 1)
        second = settled(session, 2, seconds=500)
        assert (first.number, second.number) == (1, 2)
        assert len(studies.manifest_files(session, int(first.id or 0))) == 1
        assert len(studies.manifest_files(session, int(second.id or 0))) == 2


def test_a_study_settles_once_and_without_new_content_not_again(database: Database) -> None:
    with database.transaction() as session:
        revision = settled(session)
        assert studies.settle(session, revision.study_pk, now=at(1), forced=False) is None
        assert studies.settle(session, 999, now=at(1), forced=False) is None
        study = session.exec(select(Study)).one()
        study.state = "receiving"
        assert studies.settle(session, revision.study_pk, now=at(2), forced=False) is None
        assert session.exec(select(Study.state)).one() == "settled"
        assert len(session.exec(select(Revision)).all()) == 1


def test_content_that_was_there_before_makes_a_revision_and_a_job_of_its_own(database: Database) -> None:
    with database.transaction() as session:
        revisions = []
        for number, content in enumerate(["a", "b", "a", "b", "a"]):
            instances.record(session, header(), kept(content), source="x", now=at(number * 100))
            revision = studies.settle(session, 1, now=at(number * 100 + 60), forced=False)
            assert revision is not None
            assert [sha256 for _, sha256 in studies.manifest_files(session, int(revision.id or 0))] == [
                kept(content).sha256
            ]
            assert queued(session, revision) is not None
            revisions.append(revision)
        assert len({revision.manifest_sha256 for revision in revisions}) == 5
        assert revisions[0].manifest_sha256 == studies.manifest_hash([("1.2.3.1.1", kept("a").sha256)])


def test_content_that_went_and_came_back_before_it_settled_is_nothing_new(database: Database) -> None:
    with database.transaction() as session:
        study_pk = settled(session).study_pk
        for second, content in ((100, "other"), (110, "1.2.3.1.1")):
            instances.record(session, header(), kept(content), source="x", now=at(second))
        assert studies.settle(session, study_pk, now=at(200), forced=False) is None
        assert session.exec(select(Study.state)).one() == "settled"


def test_an_image_that_came_after_the_question_postpones_the_answer(database: Database) -> None:
    with database.transaction() as session:
        arrive(session)
        (one,) = studies.due(session, now=at(60), quiet_seconds=60, hard_cap_seconds=5400)
        arrive(session, 2, seconds=61)
        late = studies.settle(session, one.study_pk, now=at(61), forced=False, seen=one.last_arrival_at)
        assert late is None
        assert session.exec(select(Study.state)).one() == "receiving"
        assert due(session, 121) == [(one.study_pk, False)]


def test_an_image_that_comes_while_its_study_settles_is_in_the_manifest_or_opens_it_again(
    database: Database,
) -> None:
    with database.transaction() as session:
        study_pk = arrive(session, 0).study_pk
    failures: list[Exception] = []

    def send() -> None:
        try:
            for number in range(1, 30):
                with database.transaction() as session:
                    arrive(session, number, seconds=number)
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=send)
    thread.start()
    while thread.is_alive():
        with database.transaction() as session:
            studies.settle(session, study_pk, now=at(100), forced=False)
    thread.join()
    assert failures == []
    with database.transaction() as session:
        studies.settle(session, study_pk, now=at(200), forced=False)
        last = session.exec(select(Revision).order_by(Revision.number.desc())).first()  # type: ignore[attr-defined]
        assert last is not None
        assert len(studies.manifest_files(session, int(last.id or 0))) == 30


@pytest.fixture(scope="module")
def template(sqlite_template: Path) -> Path:
    return sqlite_template


class StudyLife(RuleBasedStateMachine):
    """One study under every order of arrivals, resends, changes, ticks, claims and ends."""

    template: Path

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="nadir-life-"))
        shutil.copyfile(self.template, self.folder / "x.sqlite")
        self.database = Database(f"sqlite:///{self.folder / 'x.sqlite'}")
        self.seconds = 0.0
        self.versions: dict[int, list[str]] = {}
        self.claimed: list[Job] = []

    def teardown(self) -> None:
        self.database.dispose()
        shutil.rmtree(self.folder)

    @rule(number=st.integers(1, 3), version=st.integers(0, 2), wait=st.sampled_from([0, 5, 70]))
    def an_image_comes(self, number: int, version: int, wait: int) -> None:
        self.seconds += wait
        known = self.versions.setdefault(number, [])
        content = f"{number}.{version}"
        expected = "new" if not known else "identical" if content == known[-1] else "conflict"
        with self.database.transaction() as session:
            one = instances.record(session, header(number), kept(content), source="x", now=at(self.seconds))
        assert one.outcome == expected
        if expected != "identical":
            known.append(content)

    @rule(wait=st.sampled_from([1, 61, 130]))
    def time_passes(self, wait: int) -> None:
        self.seconds += wait
        with self.database.transaction() as session:
            for one in studies.due(session, now=at(self.seconds), quiet_seconds=60, hard_cap_seconds=300):
                revision = studies.settle(session, one.study_pk, now=at(self.seconds), forced=one.forced)
                if revision is not None:
                    queued(session, revision)

    @rule()
    def a_worker_claims(self) -> None:
        with self.database.transaction() as session:
            job = jobs.claim(session, "w", at(self.seconds), 60)
        if job is not None:
            self.claimed.append(job)

    @precondition(lambda self: self.claimed)
    @rule(data=st.data(), good=st.booleans())
    def a_worker_ends(self, data: st.DataObject, good: bool) -> None:
        job = data.draw(st.sampled_from(self.claimed))
        self.claimed.remove(job)
        try:
            with self.database.transaction() as session:
                if good:
                    jobs.finish(session, int(job.id or 0), job.attempt, jobs.DONE, at(self.seconds))
                else:
                    jobs.fail(session, int(job.id or 0), job.attempt, "x", "x", at(self.seconds))
        except jobs.Fenced:
            pass

    @invariant()
    def every_instance_has_one_current_version_and_the_newest_revision_one_job(self) -> None:
        with self.database.reading() as session:
            study = session.exec(select(Study)).first()
            if study is None:
                return
            revisions = session.exec(select(Revision).order_by(Revision.number)).all()  # type: ignore[arg-type]
            assert [revision.number for revision in revisions] == list(range(1, study.revision + 1))
            newest = {
                number: kept(versions[-1]).sha256 for number, versions in self.versions.items() if versions
            }
            if study.state == "settled":
                files = dict(studies.manifest_files(session, int(revisions[-1].id or 0)))
                assert files == {f"1.2.3.1.{number}": sha256 for number, sha256 in newest.items()}
            found = jobs.list_jobs(session)
            assert len({job.revision_pk for job in found}) == len(found) == len(revisions)
            waiting = [job for job in found if job.state == "queued"]
            assert all(job.revision_pk == revisions[-1].id for job in waiting)


def test_the_life_of_a_study_in_any_order(template: Path) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    StudyLife.template = template
    run_state_machine_as_test(
        StudyLife,
        settings=settings(
            max_examples=20,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
