"""Brings the input of workitems here: what they name, from the archives of the settings and from nowhere else."""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlmodel import col, select

from node.desk import Peer
from node.fault import place
from node.intake import Intake
from node.logs import line
from node.pacs import HeldSeries
from node.prior_sources import PriorSource
from node.pull import BEAT_SECONDS, held_uids
from node.receipts import Receipts
from plugins.errors import Refused, Unavailable
from store import leases, studies, workitems
from store.database import Database
from store.instances import SETTLED, WORKITEM, OpenAssociation, beat, close_association, open_association
from store.patients import is_another
from store.tables import Series, Study
from store.workitems import Workitem

log = logging.getLogger(__name__)

FIRST_DELAY_SECONDS, LAST_DELAY_SECONDS = 10.0, 900.0
MOST_REFUSALS = 3
GIVE_UP = timedelta(days=1)
LEASE_SECONDS = 30.0
UNAVAILABLE, UNKNOWN, ANOTHER_PATIENT = "unavailable", "input-unknown", "workitem-of-another-patient"
FAULT = "fault"


class _Ended(Exception):
    """The workitem was cancelled, or its worklist forgot it, while its input came."""


class InputFetcher:
    """Fetches the input of one workitem after the other.

    Parameters
    ----------
    database, intake
        Where things are kept, and the door they go through.
    sources
        The archives of the settings. Where a workitem says its input lies only decides which is asked first: an address
        that stands in a workitem is never called.
    worklist
        The worklist, as rows name it.
    owner
        Who fetches: one process of a node at a time does.
    receipts
        Tell the audit trail what came.

    """

    def __init__(
        self,
        database: Database,
        intake: Intake,
        sources: Sequence[PriorSource],
        *,
        worklist: str,
        owner: str,
        receipts: Receipts | None = None,
    ) -> None:
        self._database = database
        self._intake = intake
        self._sources = tuple(sources)
        self._worklist = worklist
        self._owner = owner
        self._receipts = receipts or Receipts()
        self._stopping = threading.Event()
        self._beaten_at = -math.inf

    def interrupt(self) -> None:
        """Fetch no further object; what is under way is taken up again after the next start."""
        self._stopping.set()

    def give_back(self) -> None:
        """Let another process fetch at once."""
        with self._database.transaction() as session:
            leases.give_back(session, f"input {self._worklist}", self._owner)

    def tick(self, now: datetime) -> bool:
        """Fetch the input of one workitem; returns whether there was one."""
        with self._database.transaction() as session:
            if not leases.take(session, f"input {self._worklist}", self._owner, now, LEASE_SECONDS):
                return False
            row = next(iter(workitems.due(session, self._worklist, (workitems.FETCHING,), now)), None)
        if row is None:
            return False
        try:
            self._require_patient(row)
            source = self._fetch(row)
            self._require_patient(row)
        except _Ended:
            log.info(line("workitem-input-stopped", workitem=row.id))
        except Refused as error:
            self._failed(row, error.code, error.sentence, now)
        except Unavailable as error:
            self._failed(row, UNAVAILABLE, str(error), now)
        except Exception as error:  # a border: one workitem that nobody foresaw must not hold the others
            log.exception(line("workitem-input-broken", workitem=row.id))
            self._failed(row, FAULT, f"a fault of our own: {place(error)}", now)
        else:
            self._have(row, source, now)
        return True

    def _require_patient(self, row: Workitem) -> None:
        """Refuse `workitem-of-another-patient`: what is here of the study is not of the workitem's patient."""
        content = json.loads(row.content)
        mine = col(Study.study_instance_uid) == row.study_instance_uid
        with self._database.reading() as session:
            study = session.exec(select(Study).where(mine)).first()
            named = content.get("patient_id", ""), content.get("issuer", "")
            if study is not None and is_another(session, study.patient_pk, *named):
                text = "The study is of another patient than the workitem"
                raise Refused(ANOTHER_PATIENT, text)

    def _fetch(self, row: Workitem) -> str:
        """Bring what is lacking; returns the name of the source that gave it, or an empty text when all was here."""
        study, wanted = row.study_instance_uid, _wanted(row)
        with self._database.reading() as session:
            held = held_uids(session, study)
        if wanted and all(uids and uids <= held for uids in wanted.values()):
            return row.source
        failures: list[Refused | Unavailable] = []
        for source in _ordered(self._sources, row):
            try:
                listed = source.study_series(study)
                if not listed:
                    raise Refused(UNKNOWN, f"{source.name} does not hold the study of the workitem")
                self._keep_source(row, source.name)
                self._bring(row, source, listed, wanted)
            except (Refused, Unavailable) as error:
                failures.append(error)
            else:
                return source.name
        unknown = all(isinstance(error, Refused) and error.code == UNKNOWN for error in failures)
        if unknown and self._was_sent(row, wanted, held):
            return row.source
        if not failures:
            raise Refused("no-source", "no archive is set that the input could be fetched from")
        raise next((error for error in failures if isinstance(error, Unavailable)), failures[0])

    def _was_sent(self, row: Workitem, wanted: dict[str, set[str]], held: set[str]) -> bool:
        """Return whether the input was sent here, as whole as it will be. Raises `Unavailable` while it still comes."""
        mine = col(Study.study_instance_uid) == row.study_instance_uid
        in_it = select(Series.series_instance_uid).join(Study, col(Study.id) == col(Series.study_pk))
        with self._database.reading() as session:
            study = session.exec(select(Study).where(mine, ~col(Study.prior))).first()
            there = set(session.exec(in_it.where(mine)))
            was_given = workitems.get(session, int(row.id or 0)).source != ""
            if study and was_given and workitems.only_asked(session, int(study.id or 0)) is not None:
                return False  # all that is here came from an archive, which broke off
        if study is None or not wanted.keys() <= there or not set().union(*wanted.values()) <= held:
            return False
        if study.state != SETTLED:
            self._keep_source(row, "")  # no archive holds it back from settling
            raise Unavailable("the study is here and may not be whole yet")
        return True

    def _bring(
        self, row: Workitem, source: PriorSource, listed: Sequence[HeldSeries], wanted: dict[str, set[str]]
    ) -> None:
        there = {one.series_instance_uid for one in listed}
        if absent := sorted(set(wanted) - there):
            raise Refused(UNKNOWN, f"{source.name} does not hold series {absent[0]} of the workitem")
        with self._association(source) as association:
            for series in listed:
                if not wanted or series.series_instance_uid in wanted:
                    self._series(
                        row, source, series, wanted.get(series.series_instance_uid, set()), association
                    )

    def _series(
        self,
        row: Workitem,
        source: PriorSource,
        series: HeldSeries,
        named: set[str],
        association: OpenAssociation,
    ) -> None:
        study = row.study_instance_uid
        peer = Peer("", source.name, 0)
        listed = source.series_instances(study, series.series_instance_uid)
        if not (asked := named or {one.sop_instance_uid for one in listed}):
            text = f"{source.name} lists no instance of a series that it told of"
            raise Refused("incomplete-input", text)
        refused: list[Refused] = []

        def missing() -> frozenset[str]:
            self._beat(row, association)
            with self._database.reading() as session:
                return frozenset(asked) - held_uids(session, study)

        def keep(path: Path) -> None:
            if self._stopping.is_set():
                path.unlink(missing_ok=True)
                raise Unavailable("the node is stopping")
            self._beat(row, association)
            try:
                recorded = self._intake.take(path, source=source.name, association=association, asked=study)
            except Refused as error:
                self._receipts.refused(peer, error.code)
                refused.append(error)
                raise
            self._receipts.stored(peer, recorded.study_pk)

        if not (lacking := missing()):
            return
        instances = [one for one in listed if one.sop_instance_uid in lacking]
        whole = len(instances) == len(listed)
        source.fetch(study, series, instances, whole=whole, keep=keep, missing=missing)
        if left := missing():
            text = (
                f"{source.name} gave {len(lacking - left)} of the {len(lacking)} instances that are asked for"
            )
            raise refused[0] if refused else Refused("incomplete-input", text)

    @contextmanager
    def _association(self, source: PriorSource) -> Iterator[OpenAssociation]:
        """Give an association that holds the study back from settling while its input comes."""
        with self._database.transaction() as session:
            pk = open_association(session, WORKITEM, source.name, self._database.now())
        try:
            yield OpenAssociation(pk=pk)
        finally:
            with self._database.transaction() as session:
                close_association(session, pk, self._database.now())
                self._receipts.tell(session, Peer("", source.name, 0))

    def _beat(self, row: Workitem, association: OpenAssociation) -> None:
        """Show a sign of life, and look whether the input is still wanted."""
        if time.monotonic() - self._beaten_at < BEAT_SECONDS:
            return
        self._beaten_at, now = time.monotonic(), self._database.now()
        with self._database.transaction() as session:
            if association.pk is not None:
                beat(session, association.pk, now)
            leases.take(session, f"input {self._worklist}", self._owner, now, LEASE_SECONDS)
            if workitems.get(session, int(row.id or 0)).state != workitems.FETCHING:
                raise _Ended

    def _keep_source(self, row: Workitem, name: str) -> None:
        """Write down who gives the input before any of it is here: by that, what comes is known as this workitem's."""
        with self._database.transaction() as session:
            workitems.stay(session, row, source=name)

    def _have(self, row: Workitem, source: str, now: datetime) -> None:
        """Let the study settle with what came, and the analyses begin."""
        with self._database.transaction() as session:
            studies.adopt(session, row.study_instance_uid, now)
            studies.hint_complete(session, row.study_instance_uid)
            workitems.move(session, row, workitems.ANALYSING, now, source=source, told="The input is here.")
        log.info(line("workitem-input", workitem=row.id, source=source or "here"))

    def _failed(self, row: Workitem, code: str, text: str, now: datetime) -> None:
        is_same_kind = (row.error_code == UNAVAILABLE) == (code == UNAVAILABLE)
        attempt = row.attempt + 1 if is_same_kind else 1
        is_late = now - (row.claimed_at or row.created_at) > GIVE_UP
        log.warning(line("workitem-input-lacks", workitem=row.id, code=code, attempt=attempt))
        with self._database.transaction() as session:
            is_final = code == ANOTHER_PATIENT
            if is_late or is_final or (code != UNAVAILABLE and attempt >= MOST_REFUSALS):
                told = f"{text}." if is_final else f"The input could not be fetched: {text}."
                workitems.move(session, row, workitems.CANCELLING, now, reason="input", told=told)
                return
            pause = min(FIRST_DELAY_SECONDS * 2 ** min(attempt - 1, 20), LAST_DELAY_SECONDS)
            again = now + timedelta(seconds=pause)
            workitems.stay(session, row, attempt=attempt, error_code=code, run_after=again)


def _wanted(row: Workitem) -> dict[str, set[str]]:
    """Return the instances of each series of the study that the workitem names; no series when it means all of them."""
    wanted: dict[str, set[str]] = {}
    for one in _inputs(row):
        if not one["series"]:
            return {}
        wanted.setdefault(one["series"], set()).update(one["instances"])
    return wanted


def _ordered(sources: Iterable[PriorSource], row: Workitem) -> list[PriorSource]:
    """Return the archives, those first at which the workitem says its input lies."""
    places = [place for one in _inputs(row) for place in one["places"]]

    def is_named(source: PriorSource) -> bool:
        name = source.name
        if "//" in name:
            return any(place == name or place.startswith(f"{name}/") for place in places)
        return name.partition("@")[0] in places

    return sorted(sources, key=lambda source: not is_named(source))


def _inputs(row: Workitem) -> list[dict[str, Any]]:
    inputs = json.loads(row.content).get("inputs", ())
    return [one for one in inputs if one["study"] == row.study_instance_uid]


__all__ = ["InputFetcher"]
