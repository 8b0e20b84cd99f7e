"""Pull studies that the PACS told of: a durable list in SQL, and the one who works it off."""

from __future__ import annotations

import logging
import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from node.intake import Intake
from node.pacs import DicomWeb, HeldInstance
from plugins.errors import Refused, Unavailable
from store import studies
from store.database import Database
from store.objects import ObjectStore
from store.tables import Event, Instance, Job, Pull, Result, Revision, Series, Study

log = logging.getLogger(__name__)

FIRST_DELAY_SECONDS = 10.0
LAST_DELAY_SECONDS = 900.0
REFUSALS_BEFORE_PARKED = 3


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

    """

    def __init__(
        self,
        database: Database,
        objects: ObjectStore,
        intake: Intake,
        dicomweb: DicomWeb,
        *,
        reserve_bytes: int = 0,
    ) -> None:
        self._database = database
        self._objects = objects
        self._intake = intake
        self._dicomweb = dicomweb
        self._reserve_bytes = reserve_bytes

    def tick(self, now: datetime) -> bool:
        """Pull the study that has waited longest; returns whether there was one."""
        with self._database.reading() as session:
            due = select(Pull).where(Pull.state == "waiting", col(Pull.run_after) <= now)
            row = session.exec(due.order_by(col(Pull.run_after)).limit(1)).first()
            if row is None:
                return False
            uid, requests, everything, attempt = (
                row.study_instance_uid,
                row.requests,
                row.everything,
                row.attempt,
            )
        try:
            pulled = self.pull_study(uid, everything=everything)
        except Refused as error:
            self._failed(uid, requests, attempt + 1, error.code, error.sentence, now, refused=True)
        except Unavailable as error:
            self._failed(uid, requests, attempt + 1, "unavailable", str(error), now, refused=False)
        else:
            log.info(
                "pulled a study: %d listed, %d new, %d refused", pulled.listed, pulled.taken, pulled.refused
            )
            self._ended(uid, requests)
        return True

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
        taken = refused = wanted = 0
        for series_uid, instances in by_series.items():
            missing = [i.sop_instance_uid for i in instances if i.sop_instance_uid not in skip]
            wanted += len(missing)
            if self._objects.free_bytes() < self._reserve_bytes:
                raise Unavailable("the disk is nearly full; nothing is pulled")
            for path in self._fetch(
                study_instance_uid, series_uid, missing, whole=len(missing) == len(instances)
            ):
                if self._take(path):
                    taken += 1
                else:
                    refused += 1
        if taken + refused < wanted:
            text = f"{self._dicomweb.root_url} gave {taken + refused} of the {wanted} instances that it lists"
            raise Refused("incomplete-pull", text)
        return Pulled(listed=len(listed), taken=taken, refused=refused)

    def _fetch(self, study_uid: str, series_uid: str, missing: list[str], *, whole: bool) -> Iterable[Path]:
        # One request for a series of which nothing is held: a request per slice costs more than the slice.
        if whole and len(missing) > 1:
            yield from self._dicomweb.retrieve_series(study_uid, series_uid, self._objects.temporary)
            return
        for sop_uid in missing:
            path = self._objects.temporary()
            self._dicomweb.retrieve_instance(study_uid, series_uid, sop_uid, path)
            yield path

    def _take(self, path: Path) -> bool:
        try:
            self._intake.take(path, source=self._dicomweb.root_url)
        except Refused as error:
            log.warning("an instance from %s was refused: %s", self._dicomweb.root_url, error.code)
            return False
        finally:
            path.unlink(missing_ok=True)
        return True

    def _ended(self, uid: str, requests: int) -> None:
        with self._database.transaction() as session:
            studies.hint_complete(session, uid)
            # Told again meanwhile: it stays on the list.
            mine = update(Pull).where(col(Pull.study_instance_uid) == uid, col(Pull.requests) == requests)
            done = {
                "state": "pulled",
                "everything": False,
                "attempt": 0,
                "error_code": None,
                "error_text": None,
            }
            session.exec(mine.values(**done, pulled_at=self._database.now()))

    def _failed(
        self, uid: str, requests: int, attempt: int, code: str, text: str, now: datetime, *, refused: bool
    ) -> None:
        parked = refused and attempt >= REFUSALS_BEFORE_PARKED
        log.warning(
            "a study could not be pulled (%s), attempt %d%s", text, attempt, ", given up" if parked else ""
        )
        delay = min(FIRST_DELAY_SECONDS * 2 ** min(attempt - 1, 20), LAST_DELAY_SECONDS) * random.uniform(
            0.8, 1.2
        )
        with self._database.transaction() as session:
            mine = update(Pull).where(col(Pull.study_instance_uid) == uid, col(Pull.requests) == requests)
            values = {"attempt": attempt, "error_code": code, "error_text": text[:500]}
            state = "parked" if parked else "waiting"
            session.exec(mine.values(**values, state=state, run_after=now + timedelta(seconds=delay)))
            if parked:
                session.add(Event(at=now, kind="pull-parked", subject=uid, text=f"{code}: {text}"[:500]))


__all__ = ["Pulled", "Puller", "held_uids", "own_uids", "request"]
