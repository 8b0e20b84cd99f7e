"""Whether objects can be stored now; a disk that is full is not a disk that is gone."""

from __future__ import annotations

import logging
from collections.abc import Callable

from node.logs import line
from plugins.errors import Unavailable

log = logging.getLogger(__name__)

DISK_FULL, STORE_UNAVAILABLE = "disk-full", "store-unavailable"


class Room:
    """The disk that objects go to.

    Parameters
    ----------
    free_bytes
        Gives its free space; raises Unavailable when it cannot be read.
    reserve_bytes
        The free space below which nothing is stored.

    """

    def __init__(self, free_bytes: Callable[[], int], reserve_bytes: int) -> None:
        self._free_bytes = free_bytes
        self._reserve_bytes = reserve_bytes
        self._told = ""

    def lack(self) -> str:
        """Return why nothing can be stored, `disk-full` or `store-unavailable`; empty when there is room."""
        try:
            free = self._free_bytes()
        except Unavailable as error:
            if self._told != str(error):
                log.warning(line(STORE_UNAVAILABLE, error=str(error)))
            self._told = str(error)
            return STORE_UNAVAILABLE
        if self._told:
            log.info(line("store-works"))
        self._told = ""
        return "" if free >= self._reserve_bytes else DISK_FULL


__all__ = ["Room"]
