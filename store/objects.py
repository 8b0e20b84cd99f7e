"""Bytes on disk, named by their sha256: what was kept is whole, synced and never changed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sqlmodel import Session, col, select

from plugins.errors import Refused, Unavailable
from store.tables import Instance, Result

SHA256 = re.compile(r"[0-9a-f]{64}")
CHUNK_BYTES = 1 << 20
NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV})


@dataclass(frozen=True, kw_only=True)
class Kept:
    """An object that is on disk for good."""

    sha256: str
    """Hash of the whole file, and its name."""
    size_bytes: int
    """Length of the file."""
    path: Path
    """Where it lies."""


class ObjectStore:
    """The folder of objects: `incoming/` temporaries, `objects/ab/<sha256>.dcm`, `quarantine/`.

    No name in it comes from outside: temporaries have random names, objects the hash of their bytes.
    """

    def __init__(self, root: Path) -> None:
        """Make the three folders. Raises Unavailable when that cannot be done."""
        self.root = Path(root)
        self._incoming = self.root / "incoming"
        self._objects = self.root / "objects"
        self._quarantine = self.root / "quarantine"
        with _unavailable():
            for folder in (self._incoming, self._objects, self._quarantine):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _sync_folder(self.root)

    def temporary(self) -> Path:
        """Return a new path for a file that is still arriving; the file does not exist yet."""
        return self._incoming / f"{os.getpid()}-{uuid.uuid4().hex}.part"

    def path(self, sha256: str) -> Path:
        """Return where the object of this hash lies, or would lie. Refuses `bad-object-name`."""
        if SHA256.fullmatch(sha256) is None:
            raise Refused("bad-object-name", "An object is named by 64 lower-case hexadecimal digits.")
        return self._objects / sha256[:2] / f"{sha256}.dcm"

    def put(self, data: bytes) -> Kept:
        """Keep `data`. Raises Unavailable, and then nothing is left behind."""
        temporary = self.temporary()
        try:
            with _unavailable():
                temporary.write_bytes(data)
            return self.keep(temporary)
        finally:
            _remove(temporary)

    def keep(self, temporary: Path) -> Kept:
        """Give the file its final name; when this returns, file and name are on disk.

        Order: fsync(file), link, fsync(folder), and fsync of the folder's parent when it is new. The same
        bytes twice are one object. Raises Unavailable on a full or failing disk; then the temporary file is
        removed and no partial object is ever visible.
        """
        try:
            with _unavailable():
                sha256, size_bytes = _hash_and_sync(temporary)
                target = self.path(sha256)
                self._make_folder(target.parent)
                _name(temporary, target, size_bytes)
                _sync_folder(target.parent)
                return Kept(sha256=sha256, size_bytes=size_bytes, path=target)
        finally:
            _remove(temporary)

    def quarantine(self, temporary: Path, reason: str) -> Path:
        """Put a file aside that was not accepted, with its reason beside it, and return where it lies.

        Raises Unavailable when even that fails; then the file is gone.
        """
        try:
            with _unavailable():
                sha256, size_bytes = _hash_and_sync(temporary)
                target = self._quarantine / f"{sha256}.dcm"
                _name(temporary, target, size_bytes)
                target.with_suffix(".json").write_text(
                    json.dumps({"sha256": sha256, "reason": reason}) + "\n"
                )
                _sync_folder(self._quarantine)
                return target
        finally:
            _remove(temporary)

    def sweep(self) -> int:
        """Delete the temporaries of an earlier run and return how many there were; for start-up only.

        Those of another process that runs on this machine are left to it: it may be receiving into them.
        """
        count = 0
        with _unavailable():
            for left in self.abandoned():
                left.unlink(missing_ok=True)
                count += 1
            _sync_folder(self._incoming)
        return count

    def abandoned(self) -> list[Path]:
        """Return the temporaries that no other process of this machine is receiving into."""
        with _unavailable():
            return [left for left in self._incoming.iterdir() if not _has_maker(left.name.partition("-")[0])]

    def free_bytes(self) -> int:
        """Return the free space of the disk that the objects are on."""
        with _unavailable():
            state = os.statvfs(self.root)
        return state.f_bavail * state.f_frsize

    def names(self) -> Iterator[str]:
        """Give the hash of every object on disk, in no order."""
        with _unavailable():
            for path in self._objects.glob("[0-9a-f][0-9a-f]/*.dcm"):
                if SHA256.fullmatch(path.stem):
                    yield path.stem

    def is_intact(self, sha256: str) -> bool:
        """Return True when the object is there and its bytes still have their hash."""
        try:
            with self.path(sha256).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == sha256
        except OSError:
            return False

    def _make_folder(self, folder: Path) -> None:
        # Another thread may have made the folder and not synced its name yet; once a file is in it, it has.
        with suppress(FileExistsError):
            folder.mkdir()
            _sync_folder(folder.parent)
            return
        with os.scandir(folder) as entries:
            is_empty = next(entries, None) is None
        if is_empty:
            _sync_folder(folder.parent)


def orphans(session: Session, objects: ObjectStore) -> list[str]:
    """Return the hashes of objects on disk that no row names: kept, then never acknowledged."""
    return sorted(set(objects.names()) - _named(session))


def missing(session: Session, objects: ObjectStore) -> list[str]:
    """Return the hashes that a row names and no object has: a loss, to be told to a person."""
    return sorted(sha256 for sha256 in _named(session) if not objects.path(sha256).is_file())


def _named(session: Session) -> set[str]:
    instances = session.exec(select(col(Instance.sha256)).distinct())
    return set(instances) | set(session.exec(select(col(Result.sha256)).distinct()))


def _hash_and_sync(path: Path) -> tuple[str, int]:
    digest = hashlib.sha256()
    size_bytes = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            size_bytes += len(chunk)
        os.fchmod(file.fileno(), 0o440)
        os.fsync(file.fileno())
    return digest.hexdigest(), size_bytes


def _name(temporary: Path, target: Path, size_bytes: int) -> None:
    try:
        os.link(temporary, target)
    except FileExistsError:
        # Equal hash is equal bytes, unless something outside truncated the file: then this heals it.
        if target.stat().st_size != size_bytes:
            os.replace(temporary, target)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        os.replace(temporary, target)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _has_maker(maker: str) -> bool:
    return maker != str(os.getpid()) and maker.isdecimal() and _runs(int(maker))


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
def _unavailable() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        raise Unavailable(
            f"The object store cannot be written or read ({reason}); free or mend the disk."
        ) from error


__all__ = ["Kept", "ObjectStore", "missing", "orphans"]
