"""Where a fault of ours, or of a foreign plugin, happened: told without a word that may quote a patient's data."""

from __future__ import annotations

import errno
from pathlib import Path

from plugins.errors import Unavailable

ROOT = Path(__file__).parents[1]
OF_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})
DISK_FAULT = "results cannot be put on the disk ({reason}); free or mend it"


class DiskFault(Unavailable):
    """The disk that results are written to is full or failing: no fault of the study that is analysed."""


def disk_fault(error: BaseException | None) -> DiskFault | None:
    """Return what is to be told of an error that a full or failing disk raised, or the object store for its sake.

    None for any other, also for where a plugin may not write: that does not mend itself.
    """
    if isinstance(error, Unavailable):
        error = error.__cause__
    if not isinstance(error, OSError) or error.errno not in OF_DISK:
        return None
    return DiskFault(DISK_FAULT.format(reason=error.strerror))


def place(error: BaseException) -> str:
    """Return the type of an error, the last line of ours on its way, and the last line at all when that is foreign."""
    trace, ours, last = error.__traceback__, "", ""
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        is_ours = file.is_relative_to(ROOT) and "site-packages" not in file.relative_to(ROOT).parts
        name = file.relative_to(ROOT).as_posix() if is_ours else "/".join(file.parts[-2:])
        last = f"{name}:{trace.tb_lineno}"
        ours = last if is_ours else ours
        trace = trace.tb_next
    places = " > ".join(dict.fromkeys(p for p in (ours, last) if p))
    return f"{type(error).__name__} at {places or '?'}"


__all__ = ["DISK_FAULT", "DiskFault", "disk_fault", "place"]
