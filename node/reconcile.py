"""Find studies that the PACS holds and the node was never told of: Orthanc loses its stable event when it dies."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from node import pull
from node.logs import line
from node.pacs import DicomWeb
from store.database import Database
from store.tables import Pull

log = logging.getLogger(__name__)

FORGET_AFTER = timedelta(hours=24)
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
        """Compare once; never asks to be called at once again. Raises `Unavailable` and `Refused` of the PACS."""
        # One day more: Study Date is local time without a zone, and a clock may be wrong.
        since = (now - timedelta(days=self._days + 1)).date()
        self._compared = {u: seen for u, seen in self._compared.items() if now - seen[1] < FORGET_AFTER}
        examined = 0
        for study in self._dicomweb.recent_studies(since):
            uid = study.study_instance_uid
            if uid in self._compared and self._compared[uid][0] == study.instances is not None:
                continue
            if self._missing(uid):
                log.info(line("missed", source=self._dicomweb.root_url))
                with self._database.transaction() as session:
                    pull.request(session, uid, now=now)
            self._compared[uid] = (study.instances, now)
            examined += 1
            if examined >= MAX_STUDIES_PER_ROUND:  # the rest next time: a restart must not flood the PACS
                break
        return False

    def _missing(self, uid: str) -> bool:
        listed = self._dicomweb.study_instances(uid)
        with self._database.reading() as session:
            waiting = session.get(Pull, uid)
            if waiting is not None and waiting.state == "waiting":
                return False
            held = pull.held_uids(session, uid)
        return any(instance.sop_instance_uid not in held for instance in listed)


__all__ = ["Reconciler"]
