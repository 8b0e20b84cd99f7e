"""`nadir fsck`: looks whether the node keeps its promises, and mends what can be mended without losing anything.

It may run beside a live node. What such a node may be doing right now (an object whose row is being committed) is
looked at again for some seconds before it is believed.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlmodel import Session

from node.intake import Intake
from plugins.errors import NadirError, Refused
from store.database import Database
from store.file_hash import has_hash
from store.fsck import mend
from store.fsck.check import check
from store.fsck.fault import Fault
from store.objects import ObjectStore
from store.part10 import scan_header

PATIENCE_SECONDS = 5.0
Rows = Callable[[Session, int, datetime], None]
ROWS: Mapping[str, tuple[Rows, str]] = {
    "not-one-current": (mend.one_current, "what came last is the current one; the study settles again"),
    "content-not-analysed": (mend.reopen, "the study settles again"),
    "study-state": (mend.known_state, "the study settles again, unless it is only an earlier one"),
    "job-stuck": (mend.put_back_job, "put back into the queue"),
    "job-not-ended": (mend.end_job, "ended"),
    "delivery-stuck": (mend.put_back_delivery, "put back; the same bytes go out again"),
}
"""What is mended in the rows, by the code of the fault."""


@dataclass(frozen=True, kw_only=True)
class Looked:
    """A fault, and what became of it."""

    fault: Fault
    """What is wrong."""
    mended: str = ""
    """What was done about it; empty when nothing was, and a person has to."""

    def plain(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        values = asdict(self.fault)
        del values["young"]
        return {**values, "mended": self.mended, "todo": "" if self.mended else self.fault.todo}


def look(
    database: Database,
    objects: ObjectStore,
    *,
    quick: bool = False,
    patience_seconds: float = PATIENCE_SECONDS,
) -> list[Fault]:
    """Return what is wrong, after what is young was there for `patience_seconds`. Raises Unavailable."""
    faults = check(database, objects, now=database.now(), quick=quick)
    until = time.monotonic() + patience_seconds
    while any(fault.young for fault in faults) and (left := until - time.monotonic()) > 0:
        time.sleep(min(1.0, left))
        again = check(database, objects, now=database.now(), quick=True)
        still = {(fault.code, fault.subject) for fault in again}
        faults = [fault for fault in faults if not fault.young or (fault.code, fault.subject) in still]
    return faults


def repair(database: Database, objects: ObjectStore, faults: list[Fault]) -> list[Looked]:
    """Return what became of each fault. Nothing is deleted that could be the only copy: it goes to quarantine.

    What is missing comes last, and what was damaged is asked for once more: another fault's mending may have moved its
    bytes to quarantine, from where it returns. What has no row is taken in as it came.
    """
    mender = _Mender(database, objects)
    looked = [mender.mend(fault) for fault in sorted(faults, key=mender.turn)]
    return [mender.again(one) for one in looked]


class _Mender:
    def __init__(self, database: Database, objects: ObjectStore) -> None:
        self._database = database
        self._objects = objects
        self._intake = Intake(database, objects)
        self._files: Mapping[str, Callable[[Fault], Looked]] = {
            "orphan": self._orphan,
            "object-missing": self._missing,
            "object-damaged": self._damaged,
            "row-size": self._size,
            "dead-temporary": self._temporary,
            "wrong-mode": self._mode,
            "no-reason": self._no_reason,
            "reason-without-file": self._no_file,
            "kept-and-quarantined": self._twice,
        }

    def turn(self, fault: Fault) -> tuple[bool, float]:
        """Return what faults are mended in the order of."""
        came = self._objects.came_at(fault.subject) if fault.code == "orphan" else None
        return fault.code == "object-missing", came.timestamp() if came else 0.0

    def mend(self, fault: Fault) -> Looked:
        """Return the fault with what was done; one that cannot be mended is left as it is and says why."""
        try:
            if fault.code in ROWS:
                return self._rows(fault)
            if fault.code in self._files:
                return self._files[fault.code](fault)
        except (NadirError, OSError) as error:
            said = error.strerror if isinstance(error, OSError) else str(error)
            return _left(fault, f"{fault.todo} (not mended: {said})")
        return Looked(fault=fault)

    def again(self, one: Looked) -> Looked:
        """Return a damaged object that is left as one that came back, when its bytes lie in quarantine by now."""
        if one.mended or one.fault.code != "object-damaged":
            return one
        with suppress(NadirError, OSError):  # it stays left, and says why
            restored = self._missing(one.fault)
            return restored if restored.mended else one
        return one

    def _rows(self, fault: Fault) -> Looked:
        change, done = ROWS[fault.code]
        with self._database.transaction() as session:
            change(session, int(fault.subject.rpartition(" ")[2]), self._database.now())
        return Looked(fault=fault, mended=done)

    def _orphan(self, fault: Fault) -> Looked:
        """Take in what is on disk without a row, behind what came later; nobody had been told that it was kept."""
        path = self._objects.path(fault.subject)
        if not self._objects.is_intact(fault.subject):
            self._set_aside(path, "damaged")
            return Looked(fault=fault, mended="moved to quarantine: its bytes have another hash")
        if _is_own(path):
            if fault.young:
                return _left(fault, "a worker may be about to record this result; look again in ten minutes")
            self._set_aside(path, "unrecorded-result")
            return Looked(fault=fault, mended="a result that no job recorded was moved to quarantine")
        try:
            recorded = self._intake.adopt(fault.subject, "fsck")
        except Refused as refused:
            if path.exists():
                raise
            return Looked(fault=fault, mended=f"moved to quarantine: {refused.sentence}")
        if recorded is not None and recorded.outcome == "superseded":
            return Looked(fault=fault, mended="taken in; what came later under its SOP Instance UID counts")
        return Looked(fault=fault, mended="taken in, as if it came now")

    def _missing(self, fault: Fault) -> Looked:
        """Take the bytes back from quarantine, when they lie there."""
        aside = self._aside(fault.subject)
        if not has_hash(aside, fault.subject):
            return Looked(fault=fault)
        self._objects.keep(self._copy(aside))
        self._forget_aside(fault.subject)
        return Looked(fault=fault, mended="brought back from quarantine")

    def _damaged(self, fault: Fault) -> Looked:
        """Move damaged bytes aside, so that the next sending of the right ones heals it."""
        if self._objects.is_intact(fault.subject):
            return Looked(fault=fault, mended="its bytes are whole by now")
        aside = self._set_aside(self._objects.path(fault.subject), "damaged")
        restored = self._missing(fault)
        if restored.mended:
            return restored
        return _left(fault, f"the damaged bytes were moved to quarantine/{aside.name}; {fault.todo}")

    def _size(self, fault: Fault) -> Looked:
        size_bytes = self._objects.path(fault.subject).stat().st_size
        with self._database.transaction() as session:
            mend.true_size(session, fault.subject, size_bytes)
        return Looked(fault=fault, mended=f"the row says {size_bytes} bytes now")

    def _temporary(self, fault: Fault) -> Looked:
        (self._objects.root / fault.subject).unlink(missing_ok=True)
        return Looked(fault=fault, mended="removed")

    def _mode(self, fault: Fault) -> Looked:
        path = self._objects.root / fault.subject
        if not path.exists():
            return Looked(fault=fault, mended="moved to quarantine, for another fault of it")
        path.chmod(0o440 if path.is_file() else 0o700)
        return Looked(fault=fault, mended="set right")

    def _no_reason(self, fault: Fault) -> Looked:
        if not self._aside(fault.subject).is_file():
            return Looked(fault=fault, mended="it has left quarantine")
        # Not through `quarantine`: it takes away the file that it was given.
        reason = json.dumps({"sha256": fault.subject, "reason": "unknown"}) + "\n"
        self._aside(fault.subject).with_suffix(".json").write_text(reason)
        return Looked(fault=fault, mended="its reason is now 'unknown'")

    def _no_file(self, fault: Fault) -> Looked:
        self._aside(fault.subject).with_suffix(".json").unlink(missing_ok=True)
        return Looked(fault=fault, mended="the reason was removed")

    def _twice(self, fault: Fault) -> Looked:
        if not self._objects.is_intact(fault.subject):
            return _left(fault, "the object itself is damaged; mend that first")
        self._forget_aside(fault.subject)
        return Looked(fault=fault, mended="the copy in quarantine was removed")

    def _aside(self, sha256: str) -> Path:
        return self._objects.root / "quarantine" / f"{sha256}.dcm"

    def _forget_aside(self, sha256: str) -> None:
        """Take a file out of quarantine of which the object store has the bytes."""
        self._aside(sha256).unlink(missing_ok=True)
        self._aside(sha256).with_suffix(".json").unlink(missing_ok=True)

    def _set_aside(self, path: Path, reason: str) -> Path:
        """Move an object to quarantine: it leaves its place only when it is there."""
        aside = self._objects.quarantine(self._copy(path), reason)
        path.unlink()
        return aside

    def _copy(self, path: Path) -> Path:
        temporary = self._objects.temporary()
        shutil.copyfile(path, temporary)
        return temporary


def _left(fault: Fault, todo: str) -> Looked:
    return Looked(fault=replace(fault, todo=todo))


def _is_own(path: Path) -> bool:
    try:
        return scan_header(path).own
    except Refused:
        return False


__all__ = ["Looked", "look", "repair"]
