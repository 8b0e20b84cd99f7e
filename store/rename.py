"""Renaming that replaces nothing: one step in one folder each, where a link would leave a second name to take away."""

from __future__ import annotations

import ctypes
import errno
import os
from functools import cache
from pathlib import Path
from typing import Any

AT_FDCWD, RENAME_NOREPLACE = -100, 1
NOT_KNOWN = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})


def rename_new(source: Path, target: Path) -> None:
    """Rename a file unless something has the new name. Raises FileExistsError for that, and other OSErrors.

    Where the system (Linux has it) or the filesystem has no such call, the file is linked and its old name removed.
    """
    call = _call()
    if call is not None:
        if call(AT_FDCWD, os.fsencode(source), AT_FDCWD, os.fsencode(target), RENAME_NOREPLACE) == 0:
            return
        code = ctypes.get_errno()
        if code not in NOT_KNOWN:
            raise OSError(code, os.strerror(code), str(source), None, str(target))
    os.link(source, target)
    os.unlink(source)


@cache
def _call() -> Any:
    try:
        call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    except OSError:  # a Python that is linked statically
        return None
    if call is not None:
        call.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    return call


__all__ = ["rename_new"]
