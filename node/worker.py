"""The worker: claims a job, has it analysed in a child process, and stores its results in one transaction."""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from sqlmodel import Session, col, select

from node.child import run_in_child
from node.pipeline import Analysed, Answer, Task
from node.settings import Settings
from plugins.errors import Broken, NadirError, Refused
from store import findings, jobs, outbox, studies
from store.database import Database
from store.objects import ObjectStore
from store.tables import Job, Result, Revision

log = logging.getLogger(__name__)


class Worker:
    """Works on one job at a time."""

    def __init__(self, database: Database, objects: ObjectStore, settings: Settings, *, owner: str) -> None:
        self._database = database
        self._objects = objects
        self._settings = settings
        self._owner = owner
        self._interrupted = threading.Event()
        self.lease_seconds = 60.0
        self.beat_seconds = 15.0

    def interrupt(self) -> None:
        """Stop the analysis that runs, and give its job back to the queue."""
        self._interrupted.set()

    def tick(self, now: datetime) -> bool:
        """Return True after one job was worked on, False when none is ready."""
        if self._interrupted.is_set():
            return False
        with self._database.transaction() as session:
            job = jobs.claim(session, self._owner, now, self.lease_seconds)
        if job is None:
            return False
        scratch = Path(tempfile.mkdtemp(prefix=f"job-{job.id}-", dir=self._scratch_root()))
        try:
            self._work(job, scratch)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return True

    def _scratch_root(self) -> Path:
        root = self._settings.home / "scratch"
        root.mkdir(parents=True, exist_ok=True)
        return root

    def _work(self, job: Job, scratch: Path) -> None:
        log.info("job %d starts: %s, attempt %d", job.id, job.plugin, job.attempt)
        try:
            analysed = self._analyse(job, scratch)
            self._store(job, analysed)
        except jobs.Fenced:
            log.warning("job %d is no longer ours; its result is thrown away", job.id)
        except NadirError as error:
            self._failed(job, error)
        else:
            log.info("job %d analysed: %d findings", job.id, len(analysed.results.found))

    def _analyse(self, job: Job, scratch: Path) -> Analysed:
        with self._database.reading() as session:
            task = self._task(session, job, scratch)
        plain = run_in_child(
            task.to_json(),
            scratch,
            memory_bytes=self._settings.job_memory_bytes,
            seconds=self._settings.job_seconds,
            keep_going=self._keeper(job),
        )
        (analysed,) = Answer.from_json(plain).analysed
        if analysed.job_key != job.key:
            raise Refused(
                "plugin-changed",
                f"plugin '{job.plugin}' {job.plugin_version} is no longer installed as it was when the study settled; "
                "send the study again to have it analysed by the new one",
            )
        return analysed

    def _task(self, session: Session, job: Job, scratch: Path) -> Task:
        revision = session.get(Revision, job.revision_pk)
        if revision is None:
            raise Broken(f"job {job.id} names a revision that does not exist")
        return Task(
            files=tuple(
                str(self._objects.path(sha256))
                for _, sha256 in studies.manifest_files(session, job.revision_pk)
            ),
            manifest_sha256=revision.manifest_sha256,
            plugins=(job.plugin,),
            plugin_settings={job.plugin: self._settings.plugins.get(job.plugin, {})},
            out=str(scratch),
            started_at=self._database.now().isoformat(),
            predecessors=self._predecessors(session, job, revision),
        )

    def _predecessors(self, session: Session, job: Job, revision: Revision) -> dict[str, str]:
        """Return the file of each kind of SR that this plugin last wrote for an earlier revision of the study."""
        rows = session.exec(
            select(Result)
            .join(Job, col(Result.job_pk) == col(Job.id))
            .join(Revision, col(Job.revision_pk) == col(Revision.id))
            .where(Revision.study_pk == revision.study_pk, Revision.number < revision.number)
            .where(Job.plugin == job.plugin, Result.kind != "seg")
            .order_by(col(Revision.number))
        )
        return {result.kind: str(self._objects.path(result.sha256)) for result in rows}

    def _keeper(self, job: Job) -> Callable[[], bool]:
        """Return what the child's minder asks: False once the job is no longer ours or the node stops."""
        beaten = time.monotonic()

        def keep_going() -> bool:
            nonlocal beaten
            if self._interrupted.is_set():
                return False
            if time.monotonic() - beaten < self.beat_seconds:
                return True
            beaten = time.monotonic()
            with self._database.transaction() as session:
                return jobs.heartbeat(
                    session, _pk(job), job.attempt, self._database.now(), self.lease_seconds
                )

        return keep_going

    def _store(self, job: Job, analysed: Analysed) -> None:
        """Keep the objects, then findings, results, outbox rows and the job's new state in one transaction."""
        written = analysed.results.written
        kept = {w.sop_instance_uid: self._objects.put(Path(w.path).read_bytes()) for w in written}
        with self._database.transaction() as session:
            now = self._database.now()
            results = findings.save(session, job, analysed.results, kept, now)
            if analysed.error_code is not None:
                text = analysed.error_text or ""
                jobs.fail(session, _pk(job), job.attempt, analysed.error_code, text, now, permanent=True)
                return
            for result in results:
                outbox.add(session, result, self._settings.destinations, now)
            jobs.finish(session, _pk(job), job.attempt, jobs.DELIVERING, now)

    def _failed(self, job: Job, error: NadirError) -> None:
        if isinstance(error, Refused):
            code, text = error.code, error.sentence
        else:
            code, text = type(error).__name__.lower(), str(error)
        permanent = isinstance(error, Broken) or code == "plugin-changed"
        log.warning("job %d failed: %s", job.id, code)
        try:
            with self._database.transaction() as session:
                now = self._database.now()
                if self._interrupted.is_set():
                    jobs.release(session, _pk(job), job.attempt, now)
                else:
                    jobs.fail(session, _pk(job), job.attempt, code, text, now, permanent=permanent)
        except jobs.Fenced:
            log.warning("job %d is no longer ours", job.id)


def _pk(job: Job) -> int:
    assert job.id is not None
    return job.id
