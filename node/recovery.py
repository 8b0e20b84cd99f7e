"""After a start: objects without a row are taken in, and rows without an object raise an alarm."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from sqlmodel import func, select

from node.intake import Intake
from node.logs import line
from plugins.errors import Refused
from store.objects import PREFIXES, strays
from store.tables import Instance

log = logging.getLogger(__name__)

EVERYTHING = ("",)
FEW = 20_000
SOURCE = "recovery"


class Recovery:
    """Compares the names on disk with the rows, a folder at a time when they are many, while the node already works.

    It opens no object that has a row; `nadir fsck` reads them all.

    Parameters
    ----------
    intake
        Takes in what a process that was killed had kept and not yet recorded.

    """

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._before = time.time()

    def run(self, is_stopping: Callable[[], bool]) -> tuple[int, int]:
        """Return how many objects were taken in and how many are missing; events tell of both.

        Objects younger than this recovery are left alone: they are just being recorded. Raises Unavailable.
        """
        adopted, missing = 0, 0
        with self._intake.database.reading() as session:
            count = session.exec(select(func.count()).select_from(Instance)).one()
        for prefix in EVERYTHING if count <= FEW else PREFIXES:
            if is_stopping():
                break
            with self._intake.database.reading() as session:
                without_row, without_object = strays(session, self._intake.objects, prefix)
            adopted += sum(self._adopt(sha256) for sha256 in without_row)
            missing += len(without_object)
            for sha256 in without_object:
                log.error(line("object-missing", sha=sha256[:12]))
        if adopted:
            self._intake.tell("recovered", "", f"{adopted} objects had been kept and not recorded")
        if missing:
            text = f"{missing} objects that were accepted are not on disk; run nadir fsck"
            self._intake.tell("object-missing", "", text)
        return adopted, missing

    def _adopt(self, sha256: str) -> bool:
        objects = self._intake.objects
        try:
            if objects.path(sha256).stat().st_ctime >= self._before:
                return False
            recorded = self._intake.adopt(sha256, SOURCE)
        except (Refused, FileNotFoundError) as error:
            log.warning(line("not-recovered", sha=sha256[:12], error=type(error).__name__))
            return False
        return recorded is not None and recorded.outcome != "identical"


__all__ = ["Recovery"]
