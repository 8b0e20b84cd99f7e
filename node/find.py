"""One query by C-FIND (Study Root): what a peer answers, for as long as can be waited for."""

from __future__ import annotations

import time
from collections.abc import Iterator

from pydicom.dataset import Dataset
from pynetdicom.association import Association

from node.status import PENDING
from plugins.errors import Unavailable

FIND = "1.2.840.10008.5.1.4.1.2.2.1"
MAX_ROWS = 20_000
LONGEST_SECONDS = 300.0


class Endless(Unavailable):
    """The peer answers with more rows than can be waited for."""


def find(
    association: Association, key: Dataset, *, longest_seconds: float = LONGEST_SECONDS
) -> Iterator[tuple[Dataset, Dataset | None]]:
    """Yield status and row of each answer. An answer without end is aborted and raises `Endless`."""
    deadline = time.monotonic() + longest_seconds
    for count, (status, row) in enumerate(association.send_c_find(key, FIND), 1):
        yield status, row
        if status.get("Status") in PENDING and (count > MAX_ROWS or time.monotonic() > deadline):
            if association.is_established:
                association.abort()
            raise Endless("a query is answered with more rows than can be waited for")


__all__ = ["FIND", "LONGEST_SECONDS", "Endless", "find"]
