"""A node under everything that can happen to it, in any order: after every step the six invariants hold.

The steps are the node's own functions on real rows and files; a crash drops whatever was under way at a named point,
and leaves what a killed process leaves.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from empty_database import empty_database
from figures import write_figure
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlmodel import select
from whole_node import START, WholeNode, image

from node.fsck import repair
from node.sender import Answer, Parcel
from plugins.errors import Unavailable
from store import instances, jobs, outbox
from store.database import Database
from store.fsck.check import check
from store.objects import ObjectStore
from store.tables import Delivery, Instance, Job, Result, Revision, Study

UNTIDY = {"disk", "ledger"}  # what a crash leaves, and what waits for a worker
DEAD_PROCESS = 2**22 + 1
STEPS: Counter[str] = Counter()
STUDY, NUMBER, CONTENT = st.integers(1, 3), st.integers(1, 3), st.integers(0, 2)
SHARED_MEMORY = Path("/dev/shm")


class Crash(BaseException):
    """The process is gone."""


class Node(RuleBasedStateMachine):
    """One node with two workers, one destination, three studies of three images, each with three contents."""

    template: Path

    @initialize()
    def begin(self) -> None:
        """Start with a study that has settled."""
        where = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
        self.folder = Path(tempfile.mkdtemp(prefix="nadir-invariants-", dir=where))
        shutil.copyfile(self.template, self.folder / "nadir.sqlite")
        self.now = START
        self.open()
        self.acknowledged: set[tuple[str, str]] = set()
        self.held: list[Job] = []
        self.associations: list[int] = []
        self.pacs: dict[str, str] = {}
        self.arrive(1, [1, 2, 3], 0, False)
        self.tick(61)

    def open(self) -> None:
        """Open what a process opens when it starts."""
        database = Database(f"sqlite:///{self.folder / 'nadir.sqlite'}")
        self.node = WholeNode(database=database, objects=ObjectStore(self.folder / "store"))

    @rule(
        study=STUDY, numbers=st.lists(NUMBER, min_size=1, max_size=3), content=CONTENT, linked=st.booleans()
    )
    def arrive(self, study: int, numbers: list[int], content: int, linked: bool) -> None:
        """Images: new, the same again, other content, or late."""
        link = self.associations[-1] if linked and self.associations else None
        for number in numbers:
            recorded = self.node.take(image(study, number, content), self.now, link)
            with self.node.database.reading() as session:
                row = session.get_one(Instance, recorded.instance_pk)
                self.acknowledged.add((row.sop_instance_uid, row.sha256))
            STEPS[recorded.outcome] += 1

    @rule(study=STUDY, number=NUMBER, content=CONTENT, kept=st.booleans())
    def crash_while_receiving(self, study: int, number: int, content: int, kept: bool) -> None:
        """The listener is killed with half an image, or between the object and its row."""
        STEPS["crash"] += 1
        data = image(study, number, content)
        temporary = self.folder / "store" / "incoming" / f"{DEAD_PROCESS}-{uuid.uuid4().hex}.part"
        temporary.write_bytes(data if kept else data[: len(data) // 2])
        if kept:
            self.node.objects.keep(temporary)
        self.restart()

    @rule(what=st.sampled_from(["comes", "leaves", "falls silent", "aborts"]))
    def sender(self, what: str) -> None:
        """A sender opens an association, closes it, or never speaks again; or goes away without an image."""
        with self.node.database.transaction() as session:
            if what in ("comes", "aborts"):
                self.associations.append(instances.open_association(session, "CT1", "127.0.0.1", self.now))
            if what != "comes" and self.associations:
                gone = self.associations.pop()
                if what != "falls silent":
                    instances.close_association(session, gone, self.now)

    @rule(seconds=st.sampled_from([61, 1, 200, 30, 6000]))
    def tick(self, seconds: int) -> None:
        """Time passes, and studies settle."""
        self.now += timedelta(seconds=seconds)
        STEPS["settled"] += self.node.settle(self.now)

    def waits(self, table: type[Job] | type[Delivery], *states: str) -> bool:
        """Return True when a row of the ledger is in one of the states."""
        with self.node.database.reading() as session:
            return session.exec(select(table.id).where(table.state.in_(states))).first() is not None  # type: ignore[attr-defined]

    @precondition(lambda self: self.waits(Job, jobs.QUEUED))
    @rule()
    def analyse(self) -> None:
        """A worker that nothing disturbs does its work."""
        job = self.node.claim(self.now)
        if job is not None:
            STEPS["finished"] += 1
            self.finish(job, killed=False)

    @precondition(lambda self: self.waits(Job, jobs.QUEUED, jobs.RUNNING))
    @rule(owner=st.sampled_from(["worker 0", "worker 1"]))
    def claim(self, owner: str) -> None:
        """A worker takes a job."""
        job = self.node.claim(self.now, owner)
        if job is not None:
            STEPS["claimed"] += 1
            self.held.append(job)

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 9), how=st.sampled_from(["", "", "", "fails", "dies", "killed"]))
    def work(self, which: int, how: str) -> None:
        """A worker, perhaps one whose lease ran out, writes its results; or fails at some point of it."""
        job = self.held.pop(which % len(self.held))
        try:
            if how in ("fails", "dies"):
                with self.node.database.transaction() as session:
                    pk, permanent = int(job.id or 0), how == "dies"
                    jobs.fail(session, pk, job.attempt, "x", "x", self.now, permanent=permanent)
            else:
                self.finish(job, killed=how == "killed")
        except jobs.Fenced:
            STEPS["fenced"] += 1
        except Crash:
            STEPS["crash"] += 1
        else:
            STEPS["failed" if how else "finished"] += 1

    def finish(self, job: Job, *, killed: bool) -> None:
        """Do what a worker does at the end; a killed one gets to the last statement before the commit."""
        found, kept = self.node.write(job)
        with pytest.MonkeyPatch.context() as patch:
            if killed:
                last = jobs.finish

                def finish(*arguments: Any) -> str:
                    last(*arguments)
                    raise Crash

                patch.setattr(jobs, "finish", finish)
            self.node.finish(job, found, kept, self.now)

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 9), written=st.booleans())
    def crash_while_working(self, which: int, written: bool) -> None:
        """A worker is killed, before or after its results are on disk; its lease has to run out."""
        STEPS["crash"] += 1
        job = self.held.pop(which % len(self.held))
        if written:
            self.node.write(job)

    @precondition(lambda self: self.waits(Delivery, outbox.PENDING, outbox.SENDING))
    @rule(
        answer=st.sampled_from([0x0000, 0x0000, None, 0xA700, 0xC000]),
        lost=st.sampled_from(["", "", "", "unavailable", "killed"]),
    )
    def send(self, answer: int | None, lost: str) -> None:
        """The PACS takes a result or does not; or it has it, and nobody here learns of it."""

        def transport(parcel: Parcel) -> Answer:
            if lost or answer in (0x0000, None):
                self.store(parcel)
            STEPS["lost"] += bool(lost) or answer is None
            if lost == "killed":
                raise Crash
            if lost:
                raise Unavailable("the connection broke")
            return Answer(status=answer)

        try:
            STEPS["sent"] += self.node.send(self.now, transport)
        except Crash:
            STEPS["crash"] += 1
            self.restart()

    @precondition(lambda self: self.waits(Job, jobs.DEAD) or self.waits(Delivery, outbox.PARKED))
    @rule()
    def retry(self) -> None:
        """A person puts back what was parked or dead."""
        with self.node.database.transaction() as session:
            outbox.retry_parked(session, self.now)
            for job in jobs.list_jobs(session, jobs.DEAD):
                jobs.retry(session, int(job.id or 0), self.now)

    @precondition(lambda self: self.held)
    @rule()
    def restart(self) -> None:
        """The node starts again."""
        STEPS["restart"] += 1
        self.node.database.dispose()
        self.open()
        self.node.objects.sweep()

    def store(self, parcel: Parcel) -> None:
        """Keep what was sent, as a PACS does: other bytes under a known UID would be a second result."""
        sha256 = hashlib.sha256(parcel.path.read_bytes()).hexdigest()
        assert self.pacs.setdefault(parcel.sop_instance_uid, sha256) == sha256

    @invariant()
    def invariants_hold(self) -> None:
        """Ask `nadir fsck`, and compare with what was acknowledged and what the PACS holds."""
        if not hasattr(self, "node"):
            return
        STEPS["steps"] += 1
        faults = check(self.node.database, self.node.objects, now=self.now)
        assert [fault for fault in faults if fault.invariant not in UNTIDY] == []
        with self.node.database.reading() as session:
            kept = session.exec(select(Instance.sop_instance_uid, Instance.sha256)).all()
            assert self.acknowledged <= set(kept)
            delivered = session.exec(
                select(Result.sop_instance_uid, Result.sha256)
                .join(Delivery, Delivery.result_pk == Result.id)  # type: ignore[arg-type]
                .where(Delivery.state == "delivered")
            ).all()
        assert all(self.pacs[uid] == sha256 for uid, sha256 in delivered)

    def teardown(self) -> None:
        """In the end, when nothing disturbs it any more, the node has done what there was to do."""
        if not hasattr(self, "node"):
            return
        try:
            self.restart()
            self.associations.clear()
            for _ in range(40):
                self.now += timedelta(hours=2)
                self.retry()
                done = self.node.settle(self.now) + self.node.analyse(self.now)
                while self.node.send(self.now, self._take):
                    done += 1
                if not done and not self.waits(Job, jobs.QUEUED, jobs.RUNNING, jobs.DELIVERING, jobs.DEAD):
                    break
            self.everything_is_done()
            repair(
                self.node.database,
                self.node.objects,
                check(self.node.database, self.node.objects, now=self.now),
            )
        finally:
            self.node.database.dispose()
            shutil.rmtree(self.folder)

    def _take(self, parcel: Parcel) -> Answer:
        self.store(parcel)
        return Answer(status=0x0000)

    def everything_is_done(self) -> None:
        """Every study with content has the result of its latest revision in the PACS."""
        with self.node.database.reading() as session:
            assert {job.state for job in jobs.list_jobs(session)} <= {jobs.DONE, jobs.SUPERSEDED}
            for study in session.exec(select(Study)):
                uid = session.exec(
                    select(Result.sop_instance_uid)
                    .join(Job, Job.id == Result.job_pk)  # type: ignore[arg-type]
                    .join(Revision, Revision.id == Job.revision_pk)  # type: ignore[arg-type]
                    .where(Revision.study_pk == study.id, Revision.number == study.revision)
                ).one()
                assert uid in self.pacs
        STEPS["studies"] += len(self.pacs)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[type[Node]]:
    """Return the machine, with a migrated database to start from."""
    database = empty_database(tmp_path)
    database.dispose()
    STEPS.clear()
    yield type("TheNode", (Node,), {"template": tmp_path / "nadir.sqlite"})


def run(machine: type[Node], *, examples: int, steps: int, tier: str) -> None:
    """Run the machine with a fixed seed and write what it did."""
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=chosen)
    done = {name: STEPS[name] for name in ("steps", "new", "identical", "conflict", "settled", "finished")}
    more = {name: STEPS[name] for name in ("fenced", "crash", "sent", "lost", "restart")}
    write_figure("state machine: the six invariants", tier=tier, examples=examples, **done, **more, broken=0)


@pytest.mark.fault
def test_the_six_invariants_hold_after_every_step_whatever_happens_in_whatever_order(
    machine: type[Node],
) -> None:
    run(machine, examples=10, steps=30, tier="quick")


@pytest.mark.fault
@pytest.mark.long
@pytest.mark.timeout(3000)
def test_the_six_invariants_hold_in_five_hundred_runs_of_fifty_steps(machine: type[Node]) -> None:
    run(machine, examples=500, steps=50, tier="long")
