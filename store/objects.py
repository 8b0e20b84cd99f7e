"""Bytes on disk, named by their sha256: what was kept is whole, synced and never changed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import socket
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from sqlmodel import Session, col, select

from plugins.errors import Refused, Unavailable
from store.file_hash import has_hash, is_hash, sha256_of
from store.object_name import FileSync, names_held
from store.tables import Instance, Result

TEMPORARY = re.compile(r"(?P<process>[0-9]+)-(?:(?P<host>[0-9a-f]{8})-)?[0-9a-f]{32}\.part")
"""Names of files that are arriving: who receives them, on which machine (earlier releases did not say), and chance."""
QUARANTINE_BYTES = 1 << 30
MOST_PREPARED = 16
OF_OTHERS_SECONDS = 6 * 3600.0
"""How long a file of another machine that shares the folder may lie untouched before it counts as left behind."""
PREFIXES = tuple(f"{number:02x}" for number in range(256))


@dataclass(frozen=True, kw_only=True)
class Kept:
    """An object that is on disk for good."""

    sha256: str
    """Hash of the whole file, and its name."""
    size_bytes: int
    """Length of the file."""
    path: Path
    """Where it lies."""


@dataclass(frozen=True, kw_only=True)
class Quarantined:
    """A file that was refused."""

    sha256: str
    """Hash of the file, and its name."""
    reason: str
    """Why it was refused."""
    size_bytes: int
    """What it fills of the disk."""
    at: datetime
    """When it came, aware UTC."""


class ObjectStore:
    """The folder of objects: `incoming/` and `ready/` for temporaries, `objects/ab/<sha256>.dcm`, `quarantine/`.

    No name in it comes from outside: temporaries have random names, objects the hash of their bytes.
    """

    def __init__(self, root: Path, *, sync: bool = True, quarantine_bytes: int = QUARANTINE_BYTES) -> None:
        """Make the folders. Raises Unavailable when that cannot be done.

        Without `sync` nothing is waited for until it is on disk: a power cut may take what was kept. What was refused
        may fill `quarantine_bytes`.
        """
        self.root = Path(root)
        self._file_sync = FileSync(is_on=sync)
        self._incoming = self.root / "incoming"
        self._ready = self.root / "ready"
        self._objects = self.root / "objects"
        self._quarantine = self.root / "quarantine"
        self._quarantine_bytes = quarantine_bytes
        self._prepared: deque[Path] = deque()
        self._room = -1  # not known before the folder was looked at
        self._room_lock = threading.Lock()
        with _unavailable(f" in {self.root}"):
            for folder in (self._incoming, self._ready, self._objects, self._quarantine):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file_sync.sync(self.root)
            self._make_folders()

    def temporary(self) -> Path:
        """Return a path for a file that is still arriving: nobody else has it, and nothing is in it."""
        path = self._incoming / _new_name()
        with suppress(IndexError, OSError):
            os.rename(self._prepared.pop(), path)
        return path

    def prepare(self) -> None:
        """Make a file for a later `temporary`: on some disks that takes a while, and who calls has to wait anyway."""
        if len(self._prepared) < MOST_PREPARED:
            path = self._ready / _new_name()
            with suppress(OSError):
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
                self._prepared.append(path)

    def forget_prepared(self) -> None:
        """Delete what was made and not asked for."""
        with suppress(IndexError):
            while True:
                _remove(self._prepared.pop())

    def path(self, sha256: str) -> Path:
        """Return where the object of this hash lies, or would lie. Refuses `bad-object-name`."""
        if not is_hash(sha256):
            raise Refused("bad-object-name", "An object is named by 64 lower-case hexadecimal digits.")
        return self._objects / sha256[:2] / f"{sha256}.dcm"

    def put(self, data: bytes) -> Kept:
        """Keep `data`. Raises Unavailable, and then nothing is left behind."""
        temporary = self.temporary()
        try:
            with _unavailable():
                temporary.write_bytes(data)
            return self.keep(temporary, hashlib.sha256(data).hexdigest)
        finally:
            _remove(temporary)

    def keep(self, temporary: Path, hashed: Callable[[], str] | None = None) -> Kept:
        """Give the file its final name; when this returns, file and name are on disk.

        `hashed` gives the hash of the file when somebody reckons it, or raises OSError. Every caller syncs its own: at
        one time that is as quick as one sync of the whole filesystem, because the filesystem gathers them, and nobody
        waits for what others have written. The same bytes twice are one object.
        Raises Unavailable on a full or failing disk; then the temporary file is removed, and nothing has the name that
        is not on disk (`store.object_name`).
        """
        try:
            with _unavailable(), self._file_sync.unnamed(temporary) as file:
                sha256 = hashed() if hashed else sha256_of(temporary)
                target = self.path(sha256)
                try:
                    file.name(target)
                except FileNotFoundError:
                    self._make_folders()
                    file.name(target)
                return Kept(sha256=sha256, size_bytes=file.size_bytes, path=target)
        finally:
            _remove(temporary)

    def quarantine(self, temporary: Path, reason: str) -> Path:
        """Put a file aside that was not accepted, with its reason beside it, and return where it lies.

        Raises Unavailable when even that fails; then the file is gone.
        """
        try:
            with _unavailable():
                target = self._quarantine / f"{sha256_of(temporary)}.dcm"
                with self._file_sync.unnamed(temporary) as file:
                    file.name(target)
                target.with_suffix(".json").write_text(
                    json.dumps({"sha256": target.stem, "reason": reason}) + "\n"
                )
                self._file_sync.sync(self._quarantine)
                with self._room_lock:
                    self._room -= _filled(target)
                return target
        finally:
            _remove(temporary)

    def quarantined(self, most: int = 50) -> tuple[int, int, list[Quarantined]]:
        """Return how many files were refused and are still here, what they fill, and the newest. Raises Unavailable."""
        with _unavailable():
            files = sorted(self._quarantine.glob("*.dcm"), key=_age, reverse=True)
            return len(files), sum(map(_filled, files)), [_told(path) for path in files[:most]]

    def bound_quarantine(self) -> int:
        """Delete the oldest refused files when they fill more than their bound, down to nine tenths of it.

        Returns how many went. Raises Unavailable.
        """
        with self._room_lock, _unavailable():
            if self._room >= 0:
                return 0
            files = sorted(self._quarantine.glob("*.dcm"), key=_age)
            filled, gone = sum(map(_filled, files)), 0
            for path in files if filled > self._quarantine_bytes else ():
                if filled <= self._quarantine_bytes * 9 // 10:
                    break
                filled -= _filled(path)
                path.unlink(missing_ok=True)
                path.with_suffix(".json").unlink(missing_ok=True)
                gone += 1
            self._room = self._quarantine_bytes - filled
            return gone

    def sweep(self) -> int:
        """Delete the temporaries of an earlier run and return how many there were; for start-up only.

        Those of another process that runs on this machine are left to it, and fresh ones of other machines and
        containers that share the folder: they may be receiving into them.
        """
        count = 0
        with _unavailable():
            for left in self.abandoned():
                left.unlink(missing_ok=True)
                count += 1
            for unused in _without_maker(self._ready):
                unused.unlink(missing_ok=True)
            self._file_sync.sync(self._incoming)
        return count

    def abandoned(self) -> list[Path]:
        """Return the temporaries that no other process of this machine is receiving into."""
        with _unavailable():
            return _without_maker(self._incoming)

    def free_bytes(self) -> int:
        """Return the free space of the disk that the objects are on. Raises Unavailable, also when it is away."""
        with _unavailable(f" in {self.root}"):
            state = os.statvfs(self.root)
        return state.f_bavail * state.f_frsize

    def names(self, prefix: str = "") -> Iterator[str]:
        """Give the hash of every object on disk, or of those that begin with two digits, in no order."""
        with _unavailable():
            for path in self._objects.glob(f"{prefix or '[0-9a-f][0-9a-f]'}/*.dcm"):
                if is_hash(path.stem):
                    yield path.stem

    def came_at(self, sha256: str) -> datetime | None:
        """Return when the bytes of an object last came, by its file; None when it is not there. Raises Unavailable."""
        with _unavailable():
            nanoseconds = _age(self.path(sha256)) if is_hash(sha256) else 0  # a damaged row's
        return datetime.fromtimestamp(nanoseconds / 1e9, tz=UTC) if nanoseconds else None

    @contextmanager
    def held(self, sha256: str) -> Iterator[None]:
        """Let nobody replace an object meanwhile. Raises Unavailable."""
        with _unavailable(), names_held(self.path(sha256).parent):
            yield

    def make_sure(self, sha256: str) -> None:
        """Return once an object that lies there is on disk for good, whoever wrote it. Raises Unavailable."""
        path = self.path(sha256)
        with _unavailable():
            self._file_sync.sync(path)
            self._file_sync.sync(path.parent)

    def is_intact(self, sha256: str) -> bool:
        """Return True when the object is there and its bytes still have their hash."""
        return has_hash(self.path(sha256), sha256)

    def _make_folders(self) -> None:
        """Make what objects lie in, all at once: none of them has to wait for the folder's own name."""
        for prefix in PREFIXES:
            (self._objects / prefix).mkdir(exist_ok=True)
        self._file_sync.sync(self._objects)


def strays(session: Session, objects: ObjectStore, prefix: str) -> tuple[list[str], list[str]]:
    """Return the objects without a row and the rows without one, of the hashes that begin with two digits, or of all.

    The former were kept and then never acknowledged, or are being so now, and are in the order in which they came;
    the latter are a loss, to be told to a person.
    """
    named = _named(session, prefix)
    held = set(objects.names(prefix))
    with _unavailable():
        files = (sha256 for sha256 in held - named if objects.path(sha256).is_file())
        without_row = sorted(files, key=lambda sha256: (_age(objects.path(sha256)), sha256))
    return without_row, sorted(named - held)


def is_named(session: Session, sha256: str) -> bool:
    """Return True when a row names the object."""
    statements = (
        select(table.id).where(col(table.sha256) == sha256).limit(1) for table in (Instance, Result)
    )
    return any(session.exec(statement).first() is not None for statement in statements)


def _named(session: Session, prefix: str) -> set[str]:
    named: set[str] = set()
    for table in (Instance, Result):
        sha256 = col(table.sha256)
        named.update(session.exec(select(sha256).where(sha256 >= prefix, sha256 < prefix + "g")))
    return named


def _filled(path: Path) -> int:
    """Return what a file fills of the disk; nothing when it went."""
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


def _told(path: Path) -> Quarantined:
    try:
        reason = str(json.loads(path.with_suffix(".json").read_text())["reason"])
    except (OSError, ValueError, KeyError, TypeError):
        reason = "no reason was kept"
    at = datetime.fromtimestamp(_age(path) / 1e9, tz=UTC)
    return Quarantined(sha256=path.stem, reason=reason, size_bytes=_filled(path), at=at)


def _age(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _new_name() -> str:
    return f"{os.getpid()}-{_host()}-{uuid.uuid4().hex}.part"


def _host() -> str:
    """Return a short name of this machine, or container: what process numbers mean is known only within it."""
    return _short(socket.gethostname())


@cache
def _short(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:8]


def _without_maker(folder: Path) -> list[Path]:
    return [left for left in folder.iterdir() if not (left.is_dir() or _has_maker(left))]


def _has_maker(left: Path) -> bool:
    """Return whether who made a file may still write it; of another machine's, whether it was written of late."""
    named = TEMPORARY.fullmatch(left.name)
    if named is None:
        return False
    if named["host"] not in (None, _host()):
        return time.time() - _age(left) / 1e9 < OF_OTHERS_SECONDS
    process = int(named["process"])
    return process != os.getpid() and _runs(process)


def _runs(process_id: int) -> bool:
    with suppress(PermissionError, OverflowError):
        try:
            os.kill(process_id, 0)
        except ProcessLookupError:
            return False
    return True


def _remove(temporary: Path) -> None:
    with suppress(OSError):
        temporary.unlink(missing_ok=True)


@contextmanager
def _unavailable(where: str = "") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        todo = "free or mend the disk."
        if isinstance(error, PermissionError):
            todo = "let the user that runs nadir read and write it (chown or chmod)."
        elif error.errno == errno.EMFILE:
            todo = "raise LimitNOFILE or ulimit -n."
        elif isinstance(error, FileNotFoundError) and where:
            todo = "is its disk mounted?"
        elif isinstance(error, FileExistsError | IsADirectoryError | NotADirectoryError):
            where, todo = f" at {error.filename2 or error.filename}", "look what lies there and take it out."
        state = f"cannot be written or read ({reason}); {todo}"
        raise Unavailable(f"The object store{where} {state}", outside=f"The object store {state}") from error


__all__ = ["PREFIXES", "TEMPORARY", "Kept", "ObjectStore", "Quarantined", "is_named", "strays"]
