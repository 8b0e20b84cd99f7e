"""Find studies that the PACS holds and the node was never told of: Orthanc loses its stable event when it dies."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from node import pull
from node.logs import line
from node.pacs import DicomWeb, HeldStudy
from plugins.errors import Refused
from store.database import Database
from store.tables import Pull

log = logging.getLogger(__name__)

FORGET_AFTER = timedelta(hours=24)
UNCOUNTED_AGAIN = timedelta(minutes=30)
MAX_STUDIES_PER_ROUND = 200


class Reconciler:
    """Compares the recent studies of the PACS with what is held and puts what is missing on the list to pull.

    A study whose number of instances has not changed since it was compared is not compared again for a day, so a
    quiet PACS costs one query a round.

    Parameters
    ----------
    database, dicomweb
        The two sides.
    days
        How many days back, by Study Date, the question goes. Studies with an older date are not seen; the hook
        tells those when Orthanc starts again.

    """

    def __init__(self, database: Database, dicomweb: DicomWeb, *, days: int) -> None:
        self._database = database
        self._dicomweb = dicomweb
        self._days = days
        self._compared: dict[str, tuple[int | None, datetime]] = {}

    def tick(self, now: datetime) -> bool:
        """Compare once; never asks to be called at once again. Raises `Unavailable` and `Refused` of the query."""
        # One day more: Study Date is local time without a zone, and a clock may be wrong.
        since = (now - timedelta(days=self._days + 1)).date()
        self._compared = {u: seen for u, seen in self._compared.items() if now - seen[1] < FORGET_AFTER}
        examined = 0
        for study in self._dicomweb.recent_studies(since):
            uid = study.study_instance_uid
            if self._is_as_compared(study, now):
                continue
            try:
                is_missing = self._missing(uid)
            except Refused as error:  # one study that cannot be asked for holds no other back
                log.warning(line("not-compared", source=self._dicomweb.root_url, code=error.code))
                is_missing = False
            if is_missing:
                log.info(line("missed", source=self._dicomweb.root_url))
                with self._database.transaction() as session:
                    pull.request(session, uid, now=now)
            self._compared[uid] = (study.instances, now)
            examined += 1
            if examined >= MAX_STUDIES_PER_ROUND:  # the rest next time: a restart must not flood the PACS
                break
        return False

    def _is_as_compared(self, study: HeldStudy, now: datetime) -> bool:
        if study.study_instance_uid not in self._compared:
            return False
        instances, at = self._compared[study.study_instance_uid]
        # Without a count nothing shows a change; a pause, so that those later in the list get their turn.
        return instances == study.instances and (instances is not None or now - at < UNCOUNTED_AGAIN)

    def _missing(self, uid: str) -> bool:
        listed = self._dicomweb.study_instances(uid)
        with self._database.reading() as session:
            waiting = session.get(Pull, uid)
            if waiting is not None and waiting.state == "waiting":
                return False
            held = pull.held_uids(session, uid)
        return any(instance.sop_instance_uid not in held for instance in listed)


__all__ = ["Reconciler"]
