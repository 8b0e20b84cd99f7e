"""Where a fault of ours, or of a foreign plugin, happened: told without a word that may quote a patient's data."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from plugins.errors import OffContract, Unavailable

ROOT = Path(__file__).parents[1]
PACKAGES = frozenset({"models", "plugins", "store", "training", "node"})
"""Our own of what lies in `ROOT`: installed, everything else lies there too."""
OF_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})
OF_MACHINE = {
    errno.EMFILE: "raise LimitNOFILE or ulimit -n",
    errno.ENFILE: "raise fs.file-max",
    errno.EAGAIN: "raise TasksMax, the pids limit or ulimit -u",
    errno.ENOMEM: "free memory or raise the limit of the service",
}
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


class Shortage(Unavailable):
    """The machine gives no more open files, processes or memory now: no fault of the study that is analysed."""


def shortage(error: BaseException | None) -> Shortage | None:
    """Return what is to be told of an error raised for want of one of these, or by the object store for its sake.

    Only of this process: an analysis that uses them up is at fault itself, and is told otherwise. None for any other.
    """
    if isinstance(error, Unavailable):
        error = error.__cause__
    if not isinstance(error, OSError) or error.errno not in OF_MACHINE:
        return None
    return Shortage(f"{os.strerror(error.errno)}; {OF_MACHINE[error.errno]}")


def place(error: BaseException, plugin: object = None) -> str:
    """Return the type of an error, and the last lines on its way: of ours, of the plugin's package, and at all.

    What the contract says against a plugin's values is told with it.
    """
    trace, package = error.__traceback__, type(plugin).__module__.partition(".")[0]
    last: dict[str, str] = {}
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        is_ours = file.is_relative_to(ROOT) and file.relative_to(ROOT).parts[0] in PACKAGES
        is_plugins = trace.tb_frame.f_globals.get("__name__", "").partition(".")[0] == package
        name = file.relative_to(ROOT).as_posix() if is_ours else "/".join(file.parts[-2:])
        for whose in ("ours",) * is_ours + ("plugin",) * is_plugins + ("any",):
            last.pop(whose, None)  # they are told in the order of the way
            last[whose] = f"{name}:{trace.tb_lineno}"
        trace = trace.tb_next
    places = " > ".join(dict.fromkeys(last.values()))
    told = f"{type(error).__name__} at {places or '?'}"
    return f"{error} ({told})" if isinstance(error, OffContract) else told


__all__ = ["DISK_FAULT", "DiskFault", "Shortage", "disk_fault", "place", "shortage"]
