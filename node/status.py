"""Which C-STORE status an error becomes, and what a sender should do about it (PS3.4 B.2.3, PS3.7 Annex C)."""

from __future__ import annotations

from plugins.errors import Refused, Unavailable

SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
NOT_AUTHORISED = 0x0124
OUT_OF_RESOURCES = 0xA700
DATA_SET_DOES_NOT_MATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000

# 0x0111, a duplicate: the peer has the instance, mostly by an earlier attempt whose answer was lost.
STORED = frozenset({0x0000, 0x0001, 0x0107, 0x0111, 0x0116})

UID_MISMATCH = "uid-mismatch"


def is_stored(status: int) -> bool:
    """Return True for a C-STORE status that says that the object is held: success, and every warning."""
    return status in STORED or 0xB000 <= status <= 0xBFFF


def status_of(error: BaseException) -> int:
    """Return the C-STORE status of an error.

    A sender repeats A700 and 0110 by itself; A900 and C000 need a person.
    """
    if isinstance(error, Refused):
        return DATA_SET_DOES_NOT_MATCH if error.code == UID_MISMATCH else CANNOT_UNDERSTAND
    if isinstance(error, (Unavailable, OSError, MemoryError)):
        return OUT_OF_RESOURCES
    return PROCESSING_FAILURE
