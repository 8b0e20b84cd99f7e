"""A small archive of files: enough of a PACS to send results to and to look at, for the demo and for tests.

It keeps what it is sent under the hash of its bytes and lists it. No query, no retrieve, no SQL.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from node.callers import Callers
from node.desk import Arrival, Peer
from node.logs import line
from node.reception import Reception
from node.status import SUCCESS, UID_MISMATCH, status_of
from plugins.errors import Refused
from store.objects import ObjectStore
from store.part10 import Header, scan_header, scan_whole

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Held:
    """One object that the archive holds."""

    sop_instance_uid: str
    """SOP Instance UID."""
    sop_class_uid: str
    """SOP Class UID."""
    study_instance_uid: str
    """Study Instance UID."""
    series_instance_uid: str
    """Series Instance UID."""
    modality: str
    """Modality."""
    sha256: str
    """Hash of the file, and its name."""
    path: Path
    """The file."""


class Archive:
    """A storage SCP that keeps files in a folder.

    Parameters
    ----------
    folder
        Where the files go; what lies there from before is listed again.
    ae_title, host, port
        Our AE title, and where to listen; port 0 takes any free one.
    callers
        Who may send; everybody who reaches the host when not given.

    """

    def __init__(
        self,
        folder: Path,
        *,
        ae_title: str = "ARCHIVE",
        host: str = "127.0.0.1",
        port: int = 0,
        callers: Sequence[str] | None = None,
    ) -> None:
        self._shelf = _Shelf(ObjectStore(folder))
        self._reception = Reception(
            self._shelf,
            ae_title=ae_title,
            host=host,
            port=port,
            callers=Callers.parse(callers or (), accept_any=callers is None),
            reserve_bytes=0,
        )

    def start(self) -> None:
        """Listen. Raises Unavailable when the port is taken."""
        self._shelf.load()
        self._reception.start()

    @property
    def port(self) -> int:
        """Return the port, the real one when any free one was asked for."""
        return self._reception.port

    def listing(self) -> tuple[Held, ...]:
        """Return what is held, in the order of arrival; the newest of two with one SOP Instance UID."""
        return self._shelf.listing()

    def stop(self) -> None:
        """End, after the object that is being stored."""
        self._reception.stop()


class _Shelf:
    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._held: dict[str, Held] = {}
        self._lock = threading.Lock()

    def load(self) -> None:
        self._objects.sweep()
        files = [self._objects.path(name) for name in self._objects.names()]
        for path in sorted(files, key=lambda path: (path.stat().st_mtime_ns, path.name)):
            self._add(scan_header(path), path)

    def _add(self, header: Header, path: Path) -> None:
        held = Held(
            sop_instance_uid=header.sop_instance_uid,
            sop_class_uid=header.sop_class_uid,
            study_instance_uid=header.study_instance_uid,
            series_instance_uid=header.series_instance_uid,
            modality=header.modality,
            sha256=path.stem,
            path=path,
        )
        with self._lock:
            self._held.pop(held.sop_instance_uid, None)
            self._held[held.sop_instance_uid] = held

    def listing(self) -> tuple[Held, ...]:
        with self._lock:
            return tuple(self._held.values())

    def temporary(self) -> Path:
        return self._objects.temporary()

    def free_bytes(self) -> int:
        return self._objects.free_bytes()

    def receive(self, arrival: Arrival) -> int:
        try:
            path = arrival.require_path()
            header = scan_whole(path).header
            if (header.sop_class_uid, header.sop_instance_uid) != (
                arrival.sop_class_uid,
                arrival.sop_instance_uid,
            ):
                raise Refused(UID_MISMATCH, "the data set is not the instance that the command announced")
            self._add(header, self._objects.keep(path).path)
        except Exception as error:  # the border: every error becomes a status
            log.warning(line("archive-refused", error=type(error).__name__))
            return status_of(error)
        return SUCCESS

    def left(self, peer: Peer) -> None:
        """Nothing to do: the archive keeps no associations."""

    def turned_away(self, reason: str, calling_ae: str, address: str) -> None:
        log.warning(line("rejected", reason=reason, calling_ae=calling_ae, address=address))
