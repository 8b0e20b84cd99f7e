"""The invariants that need the disk: what lies in the store's folders, beside what the rows say of it.

`named` is read in one short transaction; everything else reads files only, for as long as it takes.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select
from sqlmodel import Session, col

from plugins.errors import Refused
from store.file_hash import has_hash, is_hash, sha256_of
from store.fsck.fault import NOT_OURS, REPAIR, RESTORE, Fault, shown, unreadable
from store.objects import TEMPORARY, ObjectStore
from store.part10 import scan_header
from store.tables import Instance, Result, Series, Study

YOUNG_SECONDS = 600.0
QUARANTINED = re.compile(r"([0-9a-f]{64})\.(dcm|json)")
FOLDERS = ("incoming", "objects", "quarantine", "ready")
FOLDER_MODE, OBJECT_MODE = 0o750, 0o440
"""What folders of the store, and objects in it, may allow at most."""


@dataclass(frozen=True, kw_only=True)
class Named:
    """An object that a row names."""

    subject: str
    """The row, as `instance 7` or `result 7`."""
    sha256: str
    """Its hash by the row."""
    size_bytes: int
    """Its length by the row."""
    sop_instance_uid: str
    """Its SOP Instance UID by the row."""
    study_instance_uid: str
    """Its study by the row; empty for a result."""
    source: str
    """Where it came from; empty for a result."""


def named(session: Session) -> dict[str, Named]:
    """Return every object that an instance or a result names, by sha256."""
    results = select(col(Result.id), col(Result.sha256), col(Result.size_bytes), col(Result.sop_instance_uid))
    found = {
        sha256: Named(
            subject=f"result {pk}",
            sha256=sha256,
            size_bytes=size,
            sop_instance_uid=uid,
            study_instance_uid="",
            source="",
        )
        for pk, sha256, size, uid in session.execute(results)
    }
    instances = (
        select(
            col(Instance.id),
            col(Instance.sha256),
            col(Instance.size_bytes),
            col(Instance.sop_instance_uid),
            col(Study.study_instance_uid),
            col(Instance.source),
        )
        .join(Series, col(Series.id) == col(Instance.series_pk))
        .join(Study, col(Study.id) == col(Series.study_pk))
    )
    for pk, sha256, size, uid, study, source in session.execute(instances):
        found[sha256] = Named(
            subject=f"instance {pk}",
            sha256=sha256,
            size_bytes=size,
            sop_instance_uid=uid,
            study_instance_uid=study,
            source=source,
        )
    return found


def check_files(
    objects: ObjectStore, held: Mapping[str, Named], *, now: float, quick: bool = False
) -> Iterator[Fault]:
    """Give every fault of the store's folders; `now` is a POSIX time.

    `quick` reads an object's bytes only where its length is not that of its row, or where it is not in its place.
    """
    for one in held.values():
        yield from _object(objects, one, quick=quick)
    yield from _unknown(objects.root, frozenset(FOLDERS), "", of_folders=True)
    for name in FOLDERS:
        mode = (objects.root / name).lstat().st_mode
        if stat.S_ISDIR(mode) and mode & 0o777 & ~FOLDER_MODE:
            yield _mode(name, mode, FOLDER_MODE)
    yield from _readable(objects.root, "incoming", _incoming(objects, now))
    yield from _readable(objects.root, "objects", _objects(objects, held, now))
    yield from _readable(objects.root, "quarantine", _quarantine(objects, held, quick=quick))


def _readable(root: Path, subject: str, faults: Iterator[Fault]) -> Iterator[Fault]:
    """Give the faults of a folder, or only that it cannot be read or entered; other folders are looked at then."""
    try:
        if not os.access(root / subject, os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(root / subject))
        yield from faults
    except OSError as error:
        yield unreadable(subject, error)


def _object(objects: ObjectStore, one: Named, *, quick: bool) -> Iterator[Fault]:
    """I1, and of an instance that it is what its row says."""
    if not is_hash(one.sha256):
        yield _nameless(one)
        return
    path = objects.path(one.sha256)
    again = f"send it again from {one.source}" if one.source else "restore the store from a copy"
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):
            raise FileNotFoundError(errno.ENOENT, "it is no file", str(path))  # which is told by its name
        size = state.st_size
        is_whole = (quick and size == one.size_bytes) or sha256_of(path) == one.sha256
    except PermissionError as error:
        if os.access(path.parent, os.X_OK):  # otherwise its folder is told of once
            yield unreadable(one.sha256, error)
        return
    except (FileNotFoundError, NotADirectoryError):
        is_aside = has_hash(objects.root / "quarantine" / path.name, one.sha256)
        sentence = f"The bytes of {one.subject} are not there."
        yield _broken(one, "object-missing", sentence, REPAIR if is_aside else again)
        return
    except OSError as error:
        yield unreadable(one.sha256, error)
        return
    if not is_whole:
        sentence = f"The bytes of {one.subject} are not those that were acknowledged."
        yield _broken(one, "object-damaged", sentence, again)
        return
    if size != one.size_bytes:
        sentence = (
            f"The row of {one.subject} says {one.size_bytes} bytes; the object is whole and has {size}."
        )
        yield _broken(one, "row-size", sentence, REPAIR, invariant="ledger")
    if not quick:
        yield from _header(path, one, again)


def _header(path: Path, one: Named, again: str) -> Iterator[Fault]:
    """I6 of one object: it is the instance, of the study, that its row says."""
    try:
        header = scan_header(path)
    except Refused as refused:
        sentence = f"The header of {one.subject} cannot be read ({refused.code})."
        yield _broken(one, "header-unreadable", sentence, again)
        return
    same_study = one.study_instance_uid in ("", header.study_instance_uid)
    if header.sop_instance_uid != one.sop_instance_uid or not same_study:
        sentence = f"The bytes are of another instance or study than {one.subject} says."
        yield _broken(one, "row-of-another-object", sentence, RESTORE, invariant="I6")


def _nameless(one: Named) -> Fault:
    return Fault(
        invariant="I1",
        code="row-without-hash",
        subject=one.subject,
        sentence=f"What the row of {one.subject} says is its hash is none: which bytes are its own is not known.",
        todo=RESTORE,
    )


def _broken(one: Named, code: str, sentence: str, todo: str, *, invariant: str = "I1") -> Fault:
    return Fault(invariant=invariant, code=code, subject=one.sha256, sentence=sentence, todo=todo)


def _unknown(
    folder: Path, known: frozenset[str] | re.Pattern[str], below: str, *, of_folders: bool = False
) -> Iterator[Fault]:
    """I4: in a folder lie plain files or folders of ours, under names of ours."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            is_known = (
                known.fullmatch(entry.name) is not None
                if isinstance(known, re.Pattern)
                else entry.name in known
            )
            is_of_kind = (entry.is_dir if of_folders else entry.is_file)(follow_symlinks=False)
            if not (is_known and is_of_kind):
                kind = "A link" if entry.is_symlink() else "Something"
                if is_known and not entry.is_symlink():
                    kind = f"Something that is no {'folder' if of_folders else 'file'} and"
                yield Fault(
                    invariant="I4",
                    code="link" if entry.is_symlink() else "unknown-file",
                    subject=shown(f"{below}{entry.name}"),
                    sentence=f"{kind} that the node did not make lies in its store.",
                    todo=NOT_OURS,
                )


def _mode(subject: str, mode: int, most: int) -> Fault:
    sentence = f"The mode {stat.S_IMODE(mode):04o} allows more than {most:04o}."
    return Fault(invariant="I4", code="wrong-mode", subject=subject, sentence=sentence, todo=REPAIR)


def _incoming(objects: ObjectStore, now: float) -> Iterator[Fault]:
    yield from _unknown(objects.root / "incoming", TEMPORARY, "incoming/")
    for path in objects.abandoned():
        if TEMPORARY.fullmatch(path.name) and _is_file(path):
            yield Fault(
                invariant="disk",
                code="dead-temporary",
                subject=f"incoming/{path.name}",
                sentence="A process ended while it was receiving; nobody was told that this was kept.",
                todo=REPAIR,
                young=_is_young(path, now),
            )


def _objects(objects: ObjectStore, held: Mapping[str, Named], now: float) -> Iterator[Fault]:
    yield from _unknown(objects.root / "objects", re.compile("[0-9a-f]{2}"), "objects/", of_folders=True)
    for folder in sorted((objects.root / "objects").iterdir()):
        # is_dir() would answer False, from Python 3.14 on, for what may not be looked at.
        if stat.S_ISDIR(folder.lstat().st_mode):
            yield from _readable(objects.root, f"objects/{folder.name}", _objects_of(folder, held, now))


def _objects_of(folder: Path, held: Mapping[str, Named], now: float) -> Iterator[Fault]:
    ours = re.compile(rf"{re.escape(folder.name)}[0-9a-f]{{62}}\.dcm")
    yield from _unknown(folder, ours, f"objects/{folder.name}/")
    for path in sorted(folder.glob("*.dcm")):
        mode = path.lstat().st_mode
        if not (stat.S_ISREG(mode) and ours.fullmatch(path.name)):
            continue
        if mode & 0o777 & ~OBJECT_MODE:
            yield _mode(f"objects/{folder.name}/{path.name}", mode, OBJECT_MODE)
        if path.stem not in held:
            yield Fault(
                invariant="disk",
                code="orphan",
                subject=path.stem,
                sentence="An object is on disk and no row names it: kept, and then never acknowledged.",
                todo=REPAIR,
                young=_is_young(path, now),
            )


def _quarantine(objects: ObjectStore, held: Mapping[str, Named], *, quick: bool) -> Iterator[Fault]:
    folder = objects.root / "quarantine"
    yield from _unknown(folder, QUARANTINED, "quarantine/")
    names = {path.name for path in folder.iterdir() if QUARANTINED.fullmatch(path.name) and _is_file(path)}
    for name in sorted(names):
        sha256, kind = name.split(".")
        if kind == "json":
            if f"{sha256}.dcm" not in names:
                sentence = "A reason is in quarantine without the file that it speaks of."
                yield _aside("reason-without-file", sha256, sentence)
            continue
        if f"{sha256}.json" not in names:
            yield _aside("no-reason", sha256, "A file is in quarantine and nobody said why.")
        if sha256 in held and os.path.isfile(objects.path(sha256)):
            yield Fault(
                invariant="I5",
                code="kept-and-quarantined",
                subject=sha256,
                sentence=f"The object of {held[sha256].subject} is in quarantine too.",
                todo=REPAIR,
            )
        if not quick:
            yield from _set_aside(folder / name, sha256)


def _set_aside(path: Path, sha256: str) -> Iterator[Fault]:
    """Give a fault when a file in quarantine cannot be read or is not what its name says."""
    try:
        if sha256_of(path) != sha256:
            yield Fault(
                invariant="disk",
                code="quarantine-damaged",
                subject=sha256,
                sentence="A file in quarantine has other bytes than its name says.",
                todo=f"delete quarantine/{sha256}.dcm and .json; if it is wanted, send the object again",
            )
    except FileNotFoundError:
        pass  # a live node took it out meanwhile
    except OSError as error:
        yield unreadable(f"quarantine/{path.name}", error)


def _aside(code: str, subject: str, sentence: str) -> Fault:
    return Fault(invariant="disk", code=code, subject=subject, sentence=sentence, todo=REPAIR, young=True)


def _is_file(path: Path) -> bool:
    """Return True for a file that is there, False for a folder, a link or a pipe under its name."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def _is_young(path: Path, now: float) -> bool:
    """Return True for a file whose name or bytes changed lately, or that is gone by now."""
    try:
        return now - path.lstat().st_ctime < YOUNG_SECONDS
    except OSError:
        return True


__all__ = ["Named", "check_files", "named"]
