"""A patient's earlier studies: asked for when a study settles, found, and fetched; a durable list in SQL.

Nothing here delays a study: what is to be fetched is written in the transaction that settles it, and worked off later,
one archive beside the other.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path

from sqlmodel import Session, and_, col, exists, select, update

from node.desk import Peer
from node.fault import place
from node.intake import Intake
from node.logs import line
from node.pacs import HeldInstance, HeldSeries, PatientStudy
from node.past import IMAGES, UNTOLD, Present, Wanted
from node.prior_sources import PriorSource
from node.pull import UNAVAILABLE, held_uids
from node.query_retrieve import Unfinished
from node.receipts import Receipts
from plugins.errors import Refused, Unavailable
from store import studies
from store.database import Database, insert_new
from store.due import has_come
from store.patients import same_person
from store.prior_tables import Prior, PriorSearch
from store.retrack import retrack
from store.tables import Event, Instance, Patient, Series, Study

log = logging.getLogger(__name__)

WAITING, DONE, PARKED = "waiting", "done", "parked"
FIRST_DELAY_SECONDS = 10.0
LAST_DELAY_SECONDS = 900.0
REFUSALS_BEFORE_PARKED = 3
GIVE_UP = timedelta(days=7)
LEASE = timedelta(seconds=30)
BEAT_SECONDS = 10.0
MAX_ROWS = 5000
MOST_LOOKED_AT = 100
ANOTHER_PATIENT, FAULT = "prior-of-another-patient", "fault"


def request(session: Session, study_pk: int, sources: Sequence[str], *, now: datetime) -> int:
    """Write down that the patient's past is to be asked for; return at how many sources.

    At none for a patient without PatientID, whose past nobody can name, for a study without a date, and for one that
    was itself fetched as an earlier one: else the whole past would come. A study that settles again asks again.
    """
    study = session.get_one(Study, study_pk)
    patient = session.get_one(Patient, study.patient_pk)
    fetched = exists().where(col(Prior.study_instance_uid) == study.study_instance_uid)
    if not patient.patient_id or study.study_date is None or session.exec(select(fetched)).one():
        return 0
    again = {"state": WAITING, "attempt": 0, "run_after": now, "requested_at": now, "done_at": None}
    for source in sources:
        row = {"study_pk": study_pk, "source": source, "run_after": now, "requested_at": now}
        if insert_new(session, PriorSearch, row) is None:
            known = and_(col(PriorSearch.study_pk) == study_pk, col(PriorSearch.source) == source)
            session.exec(update(PriorSearch).where(known).values(**again))
    return len(sources)


class PriorFetcher:
    """Works off what is to be asked of one source, one search or one study at a time.

    Parameters
    ----------
    database, intake
        Where things are kept, and the door they go through.
    source
        The archive.
    wanted
        How much of the past is fetched.
    receipts
        Tell the audit trail what was asked and what came.
    analysed
        Whether earlier studies that hold no result of ours are analysed, so that a follow-up has its baseline.
    max_attempts
        Attempts of each job that tracks a later study again.

    """

    def __init__(
        self,
        database: Database,
        intake: Intake,
        source: PriorSource,
        *,
        wanted: Wanted | None = None,
        receipts: Receipts | None = None,
        analysed: bool = False,
        max_attempts: int = 5,
    ) -> None:
        self._analysed = analysed
        self._max_attempts = max_attempts
        self._receipts = receipts or Receipts()
        self._peer = Peer("", source.name, 0)
        self._database = database
        self._intake = intake
        self._source = source
        self._wanted = wanted or Wanted()
        self._stopping = threading.Event()
        self._beaten_at = -math.inf

    def interrupt(self) -> None:
        """Fetch no further object; what is under way is taken up again after the next start."""
        self._stopping.set()

    def tick(self, now: datetime) -> bool:
        """Do one search, or fetch one study; returns whether there was one."""
        with self._database.reading() as session:
            row = _first_search(session, self._source.name, now) or _first_prior(
                session, self._source.name, now
            )
        if row is None:
            return False
        if not self._lease(row, now):
            return True  # another process has it
        began = time.monotonic()
        try:
            if isinstance(row, PriorSearch):
                self._search(row, now)
            else:
                try:
                    self._fetch(row)
                finally:
                    self._tell()
                if self._analysed:
                    self._take_up(row)
                if self._set(row, state=DONE, attempt=0, error_code=None, error_text=None):
                    self._track_again(row)
        except Refused as error:
            self._failed(row, error.code, error.sentence, now + timedelta(seconds=time.monotonic() - began))
        except Unavailable as error:
            self._failed(row, UNAVAILABLE, str(error), now + timedelta(seconds=time.monotonic() - began))
        except Exception as error:  # a border: one study that nobody foresaw must not hold the others
            log.exception(line("prior-broken", source=self._source.name))
            text = f"a fault of our own: {place(error)}"
            self._failed(row, FAULT, text, now + timedelta(seconds=time.monotonic() - began))
        return True

    def _take_up(self, row: Prior) -> None:
        """Have a study analysed that was fetched, unless it came with results of ours."""
        uid = row.study_instance_uid
        own = exists().where(
            col(Study.study_instance_uid) == uid,
            col(Series.study_pk) == col(Study.id),
            col(Instance.series_pk) == col(Series.id),
            col(Instance.own),
        )
        with self._database.transaction() as session:
            if not session.exec(select(own)).one() and studies.adopt(session, uid, self._database.now()):
                studies.hint_complete(session, uid)

    def _track_again(self, row: Prior) -> None:
        """Have later studies tracked again that were analysed before this one came with results of another node."""
        with self._database.transaction() as session:
            search = session.get_one(PriorSearch, row.search_pk)
            patient_pk = session.get_one(Study, search.study_pk).patient_pk
            retrack(session, patient_pk, self._database.now(), self._max_attempts)

    def _tell(self) -> None:
        """Tell the audit trail what came of a study."""
        with self._database.reading() as session:
            self._receipts.tell(session, self._peer)

    def _search(self, row: PriorSearch, now: datetime) -> None:
        """Find the patient's earlier studies and write down which are to be fetched."""
        present = self._present(row.study_pk)
        wanted = self._wanted.of(present.modalities) if present else frozenset()
        uids = self._find(row, present, wanted) if present and wanted else []
        with self._database.transaction() as session:
            for uid in uids:
                found = {
                    "search_pk": row.id,
                    "study_instance_uid": uid,
                    "run_after": now,
                    "requested_at": now,
                }
                if insert_new(session, Prior, found) is None:
                    again = and_(col(Prior.search_pk) == row.id, col(Prior.study_instance_uid) == uid)
                    values = {"state": WAITING, "attempt": 0, "run_after": now, "requested_at": now}
                    session.exec(update(Prior).where(again, col(Prior.state) == PARKED).values(**values))
        self._set(row, state=DONE, attempt=0, error_code=None, error_text=None)
        log.info(line("priors-found", source=self._source.name, study=row.study_pk, studies=len(uids)))

    def _present(self, study_pk: int) -> Present | None:
        with self._database.reading() as session:
            study = session.get_one(Study, study_pk)
            members = [session.get_one(Patient, pk) for pk in same_person(session, study.patient_pk)]
            modalities = frozenset(session.exec(select(Series.modality).where(Series.study_pk == study_pk)))
        own_first = sorted(members, key=lambda one: one.id != study.patient_pk)
        if not own_first[0].patient_id or study.study_date is None:
            return None  # what came since it settled belongs to nobody known
        return Present(
            study_instance_uid=study.study_instance_uid,
            study_date=study.study_date,
            identities=tuple((one.issuer, one.patient_id) for one in own_first if one.patient_id),
            modalities=modalities,
        )

    def _find(self, row: PriorSearch, present: Present, wanted: frozenset[str]) -> list[str]:
        """Return the newest earlier studies that can be compared. Refuses `query-too-wide`."""
        since = self._wanted.since(present.study_date)
        earlier: dict[str, PatientStudy] = {}
        foreign: set[str] = set()
        ownerless: set[str] = set()
        for study in self._answers(present, since):
            if not present.owns(study):
                (foreign if study.patient_id else ownerless).add(study.study_instance_uid)
            elif present.follows(study) and study.study_date >= f"{since:%Y%m%d}":
                earlier[study.study_instance_uid] = study
        self._tell_passed_over(row, "priors-foreign", foreign, "of other patients")
        self._tell_passed_over(row, "priors-ownerless", ownerless, "that do not say whose they are")
        newest = sorted(earlier.values(), key=lambda s: (s.study_date, s.study_instance_uid), reverse=True)
        chosen: list[str] = []
        for study in newest[:MOST_LOOKED_AT]:
            if len(chosen) == self._wanted.studies:
                break
            uid = study.study_instance_uid
            held = study.modalities or {s.modality for s in self._source.study_series(uid)}
            if held & wanted & (IMAGES | UNTOLD):
                chosen.append(uid)
        return chosen

    def _tell_passed_over(self, row: PriorSearch, kind: str, uids: set[str], whose: str) -> None:
        if uids:
            text = f"{self._source.name} answered with {len(uids)} studies {whose}; they were passed over"
            self._intake.tell(kind, str(row.study_pk), text)

    def _answers(self, present: Present, since: date) -> Iterator[PatientStudy]:
        """Yield what the archive tells of each known PatientID, asked once. Refuses `query-too-wide`."""
        for known, issuer in {known: issuer for issuer, known in reversed(present.identities)}.items():
            self._receipts.queried(self._source.name, issuer, known)
            answer = self._source.patient_studies(known, since, present.study_date)
            for seen, study in enumerate(answer):
                if seen == MAX_ROWS:
                    text = f"{self._source.name} answers with more than {MAX_ROWS} studies"
                    raise Refused("query-too-wide", text)
                yield study

    def _fetch(self, row: Prior) -> None:
        """Fetch what is not held of an earlier study, also of one that somebody sent in part.

        Refuses what is not the patient's, and `incomplete-prior`.
        """
        uid = row.study_instance_uid
        with self._database.reading() as session:
            search = session.get_one(PriorSearch, row.search_pk)
        present = self._present(search.study_pk)
        if present is None:
            return
        wanted = self._wanted.of(present.modalities)
        listed = self._source.study_series(uid)
        if not listed:
            raise Refused("prior-unknown", f"{self._source.name} no longer holds the study that it told of")
        refused: list[Refused] = []
        for series in listed:
            if series.modality in wanted:
                try:
                    self._fetch_series(row, series)
                except Refused as error:  # one series that cannot be had keeps no other from coming
                    refused.append(error)
        if refused:
            raise _gravest(refused)

    def _fetch_series(self, row: Prior, series: HeldSeries) -> None:
        uid = row.study_instance_uid
        listed = self._source.series_instances(uid, series.series_instance_uid)
        if not listed:
            text = f"{self._source.name} lists no instance of a series that it told of"
            raise Refused("incomplete-prior", text)
        refused: list[Refused] = []

        def missing() -> frozenset[str]:
            self._beat(row)
            with self._database.reading() as session:
                return frozenset(one.sop_instance_uid for one in listed) - held_uids(session, uid)

        def keep(path: Path) -> None:
            if self._stopping.is_set():
                path.unlink(missing_ok=True)
                raise Unavailable("the node is stopping")
            self._beat(row)
            try:
                recorded = self._intake.take(path, source=self._source.name, coming="fetched")
            except Refused as error:
                self._receipts.refused(self._peer, error.code)
                refused.append(error)
                raise
            self._receipts.stored(self._peer, recorded.study_pk)

        if not (lacking := missing()):
            return
        wanted: list[HeldInstance] = [one for one in listed if one.sop_instance_uid in lacking]
        whole = len(wanted) == len(listed)
        try:
            self._source.fetch(uid, series, wanted, whole=whole, keep=keep, missing=missing)
        except (Refused, Unfinished) as error:  # a peer may end so because we refused what it sent
            if refused and _gravest(refused).code == ANOTHER_PATIENT:
                raise _gravest(refused) from error
            raise
        left = missing()
        if left:
            text = f"{self._source.name} gave {len(lacking - left)} of the {len(lacking)} instances that it lists"
            raise _gravest(refused) if refused else Refused("incomplete-prior", text)

    def _lease(self, row: PriorSearch | Prior, now: datetime) -> bool:
        """Move a row to the end of the list, so that what kills this process does not stop the others."""
        return self._set(row, run_after=now + LEASE)

    def _beat(self, row: Prior) -> None:
        if time.monotonic() - self._beaten_at > BEAT_SECONDS:
            self._beaten_at = time.monotonic()
            self._lease(row, self._database.now())

    def _set(self, row: PriorSearch | Prior, event: Event | None = None, **values: object) -> bool:
        """Change a row unless it was asked for again, or taken by another process, meanwhile; return whether it was."""
        table = type(row)
        if values.get("state") == DONE:
            values["done_at"] = self._database.now()
        mine = and_(
            col(table.id) == row.id, col(table.state) == WAITING, col(table.run_after) == row.run_after
        )
        with self._database.transaction() as session:
            changed = session.exec(update(table).where(mine).values(**values)).rowcount == 1
            if changed and event is not None:
                session.add(event)
        for name, value in values.items() if changed else ():
            setattr(row, name, value)
        return changed

    def _failed(self, row: PriorSearch | Prior, code: str, text: str, now: datetime) -> None:
        # Only failures of one kind in a row count: an outage must not use up the tries of a refusal.
        is_same_kind = (row.error_code == UNAVAILABLE) == (code == UNAVAILABLE)
        attempt = row.attempt + 1 if is_same_kind else 1
        is_refused = code != UNAVAILABLE and (attempt >= REFUSALS_BEFORE_PARKED or code == ANOTHER_PATIENT)
        is_parked = is_refused or now - row.requested_at > GIVE_UP
        pause = min(FIRST_DELAY_SECONDS * 2 ** min(attempt - 1, 20), LAST_DELAY_SECONDS)
        state = PARKED if is_parked else WAITING
        log.warning(line("prior-not-here", source=self._source.name, code=code, attempt=attempt, state=state))
        subject = f"{'search' if isinstance(row, PriorSearch) else 'prior'} {row.id}"
        event = Event(at=now, kind="prior-parked", subject=subject, text=f"{code}: {text}"[:500])
        self._set(
            row,
            event if is_parked else None,
            state=state,
            attempt=attempt,
            error_code=code,
            error_text=text[:500],
            run_after=now + timedelta(seconds=pause * random.uniform(0.8, 1.2)),
        )


def _gravest(refused: Sequence[Refused]) -> Refused:
    """Return that an object is another patient's, whatever came before it; else the first refusal."""
    return min(refused, key=lambda one: one.code != ANOTHER_PATIENT)


def _first_search(session: Session, source: str, now: datetime) -> PriorSearch | None:
    due = select(PriorSearch).where(
        col(PriorSearch.source) == source,
        col(PriorSearch.state) == WAITING,
        has_come(PriorSearch.run_after, now),
    )
    return session.exec(due.order_by(col(PriorSearch.run_after)).limit(1)).first()


def _first_prior(session: Session, source: str, now: datetime) -> Prior | None:
    due = (
        select(Prior)
        .join(PriorSearch, col(PriorSearch.id) == col(Prior.search_pk))
        .where(col(PriorSearch.source) == source, col(Prior.state) == WAITING, has_come(Prior.run_after, now))
    )
    return session.exec(due.order_by(col(Prior.run_after), col(Prior.id)).limit(1)).first()


__all__ = ["PriorFetcher", "Wanted", "request"]
