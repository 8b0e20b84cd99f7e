"""The PACS over DIMSE (PS3.4 Annex C): what it holds (C-FIND), its bytes to us (C-GET) or to our port (C-MOVE).

Study Root information model. Every answer has a deadline, every operation must make progress, and no answer is taken
for more than it says: rows are counted, whose they are is judged by who asked.
"""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from pydicom.dataset import Dataset
from pynetdicom import build_context, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.presentation import PresentationContext

from node.contexts import TRANSFER_SYNTAXES
from node.find import FIND, LONGEST_SECONDS, Endless, find
from node.logs import line
from node.pacs import UID, HeldInstance, HeldSeries, PatientStudy, matching, plain
from node.retrieve_association import Called, associate, end
from node.spool import Spool
from node.status import (
    NO_SUCH_INSTANCE,
    PENDING,
    PROCESSING_FAILURE,
    SOP_CLASS_NOT_SUPPORTED,
    SUCCESS,
    status_of,
)
from plugins.errors import NadirError, Refused, Unavailable
from store.part10 import write_preamble

log = logging.getLogger(__name__)

MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
GET = "1.2.840.10008.5.1.4.1.2.2.3"
MODELS = TRANSFER_SYNTAXES[:2]
NOT_OFFERED = frozenset({NO_SUCH_INSTANCE, SOP_CLASS_NOT_SUPPORTED, 0x0211})
CANCELLED = 0xFE00
SOME_FAILED = 0xB000
MOST_CONTEXTS = 126
SYNTAXES = (
    *(TRANSFER_SYNTAXES[1], TRANSFER_SYNTAXES[0]),
    *(f"1.2.840.10008.1.2.{end}" for end in ("4.70", "4.57", "4.80", "4.81", "4.90", "4.91", "5")),
    *(f"1.2.840.10008.1.2.{end}" for end in ("4.50", "4.51", "4.201", "4.202", "4.203", "2")),
)
UIDS_AT_ONCE = 200
STORAGE = "1.2.840.10008.5.1.4.1.1."
CLASSES = {
    "CT": (f"{STORAGE}2", f"{STORAGE}2.1", f"{STORAGE}2.2"),
    "MR": (f"{STORAGE}4", f"{STORAGE}4.1", f"{STORAGE}4.4"),
    "PT": (f"{STORAGE}128", f"{STORAGE}130", f"{STORAGE}128.1"),
    "SEG": (f"{STORAGE}66.4", f"{STORAGE}66.7"),
    "SR": (f"{STORAGE}88.11", f"{STORAGE}88.22", f"{STORAGE}88.33", f"{STORAGE}88.34"),
    "RTSTRUCT": (f"{STORAGE}481.3",),
}


class NotOffered(Refused):
    """The peer offers no such service."""

    def __init__(self, peer: str, service: str) -> None:
        super().__init__("not-offered", f"{peer} offers no {service}")


class Unfinished(Unavailable):
    """The peer ended the operation itself, before it was done."""


class QueryRetrieve:
    """A query/retrieve SCP.

    Parameters
    ----------
    called
        Whom to call.
    new_file, largest_bytes, free_bytes, reserve_bytes
        Where the objects of a C-GET go while they arrive, and the room there is.
    how
        ``get``, ``move``, or ``auto``: C-GET, and C-MOVE for what it did not bring.
    progress_seconds
        A retrieve that brings nothing for this long is given up, whatever the peer says meanwhile.
    find_seconds
        An answer to a query that takes longer than this is given up.

    """

    def __init__(
        self,
        called: Called,
        *,
        new_file: Callable[[], Path],
        free_bytes: Callable[[], int],
        largest_bytes: int = 8 << 30,
        reserve_bytes: int = 0,
        how: str = "auto",
        progress_seconds: float = 120.0,
        find_seconds: float = LONGEST_SECONDS,
    ) -> None:
        self.name = called.name
        self._called = called
        self._new_file = new_file
        self._room = (largest_bytes, free_bytes, reserve_bytes)
        self._how: str = how
        self._progress_seconds = progress_seconds
        self._find_seconds = find_seconds

    def close(self) -> None:
        """Do nothing: no connection outlives its operation."""

    def patient_studies(
        self, patient_id: str, since: datetime.date, until: datetime.date
    ) -> Iterator[PatientStudy]:
        """Yield the studies between two dates that the peer takes for the patient's; whose they are is not checked."""
        key = _identifier("STUDY", StudyInstanceUID="", ModalitiesInStudy="", IssuerOfPatientID="")
        if not patient_id.isascii():
            key.SpecificCharacterSet = "ISO_IR 192"
        key.PatientID = matching(patient_id)
        key.StudyDate = f"{since:%Y%m%d}-{until:%Y%m%d}"
        for row in self._find(key):
            yield PatientStudy(
                study_instance_uid=row["StudyInstanceUID"],
                patient_id=plain(row["PatientID"]),
                issuer=plain(row["IssuerOfPatientID"]),
                study_date=row["StudyDate"],
                modalities=frozenset(row["ModalitiesInStudy"].split("\\")) - {""},
            )

    def study_series(self, study_instance_uid: str) -> tuple[HeldSeries, ...]:
        """Return the series of a study."""
        key = _identifier("SERIES", StudyInstanceUID=study_instance_uid, SeriesInstanceUID="", Modality="")
        return tuple(
            HeldSeries(series_instance_uid=uid, modality=row["Modality"])
            for row in self._find(key)
            if (uid := row["SeriesInstanceUID"])
        )

    def series_instances(self, study: str, series: str) -> tuple[HeldInstance, ...]:
        """Return the instances of a series."""
        key = _identifier(
            "IMAGE", StudyInstanceUID=study, SeriesInstanceUID=series, SOPInstanceUID="", SOPClassUID=""
        )
        return tuple(
            HeldInstance(series_instance_uid=series, sop_instance_uid=uid, sop_class_uid=row["SOPClassUID"])
            for row in self._find(key)
            if (uid := row["SOPInstanceUID"])
        )

    def fetch(
        self,
        study: str,
        series: HeldSeries,
        instances: Sequence[HeldInstance],
        *,
        whole: bool,
        keep: Callable[[Path], None],
        missing: Callable[[], frozenset[str]],
    ) -> None:
        """Have instances of a series brought here: each through `keep`, or through our own port.

        `whole` asks for the series instead of its instances; `missing` says which of them are not here yet, and is
        how the arrival of objects at our port is seen. Refuses `not-offered` and `retrieve-refused`; raises
        `Unavailable`. Coming back says that the peer ended the operation, not that everything is here. A C-MOVE that
        is not to be had changes nothing in how a C-GET before it ended.
        """
        uid = series.series_instance_uid
        is_got, unfinished = False, None
        if self._how != "move":
            try:
                for key in _retrieve_keys(study, uid, instances, whole=whole):
                    self._get(key, _storage_contexts(series, instances), keep)
                is_got = True
            except (Refused, Unfinished) as error:
                if self._how == "get":
                    raise
                unfinished = error if isinstance(error, Unfinished) else None
                log.info(line("no-c-get", source=self.name, error=str(error)))
        if self._how == "get" or not (left := missing()):
            return
        wanted = [one for one in instances if one.sop_instance_uid in left]
        try:
            for key in _retrieve_keys(study, uid, wanted, whole=whole and len(wanted) == len(instances)):
                self._move(key, missing)
        except Refused as error:
            log.info(line("no-c-move", source=self.name, error=str(error)))
            if unfinished is not None:
                raise unfinished from error
            if not is_got:
                raise

    def _find(self, key: Dataset) -> list[dict[str, str]]:
        """Return the rows of an answer, of each what was asked for as text."""
        association = associate(self._called, [build_context(FIND, list(MODELS))], self._new_spool)
        keywords = [element.keyword for element in key]
        rows: list[dict[str, str]] = []
        try:
            for status, row in find(association, key, longest_seconds=self._find_seconds):
                code = _status(status, self.name, "C-FIND")
                if code not in PENDING:
                    _check_ended(code, self.name, "C-FIND")
                    return rows
                rows.append({keyword: _text(row or Dataset(), keyword) for keyword in keywords})
            raise Unavailable(f"{self.name} did not end its answer to C-FIND")
        except Endless as error:
            text = f"{self.name} answers with more rows than can be waited for"
            raise Refused("query-too-wide", text) from error
        except NadirError:
            raise
        except (
            Exception
        ) as error:  # a border: what a row holds breaks the decoder in more ways than can be listed
            raise Unavailable(
                f"{self.name} answers with what cannot be read ({type(error).__name__})"
            ) from error
        finally:
            end(association)

    def _get(self, key: Dataset, contexts: list[PresentationContext], keep: Callable[[Path], None]) -> None:
        inbox = _Inbox(keep)
        association = associate(
            self._called,
            [build_context(GET, list(MODELS)), *contexts],
            self._new_spool,
            stored=list(dict.fromkeys(str(c.abstract_syntax) for c in contexts)),
            handlers=[(evt.EVT_C_STORE, inbox.receive)],
        )
        try:
            accepted = association.accepted_contexts
            if not any(c.abstract_syntax == GET for c in accepted) or not any(c.as_scp for c in accepted):
                raise NotOffered(self.name, "C-GET of such objects")
            self._follow(association, association.send_c_get(key, GET), "C-GET", lambda: inbox.kept)
        finally:
            end(association)
            if inbox.failure is not None:
                raise inbox.failure

    def _move(self, key: Dataset, missing: Callable[[], frozenset[str]]) -> None:
        association = associate(self._called, [build_context(MOVE, list(MODELS))], self._new_spool)
        association.dimse.signs_of_life = missing
        try:
            answers = association.send_c_move(key, self._called.calling_ae, MOVE)
            self._follow(association, answers, "C-MOVE", missing)
        finally:
            end(association)

    def _follow(
        self,
        association: Association,
        answers: Iterator[tuple[Dataset, Dataset | None]],
        service: str,
        progress: Callable[[], object],
    ) -> None:
        """Follow a retrieve to its end. Raises `Unavailable` when it brings nothing for too long."""
        seen, moved_at = progress(), time.monotonic()
        try:
            for status, _ in answers:
                code = _status(status, self.name, service)
                if code not in PENDING:
                    _check_ended(code, self.name, service)
                    return
                if time.monotonic() - moved_at < self._progress_seconds:
                    continue
                now = progress()
                if now == seen:
                    _abort(association)
                    raise Unavailable(f"{self.name} says that {service} goes on, and brings nothing")
                seen, moved_at = now, time.monotonic()
        except (ValueError, RuntimeError) as error:
            raise Unavailable(f"{self.name} broke off {service} ({type(error).__name__})") from error
        raise Unavailable(f"{self.name} did not end {service}")

    def _new_spool(self, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> Spool:
        largest_bytes, free_bytes, reserve_bytes = self._room
        spool = Spool(
            self._new_file(),
            largest_bytes=largest_bytes,
            free_bytes=free_bytes,
            reserve_bytes=reserve_bytes,
            hashing=False,  # the intake does it
        )
        return spool.begin(write_preamble(sop_class_uid, sop_instance_uid, transfer_syntax_uid))


class _Inbox:
    """What a C-GET brings: each object answered only when it is kept; after trouble of ours nothing more is."""

    def __init__(self, keep: Callable[[Path], None]) -> None:
        self._keep = keep
        self.kept = 0
        self.failure: Unavailable | None = None

    def receive(self, event: Event) -> int:
        """Keep one object and return the status of the answer."""
        spool: Spool = event.request._dataset_file
        try:
            spool.close()
            if self.failure is not None:
                raise self.failure
            if spool.failure is not None:
                raise Unavailable("what the PACS sends cannot be written; free or mend the disk")
            self._keep(spool.path)
            self.kept += 1
        except Unavailable as error:
            if self.failure is None:
                self.failure = error
                with suppress(ValueError, RuntimeError):
                    event.assoc.send_c_cancel(1, query_model=GET)
            return status_of(error)
        except Exception as error:  # the border of the association: every error becomes a status
            log.warning(line("not-kept", error=type(error).__name__))
            return status_of(error)
        finally:
            event.assoc.dimse.served(spool)
        return SUCCESS


def _identifier(level: str, **keys: str) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    return identifier


def _retrieve_keys(
    study: str, series: str, instances: Sequence[HeldInstance], *, whole: bool
) -> Iterator[Dataset]:
    if whole:
        yield _identifier("SERIES", StudyInstanceUID=study, SeriesInstanceUID=series)
        return
    uids = [one.sop_instance_uid for one in instances]
    for at in range(0, len(uids), UIDS_AT_ONCE):
        key = _identifier("IMAGE", StudyInstanceUID=study, SeriesInstanceUID=series)
        key.SOPInstanceUID = uids[at : at + UIDS_AT_ONCE]
        yield key


def _storage_contexts(series: HeldSeries, instances: Sequence[HeldInstance]) -> list[PresentationContext]:
    """Return a context for each SOP class and transfer syntax: the peer may send each object as it keeps it."""
    told = dict.fromkeys(one.sop_class_uid.strip() for one in instances)
    classes = [uid for uid in told if UID.fullmatch(uid)]
    classes = classes or list(CLASSES.get(series.modality, ()))
    each = max(1, MOST_CONTEXTS // max(1, len(classes)))
    pairs = [(uid, syntax) for uid in classes for syntax in SYNTAXES[:each]]
    return [build_context(uid, syntax) for uid, syntax in pairs[:MOST_CONTEXTS]]


def _status(status: Dataset, peer: str, service: str) -> int:
    if "Status" not in status:
        raise Unavailable(f"{peer} did not answer {service}")
    return int(status.Status)


def _check_ended(code: int, peer: str, service: str) -> None:
    """Return when an operation came to its end, also when the peer says that some objects failed (they are counted)."""
    if code in (SUCCESS, SOME_FAILED):
        return
    if code in NOT_OFFERED:
        raise NotOffered(peer, service)
    if code in (CANCELLED, PROCESSING_FAILURE) or 0xA700 <= code <= 0xA702:
        raise Unfinished(f"{peer} ended {service} with 0x{code:04X}")
    raise Refused("retrieve-refused", f"{peer} refused {service} with 0x{code:04X}")


def _abort(association: Association) -> None:
    if association.is_established:
        association.abort()


def _text(row: Dataset, keyword: str) -> str:
    value = row.get(keyword)
    if value is None:
        return ""
    return value if isinstance(value, str) else "\\".join(map(str, value))


__all__ = ["Called", "NotOffered", "QueryRetrieve"]
