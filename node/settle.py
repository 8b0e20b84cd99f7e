"""Says when a study is whole, and asks for its analysis: quiet for long enough, and nobody still sending."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from sqlmodel import Session

from node import priors
from node.logs import line
from plugins.errors import NadirError
from store import asked, jobs, workitems
from store.database import Database
from store.displaced import displaced
from store.jobs import enqueue, retire
from store.keys import job_key
from store.objects import ObjectStore
from store.order import order_of
from store.part10 import Header
from store.studies import Due, due, headers_ahead, modalities, settle, wait_anew
from store.tables import Job, Revision, Study

log = logging.getLogger(__name__)


class Identity(Protocol):
    """What makes the result of an analysis its own; `node.task` has it from the plugin."""

    @property
    def plugin(self) -> str:
        """Name of the plugin."""

    @property
    def plugin_version(self) -> str:
        """Version of the plugin."""

    @property
    def model_sha256(self) -> str:
        """Hash of the model; empty when there is none."""

    @property
    def config_sha256(self) -> str:
        """Hash of the plugin's settings."""


@dataclass(frozen=True, kw_only=True)
class Settled:
    """One study that settled."""

    study_pk: int
    """The study."""
    revision: int
    """Number of its new revision."""
    forced: bool
    """True when the hard cap settled it."""
    jobs: int
    """Jobs that were enqueued."""


class Settler:
    """Settles studies and enqueues one job an analysis for every new revision.

    Parameters
    ----------
    database
        Where studies and jobs are kept.
    analyses
        The analyses to run on every study.
    quiet_seconds
        A study is whole when nothing new came for this long and no open association touched it.
    hard_cap_seconds
        It settles, flagged as forced, this long after its first new object at the latest.
    stale_seconds
        An association without a sign of life for this long holds nothing back.
    max_attempts
        Attempts of each job before it is dead.
    prior_sources
        Archives that are asked for the patient's earlier studies.
    needs
        Modalities without any of which an analysis has nothing to look at, by its name; others look at every study.
    present
        Tells the analyses as they are now, with the models that count; the given ones when None.
    objects
        Where the objects are that say whose study it is; None leaves it as its first object said.
    left
        Called with the row of a patient whom a study left.
    passed
        Tells seconds by a clock that nobody sets: when the one of `tick` is set, all that is being received waits anew.
        None takes the times of `tick` as they are.

    """

    def __init__(
        self,
        database: Database,
        analyses: Sequence[Identity],
        *,
        quiet_seconds: float = 60.0,
        hard_cap_seconds: float = 5400.0,
        stale_seconds: float = 60.0,
        max_attempts: int = 5,
        prior_sources: Sequence[str] = (),
        needs: Mapping[str, Collection[str]] | None = None,
        present: Callable[[Session], Sequence[Identity]] | None = None,
        objects: ObjectStore | None = None,
        left: Callable[[Session, int, datetime], None] = lambda session, patient_pk, now: None,
        passed: Callable[[], float] | None = None,
    ) -> None:
        self._database = database
        self._present = present or (lambda _: tuple(analyses))
        self._objects, self._left = objects, left
        self._passed = passed
        self._seen: tuple[datetime, float] | None = None
        self._quiet_seconds = quiet_seconds
        self._hard_cap_seconds = hard_cap_seconds
        self._stale_seconds = stale_seconds
        self._max_attempts = max_attempts
        self._prior_sources = tuple(prior_sources)
        self._needs = {name: frozenset(wanted) for name, wanted in (needs or {}).items()}

    def tick(self, now: datetime) -> tuple[Settled, ...]:
        """Return the studies that settled at `now` with something new; each is one transaction with its jobs."""
        if self._passed is not None:
            self._mind_the_clock(now, self._passed())
        with self._database.reading() as session:
            waiting = due(
                session,
                now=now,
                quiet_seconds=self._quiet_seconds,
                hard_cap_seconds=self._hard_cap_seconds,
                stale_seconds=self._stale_seconds,
            )
            unserved = asked.unserved(session)
            present = self._present(session) if waiting or unserved else ()
        settled = []
        for study in waiting:
            try:
                one = self._settle(study, now, present)
            except NadirError as error:  # one study that cannot be settled holds no other back
                log.warning(line("not-settled", study=study.study_pk, error=str(error)))
                continue
            if one is not None:
                log.info(line("settled", study=one.study_pk, revision=one.revision, jobs=one.jobs))
                settled.append(one)
        for request in unserved:
            with self._database.transaction() as session:
                self._serve(session, request, present, now)
        return tuple(settled)

    def _mind_the_clock(self, now: datetime, passed: float) -> None:
        """Have what is being received wait anew when the clock was set: else half a study would be due."""
        seen, before = self._seen or (now, passed)
        step = now - seen - timedelta(seconds=passed - before)
        # A smaller one makes nobody stale who beats.
        if abs(step) > timedelta(seconds=self._stale_seconds / 2):
            with self._database.transaction() as session:
                studies = wait_anew(session, now, step, self._stale_seconds)
            log.warning(line("clock-set", seconds=round(step.total_seconds()), studies=studies))
        self._seen = now, passed

    def _settle(self, study: Due, now: datetime, present: Sequence[Identity]) -> Settled | None:
        ahead: dict[str, Header] = {}
        if self._objects is not None:
            with self._database.reading() as session:
                ahead = headers_ahead(session, study.study_pk, self._objects)
        with self._database.transaction() as session:
            row = session.get_one(Study, study.study_pk)
            patient_pk, order = row.patient_pk, order_of(row)
            revision = settle(
                session,
                study.study_pk,
                now=now,
                forced=study.forced,
                seen=study.last_arrival_at,
                objects=self._objects,
                ahead=ahead,
            )
            if revision is None:
                return None
            if (row.patient_pk, order_of(row)) != (patient_pk, order):
                displaced(session, row, patient_pk, order, now, self._max_attempts)
            if row.patient_pk != patient_pk:
                self._left(session, patient_pk, now)
            priors.request(session, study.study_pk, self._prior_sources, now=now)
            wanted = self._applying(session, revision, present)
            only = workitems.only_asked(session, study.study_pk)
            if only is not None:  # it is here for what workitems ask of it, and for nothing else
                wanted = [analysis for analysis in wanted if analysis.plugin in only]
            retire(session, revision, [analysis.plugin for analysis in wanted])
            made = [self._enqueue(session, revision, analysis, now) for analysis in wanted]
            return Settled(
                study_pk=study.study_pk,
                revision=revision.number,
                forced=revision.forced,
                jobs=sum(job is not None for job in made),
            )

    def _applying(
        self, session: Session, revision: Revision, present: Sequence[Identity]
    ) -> Sequence[Identity]:
        """Return the analyses that have something to look at in a revision."""
        if not self._needs:
            return present
        held = modalities(session, revision)
        return [a for a in present if a.plugin not in self._needs or held & self._needs[a.plugin]]

    def _enqueue(self, session: Session, revision: Revision, analysis: Identity, now: datetime) -> Job | None:
        return enqueue(
            session,
            revision,
            plugin=analysis.plugin,
            plugin_version=analysis.plugin_version,
            model_sha256=analysis.model_sha256,
            config_sha256=analysis.config_sha256,
            now=now,
            max_attempts=self._max_attempts,
        )

    def _serve(
        self, session: Session, request: asked.Unserved, present: Sequence[Identity], now: datetime
    ) -> None:
        """Ask for an analysis that a workitem asks for and that has no job on what the study holds now."""
        revision = session.get_one(Revision, request.revision_pk)
        analysis = next((one for one in present if one.plugin == request.plugin), None)
        if analysis is None or not self._applying(session, revision, [analysis]):
            told = f"Analysis '{request.plugin}' has nothing to look at in this study."
            if analysis is None:
                told = f"Analysis '{request.plugin}' is not installed or not enabled here."
            row = workitems.get(session, request.workitem_pk)
            if row.state == workitems.ANALYSING:
                workitems.move(session, row, workitems.CANCELLING, now, reason="unsuitable", told=told)
        elif request.dead_job_pk is not None:
            jobs.retry(session, request.dead_job_pk, now)
        elif self._enqueue(session, revision, analysis, now) is None:
            key = job_key(
                revision.manifest_sha256,
                analysis.plugin,
                analysis.plugin_version,
                analysis.model_sha256,
                analysis.config_sha256,
            )
            jobs.take_up(session, key, now)
