"""What the storage port hands over: who sent an object, the object itself, and the desk that deals with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pydicom import Dataset

from node.callers import Callers
from plugins.errors import Refused

if TYPE_CHECKING:
    from pynetdicom.dimse_primitives import N_ACTION


@dataclass(frozen=True)
class Peer:
    """The other end of one association; equal only to itself."""

    calling_ae: str
    """Calling AE title."""
    address: str
    """IP address."""
    number: int
    """Our own number of the association."""

    @property
    def name(self) -> str:
        """Return `AE@address`."""
        return f"{self.calling_ae}@{self.address}"


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """One object that came by C-STORE: in a file, or the reason why it is not."""

    peer: Peer
    """Who sent it."""
    sop_class_uid: str
    """Affected SOP Class UID of the command; not yet compared with the data set."""
    sop_instance_uid: str
    """Affected SOP Instance UID of the command, likewise."""
    path: Path | None
    """The Part 10 file; None when there was no data set or it could not be written."""
    failure: Exception | None
    """Why it could not be written."""
    move_originator: str = ""
    """AE title of who asked for it by C-MOVE; empty when nobody did."""
    size_bytes: int = 0
    """Length of the file."""
    sha256: Callable[[], str] | None = None
    """Gives the hash of the whole file as it was written, or raises OSError; None when none was reckoned on the way."""
    head: bytes = b""
    """The file's first bytes, at most 64 KiB; the whole file when it is no longer."""

    def require_path(self) -> Path:
        """Return the file. Raises why it could not be written; refuses (`no-data-set`) when there was none."""
        if self.failure is not None:
            raise self.failure
        if self.path is None:
            raise Refused("no-data-set", "the C-STORE request has no data set")
        return self.path


class Desk(Protocol):
    """Where received objects go."""

    def temporary(self) -> Path:
        """Return a path for the next object, on the filesystem that keeps it."""

    def free_bytes(self) -> int:
        """Return the free space of that filesystem."""

    def receive(self, arrival: Arrival) -> int:
        """Deal with one object and return the status of the answer. Must not raise.

        After success the file is the desk's, to move or to delete; after any other status it is deleted.
        """

    def left(self, peer: Peer) -> None:
        """Learn that an association has ended. Must not raise."""

    def turned_away(self, reason: str, calling_ae: str, address: str) -> None:
        """Learn that somebody was not let in. Must not raise."""


class Reporters(Protocol):
    """Who reports storage commitment to us, and what reads it."""

    @property
    def callers(self) -> Callers:
        """Return who may open an association for it."""

    def report(self, peer: Peer, information: Dataset) -> int:
        """Take in the Event Information of a report, and return the status of the answer. Must not raise."""


class Committers(Protocol):
    """Who asks us for storage commitment, and what keeps the requests."""

    @property
    def callers(self) -> Callers:
        """Return who may ask."""

    def commit(self, peer: Peer, request: N_ACTION, information: Dataset) -> int:
        """Keep the Action Information of a request, and return the status of the answer. Must not raise."""
