"""The one door for bytes: whatever comes in, by C-STORE, DICOMweb or from a folder, is kept and recorded here.

When `take` returns, the bytes and their row are on disk for good. An identical resend changes nothing. Whoever comes at
the same time shares one transaction, and nobody who is alone waits for company.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from node.logs import line
from node.status import UID_MISMATCH
from plugins.errors import Refused, Unavailable
from store.commit import Backlog, GroupCommit
from store.database import Database
from store.failpoint import reach
from store.header_forms import HeaderForms
from store.instances import Arrived, OpenAssociation, Recorded, record_all
from store.known import Known
from store.objects import Kept, ObjectStore, is_named
from store.part10 import Header, normalise, scan_header, scan_whole, write_preamble
from store.priors import Coming
from store.sequel import NoSequelError, Writer, sequels
from store.tables import Event

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Judged:
    """A file that may be kept."""

    path: Path
    header: Header
    is_ours: bool
    """Begins with our own file meta, so that it is kept as it is."""
    sha256: Callable[[], str] | None
    """Gives the hash of what will be kept; None when nobody reckons it."""
    source: str
    now: datetime
    association: OpenAssociation | None
    coming: Coming

    def arrived(self, kept: Kept) -> Arrived:
        """Return what is to be recorded."""
        return Arrived(
            header=self.header,
            kept=kept,
            source=self.source,
            now=self.now,
            association=self.association,
            coming=self.coming,
        )


class Intake:
    """Takes in DICOM objects.

    Parameters
    ----------
    database, objects
        Where rows and bytes are kept.
    clock
        Gives the present time, aware UTC; the database's own clock when not given.

    """

    def __init__(
        self, database: Database, objects: ObjectStore, *, clock: Callable[[], datetime] | None = None
    ) -> None:
        self.database = database
        self.objects = objects
        self._clock = clock or database.now
        self._known = Known()
        self._forms = HeaderForms()
        self._writer = Writer(database.engine.dialect)
        self._commit: GroupCommit[Arrived, Recorded] = GroupCommit(self._record)
        self._backlog: Backlog[Callable[[], Arrived]] = Backlog(self._record_unwatched)

    def take(
        self,
        path: Path,
        *,
        source: str,
        association: OpenAssociation | None = None,
        expected: tuple[str, str] | None = None,
        asked: str = "",
        coming: Coming = "sent",
        sha256: Callable[[], str] | None = None,
        head: bytes = b"",
        size_bytes: int = 0,
    ) -> Recorded:
        """Return what was recorded for the Part 10 file at `path`, once its bytes and its row are durable.

        `path` is a temporary file on the store's filesystem; it is gone afterwards, whatever happens. `expected`
        is the (SOP Class UID, SOP Instance UID) that the sender's command announced, `asked` the Study Instance UID of
        the study that was asked for, if one was; `coming` says whether somebody sent it or it comes because this node
        asked for a patient's earlier studies. `sha256` gives the hash of the file when somebody reckons it (asked once
        the file is on disk), `head` are its first bytes when they are known, and `size_bytes` its size then.
        Refuses what is no readable DICOM object (its bytes go to quarantine), `uid-mismatch` and `study-not-asked`.
        Raises Unavailable when disk or database cannot take it; then the sender has to send it again.
        """
        return self._recorded(
            self._arrived(
                self._judge(path, source, association, expected, coming, sha256, head, size_bytes, asked)
            )
        )

    def take_soon(
        self,
        path: Path,
        *,
        source: str,
        association: OpenAssociation | None = None,
        expected: tuple[str, str] | None = None,
        coming: Coming = "sent",
        sha256: Callable[[], str] | None = None,
        head: bytes = b"",
        size_bytes: int = 0,
    ) -> None:
        """Judge a file as `take` does, and leave its hash, name and row to a thread; for nodes that may lose it.

        Nobody else may touch the file then. What only the rows can tell (a UID of another study) is told by an event
        and by no exception.
        """
        judged = self._judge(path, source, association, expected, coming, sha256, head, size_bytes)
        self._backlog.put(lambda: self._arrived(judged))

    def finish(self) -> None:
        """Return when every row that was left to the thread is written."""
        self._backlog.finish()

    def _judge(
        self,
        path: Path,
        source: str,
        association: OpenAssociation | None,
        expected: tuple[str, str] | None,
        coming: Coming,
        sha256: Callable[[], str] | None,
        head: bytes,
        size_bytes: int,
        asked: str = "",
    ) -> _Judged:
        """Return what may be kept, once its header has been judged; the file is gone when it may not."""
        reach("after-temp-write")
        try:
            header = self._scan(path, source, head, size_bytes)
            if expected is not None and expected != (header.sop_class_uid, header.sop_instance_uid):
                sentence = "the data set holds another SOP class or instance than the command announced"
                raise self.quarantine(path, source, Refused(UID_MISMATCH, sentence))
            if asked and asked != header.study_instance_uid:
                sentence = "the object belongs to another study than was asked for"
                raise self.quarantine(path, source, Refused("study-not-asked", sentence))
            is_ours = _is_ours(path, header, head)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise Unavailable("the object cannot be read; mend the disk") from error
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return _Judged(
            path=path,
            header=header,
            is_ours=is_ours,
            sha256=sha256 if is_ours else None,
            source=source,
            now=self._clock(),
            association=association,
            coming=coming,
        )

    def _arrived(self, judged: _Judged) -> Arrived:
        """Keep a file, and return it as one whose rows are to be written; its first path is gone afterwards."""
        return judged.arrived(self._keep(judged))

    def adopt(self, sha256: str, source: str) -> Recorded | None:
        """Return what was recorded for an object that lies in the store and has no row; None when it is a result.

        It is superseded at once when other content under its SOP Instance UID came at the same time or later.
        Refuses, and puts aside, what is no readable object. Raises Unavailable.
        """
        path = self.objects.path(sha256)
        with self.objects.held(sha256):
            if not self.objects.is_intact(sha256):
                raise self.quarantine(path, source, Refused("object-damaged", "the bytes have another hash"))
            self.objects.make_sure(sha256)  # who wrote it may have been killed before that
        header = self._scan(path, source, None)
        if header.own:
            return None
        kept = Kept(sha256=sha256, size_bytes=path.stat().st_size, path=path)
        # "moved": what is still waited for as a patient's earlier study was being fetched, and is not analysed.
        arrived = Arrived(
            header=header, kept=kept, source=source, now=self._clock(), coming="moved", found_in=self.objects
        )
        return self._recorded(arrived)

    def _recorded(self, arrived: Arrived) -> Recorded:
        try:
            return self._commit.do(arrived)
        except Refused as refused:
            raise self._withdraw(arrived, refused) from None

    def _record(self, group: Sequence[Arrived]) -> Sequence[Recorded | Exception]:
        """Write the rows of a group in one transaction; what fails because of one of them is done one by one."""
        if len({one.header.sop_instance_uid for one in group}) == len(group):
            try:
                return self._transact(group)
            except Unavailable as error:
                return [error] * len(group)
            except Exception as error:  # whose fault it was is found below
                log.debug(line("group-undone", size=len(group), error=type(error).__name__))
        self._known.forget()
        return [self._alone(one) for one in group]

    def _record_unwatched(self, group: Sequence[Callable[[], Arrived]]) -> None:
        arrived = []
        for keep in group:
            try:
                arrived.append(keep())
            except Exception as error:  # a border: nobody waits for this one
                self.tell("lost", "", f"accepted and not kept: {type(error).__name__}")
        answers = self._record(arrived)
        for one, answer in zip(arrived, answers, strict=True):
            if isinstance(answer, Refused):
                self._withdraw(one, answer)
            elif isinstance(answer, Exception):
                self.tell("lost", one.kept.sha256[:12], f"accepted and not recorded: {type(answer).__name__}")

    def _alone(self, one: Arrived) -> Recorded | Exception:
        try:
            return self._transact([one])[0]
        except Exception as error:  # a border: it is raised where the object was brought
            return error

    def _transact(self, group: Sequence[Arrived]) -> Sequence[Recorded]:
        recorded = self._sequels(group)
        if recorded is None:
            recorded = self._others(group)
        reach("after-commit")
        for one, what in zip(group, recorded, strict=True):
            if one.association is not None:
                one.association.pk = what.association_pk
        return recorded

    def _sequels(self, group: Sequence[Arrived]) -> list[Recorded] | None:
        """Return what was recorded by the short way; None, and then nothing was, when it is not for this group."""
        found = sequels(group, self._known.rows)
        if found is None:
            return None
        try:
            with self.database.cursor() as cursor:
                recorded = self._writer.write(cursor, found)
                reach("before-commit")
        except NoSequelError:
            return None
        return recorded

    def _others(self, group: Sequence[Arrived]) -> list[Recorded]:
        rows = self._known.begin()
        with self.database.transaction() as session:
            recorded = record_all(session, group, rows)
            reach("before-commit")
        self._known.learn(rows)
        return recorded

    def _withdraw(self, arrived: Arrived, refused: Refused) -> Refused:
        """Put aside what was kept and then refused, unless the same bytes were accepted before."""
        with self.database.reading() as session:
            if is_named(session, arrived.kept.sha256):
                self.tell("refused", arrived.kept.sha256[:12], f"{refused.code} from {arrived.source}")
                return refused
        return self.quarantine(arrived.kept.path, arrived.source, refused)

    def tell(self, kind: str, subject: str, text: str) -> None:
        """Write an event for the administrator; the log only, when the database cannot be written."""
        log.info(line(kind, subject=subject, text=text))
        try:
            with self.database.transaction() as session:
                session.add(Event(at=self._clock(), kind=kind, subject=subject, text=text))
        except Unavailable:
            log.warning(line("event-not-written", kind=kind))

    def quarantine(self, path: Path, source: str, refused: Refused) -> Refused:
        """Put a file aside that cannot be accepted, tell why, and return the reason."""
        try:
            kept = self.objects.quarantine(path, refused.code)
            self.tell("quarantine", kept.stem[:12], f"{refused.code} from {source}")
            if gone := self.objects.bound_quarantine():
                self.tell("quarantine-full", "", f"the {gone} oldest refused files were deleted")
        except Unavailable:
            log.warning(line("quarantine-failed", code=refused.code))
        return refused

    def _scan(self, path: Path, source: str, head: bytes | None, size_bytes: int = 0) -> Header:
        """Return the header of what comes, or, without `head`, of what is held; put aside what has none."""
        try:
            if head is None:
                return scan_header(path)
            return self._forms.scan(path, head, size_bytes) if head else scan_whole(path).header
        except Refused as refused:
            raise self.quarantine(path, source, refused) from None

    def _keep(self, judged: _Judged) -> Kept:
        """Keep the file with our own file meta: the same file when it has it, as those of the listener do."""
        if judged.is_ours:
            return self.objects.keep(judged.path, judged.sha256)
        normal = self.objects.temporary()
        try:
            normalise(judged.path, normal)
        except BaseException:
            normal.unlink(missing_ok=True)
            raise
        finally:
            judged.path.unlink(missing_ok=True)
        return self.objects.keep(normal)


def _is_ours(path: Path, header: Header, head: bytes) -> bool:
    """Return True when the file begins as we would write it."""
    ours = write_preamble(header.sop_class_uid, header.sop_instance_uid, header.transfer_syntax_uid)
    if head:
        return head.startswith(ours)
    try:
        with path.open("rb") as file:
            return file.read(len(ours)) == ours
    except OSError as error:
        raise Unavailable("the object cannot be read; mend the disk") from error
