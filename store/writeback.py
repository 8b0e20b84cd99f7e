"""Lets the system begin to write a file to disk: a sync that comes later then has less to wait for."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

SYNC_FILE_RANGE_WRITE = 2


def begin_writeback(descriptor: int, start: int, count: int) -> None:
    """Begin to write `count` bytes of a file from `start`, and wait for none of them; no promise, and no error.

    Where the system has no such call (Linux has), nothing is begun.
    """
    call = _call()
    if call is not None:
        call(descriptor, start, count, SYNC_FILE_RANGE_WRITE)


@cache
def _call() -> Any:
    try:
        call = getattr(ctypes.CDLL(None), "sync_file_range", None)
    except OSError:  # a Python that is linked statically
        return None
    if call is not None:
        call.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return call


__all__ = ["begin_writeback"]
