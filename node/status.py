"""DIMSE statuses: which an error becomes, and which says that an object is held (PS3.4 B.2.3, PS3.7 Annex C)."""

from __future__ import annotations

from plugins.errors import Refused, Unavailable
from store.statuses import DUPLICATE_TRANSACTION, NO_SUCH_INSTANCE, PROCESSING_FAILURE

SUCCESS = 0x0000
INVALID_ARGUMENT = 0x0115
SOP_CLASS_NOT_SUPPORTED = 0x0122
NO_SUCH_ACTION = 0x0123
NOT_AUTHORISED = 0x0124
OUT_OF_RESOURCES = 0xA700
DATA_SET_DOES_NOT_MATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000
PENDING = frozenset({0xFF00, 0xFF01})

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


__all__ = [
    "CANNOT_UNDERSTAND",
    "DATA_SET_DOES_NOT_MATCH",
    "DUPLICATE_TRANSACTION",
    "INVALID_ARGUMENT",
    "NOT_AUTHORISED",
    "NO_SUCH_ACTION",
    "NO_SUCH_INSTANCE",
    "OUT_OF_RESOURCES",
    "PENDING",
    "PROCESSING_FAILURE",
    "SOP_CLASS_NOT_SUPPORTED",
    "SUCCESS",
    "UID_MISMATCH",
    "is_stored",
    "status_of",
]
