"""The one door for bytes: whatever comes in, by C-STORE, DICOMweb or from a folder, is kept and recorded here.

When `take` returns, the bytes and their row are on disk for good. An identical resend changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from node.logs import line
from node.status import UID_MISMATCH
from plugins.errors import Refused, Unavailable
from store.database import Database
from store.instances import Recorded, record
from store.objects import ObjectStore
from store.part10 import Header, normalise, scan_header, write_preamble
from store.priors import Coming
from store.tables import Event

log = logging.getLogger(__name__)


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

    def take(
        self,
        path: Path,
        *,
        source: str,
        association_pk: int | None = None,
        expected: tuple[str, str] | None = None,
        coming: Coming = "sent",
    ) -> Recorded:
        """Return what was recorded for the Part 10 file at `path`, once its bytes and its row are durable.

        `path` is a temporary file on the store's filesystem; it is gone afterwards, whatever happens. `expected`
        is the (SOP Class UID, SOP Instance UID) that the sender's command announced; `coming` says whether somebody
        sent it or it comes because this node asked for a patient's earlier studies.
        Refuses what is no readable DICOM object (its bytes go to quarantine) and `uid-mismatch`.
        Raises Unavailable when disk or database cannot take it; then the sender has to send it again.
        """
        try:
            header = self._scan(path, source)
            if expected is not None and expected != (header.sop_class_uid, header.sop_instance_uid):
                sentence = "the data set holds another SOP class or instance than the command announced"
                raise self.quarantine(path, source, Refused(UID_MISMATCH, sentence))
            kept = self.objects.keep(self._normal(path, header))
            now = self._clock()
            try:
                with self.database.transaction() as session:
                    recorded = record(
                        session,
                        header,
                        kept,
                        source=source,
                        now=now,
                        association_pk=association_pk,
                        coming=coming,
                    )
            except Refused as refused:
                raise self.quarantine(kept.path, source, refused) from None
            log.debug(
                line("stored", outcome=recorded.outcome, instance=recorded.instance_pk, sha=kept.sha256[:12])
            )
            return recorded
        finally:
            path.unlink(missing_ok=True)

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
        except Unavailable:
            log.warning(line("quarantine-failed", code=refused.code))
        return refused

    def _scan(self, path: Path, source: str) -> Header:
        try:
            return scan_header(path)
        except Refused as refused:
            raise self.quarantine(path, source, refused) from None

    def _normal(self, path: Path, header: Header) -> Path:
        """Return the file with our own file meta: the same file when it has it, as those of the listener do."""
        ours = write_preamble(header.sop_class_uid, header.sop_instance_uid, header.transfer_syntax_uid)
        try:
            with path.open("rb") as file:
                if file.read(len(ours)) == ours:
                    return path
            normal = self.objects.temporary()
            try:
                normalise(path, normal)
            except BaseException:
                normal.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise Unavailable("the object cannot be written; free or mend the disk") from error
        return normal
