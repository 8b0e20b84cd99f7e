"""The worker: claims a job, has it analysed in a child process, and stores its results in one transaction."""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path

from sqlmodel import Session, and_, col, or_, select

from models.place import Places
from node.analyses import Analyses
from node.child import run_in_child
from node.deliveries import MORE_KINDS
from node.fault import DiskFault, Shortage, disk_fault, place, shortage
from node.lifeline import end_strays
from node.logs import about, line
from node.patient_pages import keep_page
from node.response_job import PAGE, ResponseTask, response_task
from node.settings import Settings
from node.task import Analysed, Answer, Identity, Task
from plugins.contract import Flag
from plugins.errors import Broken, NadirError, Refused, Unavailable
from store import findings, jobs, outbox, response_jobs, studies, uploads
from store.database import Database
from store.failpoint import reach
from store.objects import Kept, ObjectStore
from store.outstanding import lacking
from store.reissue import reissue
from store.remembered import past_of
from store.retrack import retrack
from store.tables import Job, Result, Revision, Study
from store.told_choices import Sent, sent_to, take_choices

log = logging.getLogger(__name__)

PERMANENT = frozenset({"plugin-changed", "analysis-out-of-memory", "unknown-plugin", "bad-plugin-settings"})
"""Codes of refusals that the next attempt would meet again."""
CHANGED = "its settings or its model are others than when the study settled; a job of the present ones does this work"


class _Overtaken(Exception):
    """What a job was to tell is no longer so, or would be told otherwise now, and another job tells it."""


class Worker:
    """Works on one job at a time.

    Parameters
    ----------
    database, objects, settings
        Of the node.
    identities
        The analyses as they are installed now, with the models of the release: a job of another version, other settings
        or another model than counts now is left to one of the present ones.
    owner
        Name of this worker, for people who look into the ledger.

    """

    def __init__(
        self,
        database: Database,
        objects: ObjectStore,
        settings: Settings,
        identities: Iterable[Identity],
        *,
        owner: str,
    ) -> None:
        self._database = database
        self._objects = objects
        self._settings = settings
        self._analyses = Analyses(settings, identities)
        self._owner = owner
        self._lease_seconds = settings.lease_seconds
        self._interrupted = threading.Event()
        self._scratch = settings.home / "scratch"
        self._sweep()

    def interrupt(self) -> None:
        """Stop the analysis that runs, and give its job back to the queue."""
        self._interrupted.set()

    def tick(self, now: datetime) -> bool:
        """Return True after one job was worked on, False when none is ready."""
        if self._interrupted.is_set():
            return False
        with self._database.transaction() as session:
            wait_seconds = self._settings.priors_wait_seconds
            job = jobs.claim(session, self._owner, now, self._lease_seconds, wait_seconds)
        if job is None:
            return False
        reach("worker-claimed")
        self._work(job)
        return True

    def _sweep(self) -> None:
        """End and delete what jobs of killed nodes left; the folder of a job that another process runs stays."""
        lefts = list(self._scratch.glob("job-*"))  # first: a folder that comes later belongs to a running job
        with self._database.reading() as session:
            running = {str(job.id) for job in jobs.list_jobs(session, jobs.RUNNING)}
        for left in lefts:
            if left.name.split("-")[1] not in running:
                _delete(left)

    def _work(self, job: Job) -> None:
        with self._database.reading() as session:
            study_pk = session.get_one(Revision, job.revision_pk).study_pk
        with about(study=study_pk):
            self._run(job)

    def _run(self, job: Job) -> None:
        named = {"job": job.id, "plugin": job.plugin, "attempt": job.attempt}
        log.info(line("job-starts", **named))
        began = time.monotonic()
        try:
            analysed, kept = self._analyse(job)
            child_seconds = time.monotonic() - began
            reach("worker-analysed")
            state = self._store(job, analysed, kept)
            reach("worker-stored")
        except jobs.Fenced:
            log.warning(line("job-fenced", **named))
        except _Overtaken:
            log.info(line("job-overtaken", **named))
        except Exception as error:  # the border: whatever one job does, the next one has its turn
            self._failed(job, error)
        else:
            seconds = {**analysed.seconds, "child": child_seconds, "all": time.monotonic() - began}
            parts = {name: f"{value:.2f}" for name, value in seconds.items()}
            found = len(analysed.results.found)
            log.info(line("job-analysed", **named, state=state, findings=found, **parts))

    def _analyse(self, job: Job) -> tuple[Analysed, dict[str, Kept]]:
        """Return the answer of the child process, and where the object store has what it wrote."""
        for left in self._scratch.glob(f"job-{job.id}-*"):  # of an attempt whose lease ran out
            _delete(left)
        with self._database.reading() as session:
            revision = session.get_one(Revision, job.revision_pk)
            models = self._analyses.places(session)
        if job.plugin == response_jobs.PLUGIN:
            self._require_newest(job, revision)
        else:
            self._require_present(job, revision, models)
        folder = self._folder(job)
        try:
            with self._database.reading() as session:
                task = self._task(session, job, revision, folder, models)
            plain = run_in_child(
                task.to_json(),
                folder,
                memory_bytes=self._settings.job_memory_bytes,
                seconds=self._settings.job_seconds,
                keep_going=self._keeper(job),
            )
            (analysed,) = Answer.from_json(plain).analysed
            if analysed.job_key != job.key:
                sentence = f"plugin '{job.plugin}' was replaced while the node runs; start the node again"
                raise Unavailable(sentence)
            if job.plugin == response_jobs.PLUGIN:
                with self._database.reading() as session:
                    keep_page(session, self._objects, self._settings, job, folder / PAGE)
            written = analysed.results.written
            return analysed, {
                w.sop_instance_uid: self._objects.put(Path(w.path).read_bytes()) for w in written
            }
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _folder(self, job: Job) -> Path:
        self._scratch.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f"job-{job.id}-", dir=self._scratch))

    def _require_present(self, job: Job, revision: Revision, models: Places) -> None:
        """End a job of another version, other settings or another model, after one of the present was queued.

        Refuses `plugin-changed` when the analysis is not there at all, and what a model is refused for.
        """
        identity = self._analyses.identity(job.plugin, models)
        if identity is None:
            sentence = (
                f"plugin '{job.plugin}' is not installed or not enabled here; do that and retry the job"
            )
            raise Refused("plugin-changed", sentence)
        key = identity.job_key(revision.manifest_sha256, job.run)
        if key == job.key:
            return
        with self._database.transaction() as session:
            now = self._database.now()
            is_new = jobs.enqueue(
                session,
                revision,
                plugin=identity.plugin,
                plugin_version=identity.plugin_version,
                model_sha256=identity.model_sha256,
                config_sha256=identity.config_sha256,
                now=now,
                max_attempts=self._settings.max_attempts,
                run=job.run,
            )
            if not is_new and not jobs.is_superseded(session, _pk(job)):
                jobs.take_up(session, key, now)
            text = f"plugin '{job.plugin}', {CHANGED}"
            jobs.overtake(session, _pk(job), job.attempt, now, "plugin-changed", text)
        raise _Overtaken

    def _require_newest(self, job: Job, revision: Revision) -> None:
        """End a report of what is no longer so, after one of what is so now was put into the queue."""
        with self._database.transaction() as session:
            if response_jobs.is_due(session, job, self._objects, self._settings.response_criteria):
                return
            now = self._database.now()
            self._ask(session, session.get_one(Study, revision.study_pk).patient_pk, now)
            jobs.overtake(session, _pk(job), job.attempt, now)
        raise _Overtaken

    def _ask(self, session: Session, patient_pk: int, now: datetime) -> None:
        response_jobs.ask(
            session,
            patient_pk,
            now,
            objects=self._objects,
            criteria=self._settings.response_criteria,
            max_attempts=self._settings.max_attempts,
        )

    def _task(
        self, session: Session, job: Job, revision: Revision, folder: Path, models: Places
    ) -> Task | ResponseTask:
        started_at = self._database.now().astimezone().isoformat()
        if job.plugin == response_jobs.PLUGIN:
            return response_task(session, self._objects, self._settings, job, folder, started_at)
        files = [self._objects.path(sha256) for _, sha256 in studies.manifest_files(session, job.revision_pk)]
        missing = sum(not file.is_file() for file in files)
        if missing:
            raise Refused(
                "object-missing",
                f"{missing} of {len(files)} files of the study are no longer in the object store; mend it and retry",
            )
        return Task(
            files=tuple(map(str, files)),
            manifest_sha256=revision.manifest_sha256,
            plugins=(job.plugin,),
            plugin_settings={job.plugin: self._settings.plugins.get(job.plugin, {})},
            out=str(folder),
            started_at=started_at,
            predecessors=self._predecessors(session, job, revision),
            past=past_of(session, self._objects, job, self._settings.priors_compared),
            models=models,
            run=job.run,
            doubts=_doubts(session, revision),
            more=tuple(kind for kind in MORE_KINDS if self._settings.destinations_of(kind)),
        )

    def _predecessors(self, session: Session, job: Job, revision: Revision) -> dict[str, str]:
        """Return the file of each kind of SR of the newest earlier job whose results count.

        Those of a job that a newer revision overtook were never sent, so nothing may point to them.
        """
        again = and_(col(Revision.number) == revision.number, col(Job.id) < _pk(job))
        is_earlier = or_(col(Revision.number) < revision.number, again)
        rows = session.exec(
            select(Result)
            .join(Job, col(Result.job_pk) == col(Job.id))
            .join(Revision, col(Job.revision_pk) == col(Revision.id))
            .where(Revision.study_pk == revision.study_pk, is_earlier)
            .where(Job.plugin == job.plugin, col(Result.kind).startswith("sr-"))
            .where(col(Job.state).in_((jobs.DELIVERING, jobs.DONE)))
            .order_by(col(Revision.number).desc(), col(Job.id).desc())
        ).all()
        newest = [result for result in rows if result.job_pk == rows[0].job_pk]
        return {result.kind: str(self._objects.path(result.sha256)) for result in newest}

    def _keeper(self, job: Job) -> Callable[[], bool]:
        """Return what the child's minder asks: False once the job is no longer ours or the node stops.

        A database that does not answer stops nothing before the lease is over.
        """
        asked = held = time.monotonic()

        def keep_going() -> bool:
            nonlocal asked, held
            now = time.monotonic()
            if self._interrupted.is_set() or now - held > self._lease_seconds:
                return False
            if now - asked < self._lease_seconds / 4:
                return True
            asked = now
            try:
                with self._database.transaction() as session:
                    clock, lease_seconds = self._database.now(), self._lease_seconds
                    is_ours = jobs.heartbeat(session, _pk(job), job.attempt, clock, lease_seconds)
            except Unavailable as error:
                log.warning(line("lease-not-kept", job=job.id, error=str(error)))
                return True
            held = now
            return is_ours

        return keep_going

    def _store(self, job: Job, analysed: Analysed, kept: Mapping[str, Kept]) -> str:
        """Save findings, results, outbox rows and the job's new state in one transaction; return that state."""
        sent = self._sent(job)
        with self._database.transaction() as session:
            now = self._database.now()
            results = findings.save(session, job, analysed.results, kept, now)
            if analysed.error_code is not None and not analysed.declined:
                text = analysed.error_text or ""
                return jobs.fail(
                    session, _pk(job), job.attempt, analysed.error_code, text, now, permanent=True
                )
            is_withheld = uploads.is_withheld(session, job.revision_pk)
            for result in () if is_withheld else results:
                outbox.add(session, result, self._settings.destinations_of(result.kind), now)
            state = jobs.finish(session, _pk(job), job.attempt, jobs.DELIVERING, now)
            if job.plugin != response_jobs.PLUGIN:
                study = session.get_one(Study, session.get_one(Revision, job.revision_pk).study_pk)
                take_choices(session, self._objects, sent, int(study.id or 0), now)
                reissue(session, study.patient_pk, now, self._settings.max_attempts)
                retrack(session, study.patient_pk, now, self._settings.max_attempts)
                if self._settings.response_criteria != "off":
                    self._ask(session, study.patient_pk, now)
            reach("worker-before-commit")
            return state

    def _sent(self, job: Job) -> tuple[Sent, ...]:
        """Return what the objects that people sent to the study say of lesions."""
        if job.plugin == response_jobs.PLUGIN:
            return ()
        with self._database.reading() as session:
            return sent_to(session, self._objects, session.get_one(Revision, job.revision_pk).study_pk)

    def _failed(self, job: Job, error: Exception) -> None:
        error = disk_fault(error) or shortage(error) or error
        code, text, is_permanent = _reason(error)
        log.warning(line("job-failed", job=job.id, plugin=job.plugin, attempt=job.attempt, code=code))
        try:
            with self._database.transaction() as session:
                now = self._database.now()
                if self._interrupted.is_set():
                    jobs.release(session, _pk(job), job.attempt, now)
                else:
                    jobs.fail(
                        session,
                        _pk(job),
                        job.attempt,
                        code,
                        text,
                        now,
                        permanent=is_permanent,
                        is_counted=not isinstance(error, DiskFault | Shortage),
                    )
        except jobs.Fenced:
            log.warning(line("job-fenced", job=job.id, plugin=job.plugin, attempt=job.attempt))


def _doubts(session: Session, revision: Revision) -> tuple[Flag, ...]:
    """Return what is doubtful about a revision that its files do not tell."""
    sentence = lacking(session, revision)
    return (Flag(code="not-fetched-whole", sentence=sentence),) if sentence else ()


def _reason(error: Exception) -> tuple[str, str, bool]:
    """Return code, sentence and whether another attempt is useless."""
    if isinstance(error, Refused):
        return error.code, error.sentence, error.code in PERMANENT
    if isinstance(error, NadirError):
        code = "unavailable" if isinstance(error, Unavailable) else type(error).__name__.lower()
        return code, str(error), isinstance(error, Broken)
    return "broken", place(error), False


def _delete(left: Path) -> None:
    end_strays(left)
    try:
        shutil.rmtree(left)
    except OSError as error:
        log.warning(line("scratch-not-deleted", folder=left.name, error=type(error).__name__))


def _pk(job: Job) -> int:
    assert job.id is not None
    return job.id
