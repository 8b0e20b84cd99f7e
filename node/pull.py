"""Pull studies that the PACS told of: a durable list in SQL, and the one who works it off."""

from __future__ import annotations

import logging
import math
import random
import time
from collections import defaultdict
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import Update, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from node.desk import Peer
from node.intake import Intake
from node.logs import line
from node.pacs import DicomWeb, HeldInstance
from node.receipts import Receipts
from node.series_files import series_files
from node.worklist_faults import DENIED
from plugins.errors import Refused, Unavailable
from store import studies
from store.database import Database
from store.due import has_come
from store.instances import PULL, OpenAssociation, beat, close_association, open_association
from store.objects import ObjectStore
from store.tables import Event, Instance, Job, Pull, Result, Revision, Series, Study

log = logging.getLogger(__name__)

FIRST_DELAY_SECONDS = 10.0
LAST_DELAY_SECONDS = 900.0
REFUSALS_BEFORE_PARKED = 3
BEAT_SECONDS = 10.0
LEASE = timedelta(seconds=60)
UNAVAILABLE = "unavailable"
WAITED_OUT = DENIED | {UNAVAILABLE}
"""What is the matter with the PACS and not with a study."""


@dataclass(frozen=True, kw_only=True)
class Pulled:
    """What pulling a study came to."""

    listed: int
    """Instances that the PACS says the study has."""
    taken: int
    """Instances that were fetched and kept."""
    refused: int
    """Instances that were fetched and refused by the intake, which has said why."""


def request(session: Session, study_instance_uid: str, *, now: datetime, everything: bool = False) -> None:
    """Write down that a study is to be pulled; one that waits already is pulled once.

    `everything` also fetches instances that are held, because their content may have changed.
    """
    again = update(Pull).where(col(Pull.study_instance_uid) == study_instance_uid)
    again = again.values(
        state="waiting", requests=Pull.requests + 1, attempt=0, run_after=now, requested_at=now
    )
    if everything:
        again = again.values(everything=True)
    if session.exec(again).rowcount:
        return
    new = Pull(study_instance_uid=study_instance_uid, everything=everything, run_after=now, requested_at=now)
    try:
        with session.begin_nested():
            session.add(new)
    except IntegrityError:  # another process was quicker, where transactions run side by side
        session.exec(again)


def held_uids(session: Session, study_instance_uid: str) -> set[str]:
    """Return the SOP Instance UIDs of a study that need no pull: what is held, and what Nadir itself wrote."""
    held = (
        select(Instance.sop_instance_uid)
        .join(Series, col(Series.id) == col(Instance.series_pk))
        .join(Study, col(Study.id) == col(Series.study_pk))
        .where(Study.study_instance_uid == study_instance_uid)
    )
    return set(session.exec(held)) | own_uids(session, study_instance_uid)


def own_uids(session: Session, study_instance_uid: str) -> set[str]:
    """Return the SOP Instance UIDs that Nadir wrote for a study."""
    own = (
        select(Result.sop_instance_uid)
        .join(Job, col(Job.id) == col(Result.job_pk))
        .join(Revision, col(Revision.id) == col(Job.revision_pk))
        .join(Study, col(Study.id) == col(Revision.study_pk))
        .where(Study.study_instance_uid == study_instance_uid)
    )
    return set(session.exec(own))


class Puller:
    """Works off the list of studies to pull, one at a time.

    Parameters
    ----------
    database, objects, intake
        Where things are kept, and the door they go through.
    dicomweb
        The PACS.
    reserve_bytes
        Nothing is fetched while less disk than this is free.
    receipts
        Tell the audit trail what came.

    """

    def __init__(
        self,
        database: Database,
        objects: ObjectStore,
        intake: Intake,
        dicomweb: DicomWeb,
        *,
        reserve_bytes: int = 0,
        receipts: Receipts | None = None,
    ) -> None:
        self._receipts = receipts or Receipts()
        self._peer = Peer("", dicomweb.root_url, 0)
        self._database = database
        self._objects = objects
        self._intake = intake
        self._dicomweb = dicomweb
        self._reserve_bytes = reserve_bytes
        self._beaten_at = -math.inf

    def tick(self, now: datetime) -> bool:
        """Pull the study that has waited longest; returns whether there was one."""
        with self._database.reading() as session:
            due = select(Pull).where(Pull.state == "waiting", has_come(Pull.run_after, now))
            row = session.exec(due.order_by(col(Pull.run_after)).limit(1)).first()
        if row is None:
            return False
        if not self._claim(row, now):
            return True  # another process has it
        try:
            pulled = self.pull_study(row.study_instance_uid, everything=row.everything)
        except Refused as error:
            self._failed(row, error.code, error.sentence, now)
        except Unavailable as error:
            self._failed(row, UNAVAILABLE, str(error), now)
        else:
            log.info(line("pulled", listed=pulled.listed, taken=pulled.taken, refused=pulled.refused))
            self._ended(row)
        return True

    def _claim(self, row: Pull, now: datetime) -> bool:
        """Move the study to the end of the list, so that one that kills this process does not stop the others."""
        with self._database.transaction() as session:
            unclaimed = _this_telling(row).where(col(Pull.run_after) == row.run_after)
            taken = session.exec(unclaimed.values(run_after=now + LEASE))
        return bool(taken.rowcount)

    def pull_study(self, study_instance_uid: str, *, everything: bool = False) -> Pulled:
        """Fetch what is not held of a study and hand it to the intake.

        Refuses `pacs-unknown` when the PACS holds no such study and `incomplete-pull` when it does not give what it
        lists. Raises `Unavailable` when it does not answer; what came until then is kept.
        """
        with self._database.reading() as session:
            skip = (own_uids if everything else held_uids)(session, study_instance_uid)
        listed = self._dicomweb.study_instances(study_instance_uid)
        if not listed:
            raise Refused("pacs-unknown", f"{self._dicomweb.root_url} does not hold the study that was told")
        by_series: defaultdict[str, list[HeldInstance]] = defaultdict(list)
        for instance in listed:
            by_series[instance.series_instance_uid].append(instance)
        outcomes: list[bool] = []
        wanted = 0
        with self._association() as association_pk:
            for series_uid, instances in by_series.items():
                missing = [i.sop_instance_uid for i in instances if i.sop_instance_uid not in skip]
                wanted += len(missing)
                whole = len(missing) == len(instances)
                with closing(self._fetch(study_instance_uid, series_uid, missing, whole=whole)) as paths:
                    outcomes += [self._take(path, study_instance_uid, association_pk) for path in paths]
        if len(outcomes) < wanted:
            text = f"{self._dicomweb.root_url} gave {len(outcomes)} of the {wanted} instances that it lists"
            raise Refused("incomplete-pull", text)
        return Pulled(listed=len(listed), taken=sum(outcomes), refused=outcomes.count(False))

    @contextmanager
    def _association(self) -> Iterator[int]:
        """Give an association that holds the study back from settling while it is pulled."""
        with self._database.transaction() as session:
            pk = open_association(session, PULL, self._dicomweb.root_url, self._database.now())
        try:
            yield pk
        finally:
            with self._database.transaction() as session:
                close_association(session, pk, self._database.now())
                self._receipts.tell(session, self._peer)

    def _fetch(
        self, study_uid: str, series_uid: str, missing: list[str], *, whole: bool
    ) -> Generator[Path, None, None]:
        if self._objects.free_bytes() < self._reserve_bytes:
            raise Unavailable("the disk is nearly full; nothing is pulled")
        new_path = self._objects.temporary
        yield from series_files(self._dicomweb, study_uid, series_uid, missing, new_path, whole=whole)

    def _take(self, path: Path, study_uid: str, association_pk: int) -> bool:
        """Return whether the intake kept it; when not, it has put the file aside and told why."""
        if time.monotonic() - self._beaten_at > BEAT_SECONDS:
            self._beaten_at = time.monotonic()
            now = self._database.now()
            with self._database.transaction() as session:
                beat(session, association_pk, now)
        try:
            recorded = self._intake.take(
                path,
                source=self._dicomweb.root_url,
                association=OpenAssociation(pk=association_pk),
                asked=study_uid,
            )
        except Refused as error:
            self._receipts.refused(self._peer, error.code)
            log.warning(line("pulled-and-refused", source=self._dicomweb.root_url, code=error.code))
            return False
        self._receipts.stored(self._peer, recorded.study_pk)
        return True

    def _ended(self, row: Pull) -> None:
        with self._database.transaction() as session:
            studies.adopt(session, row.study_instance_uid, self._database.now())
            studies.hint_complete(session, row.study_instance_uid)
            done = {
                "state": "pulled",
                "everything": False,
                "attempt": 0,
                "error_code": None,
                "error_text": None,
            }
            session.exec(_this_telling(row).values(**done, pulled_at=self._database.now()))

    def _failed(self, row: Pull, code: str, text: str, now: datetime) -> None:
        # Only failures of one kind in a row count: an outage must not use up the tries of a refusal.
        is_same_kind = (row.error_code in WAITED_OUT) == (code in WAITED_OUT)
        attempt = row.attempt + 1 if is_same_kind else 1
        is_parked = code not in WAITED_OUT and attempt >= REFUSALS_BEFORE_PARKED
        state = "parked" if is_parked else "waiting"
        told = {"told_at": f"{row.requested_at:%Y-%m-%dT%H:%M:%SZ}", **self._number(row)}
        log.warning(line("not-pulled", code=code, text=text, attempt=attempt, state=state, **told))
        delay = min(FIRST_DELAY_SECONDS * 2 ** min(attempt - 1, 20), LAST_DELAY_SECONDS) * random.uniform(
            0.8, 1.2
        )
        values = {"attempt": attempt, "error_code": code, "error_text": text[:500], "state": state}
        with self._database.transaction() as session:
            if code in DENIED and not _is_denied(session):
                where = self._dicomweb.root_url
                session.add(Event(at=now, kind="pull-denied", subject=where, text=text[:500]))
            session.exec(_this_telling(row).values(**values, run_after=now + timedelta(seconds=delay)))
            if is_parked:
                parked = Event(at=now, kind="pull-parked", subject=row.study_instance_uid, text=text[:500])
                session.add(parked)

    def _number(self, row: Pull) -> dict[str, int | None]:
        """Return the number of a study, by which all lines of the log name it; none before its first image came."""
        with self._database.reading() as session:
            found = select(Study.id).where(Study.study_instance_uid == row.study_instance_uid)
            number = session.exec(found).first()
        return {} if number is None else {"study": number}


def _is_denied(session: Session) -> bool:
    """Return whether a study waits for access to the PACS, which was told then."""
    waits = select(Pull).where(col(Pull.state) == "waiting", col(Pull.error_code).in_(DENIED))
    return session.exec(waits.limit(1)).first() is not None


def _this_telling(row: Pull) -> Update:
    """Return an update of the row unless the study was told again meanwhile: then it stays on the list."""
    return update(Pull).where(
        col(Pull.study_instance_uid) == row.study_instance_uid, col(Pull.requests) == row.requests
    )


__all__ = ["Pulled", "Puller", "held_uids", "own_uids", "request"]
