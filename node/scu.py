"""Sends DICOM files as they lie on disk: the same bytes, in their own transfer syntax, each answer kept."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pynetdicom import _config, build_context
from pynetdicom.association import Association

from node.logs import line
from node.requestor import SendingAE, rejection_of, what_to_ask, why_failed
from node.status import SOP_CLASS_NOT_SUPPORTED, is_stored
from plugins.errors import Refused, Unavailable
from store.dicom.reencode import UNCOMPRESSED, reencode
from store.part10 import split

log = logging.getLogger(__name__)

VERIFICATION = "1.2.840.10008.1.1"
LARGEST_CONTEXTS = 128
TRANSIENT = 0x02


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """How long a peer may take, seconds."""

    connect: float = 10.0
    """To accept the TCP connection."""
    associate: float = 10.0
    """To answer an association request or release."""
    answer: float = 60.0
    """To answer one message."""


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What became of one file."""

    path: Path
    """The file."""
    sop_instance_uid: str
    """Its SOP Instance UID, from the file meta; empty when it is no DICOM file."""
    status: int | None
    """Status of the C-STORE response; None when none came: the peer may or may not hold the object."""
    text: str = ""
    """ErrorComment of the response, or what went wrong."""

    @property
    def ok(self) -> bool:
        """Return True when the peer holds it, with or without a warning (`node.status.is_stored`)."""
        return self.status is not None and is_stored(self.status)


@dataclass(frozen=True, kw_only=True)
class Reencoding:
    """In which encodings an uncompressed object may be sent, whatever its file is in."""

    transfer_syntaxes: tuple[str, ...]
    """Transfer Syntax UIDs, the best first; the file's own is not among them by itself."""
    temporary: Callable[[], Path]
    """Gives a path for a file that lives as long as it is sent."""


@dataclass(frozen=True, kw_only=True)
class _Item:
    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    syntaxes: tuple[str, ...]

    @property
    def contexts(self) -> tuple[tuple[str, str], ...]:
        return tuple((self.sop_class_uid, syntax) for syntax in self.syntaxes)


def echo(
    *,
    ae_title: str,
    host: str,
    port: int,
    calling_ae: str = "NADIR",
    timeouts: Timeouts | None = None,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Ask a peer whether it is there, by TLS when a context is given.

    Raises Unavailable when it is not there; refuses `association-rejected`.
    """
    association = associate(
        [(VERIFICATION, None)], ae_title, host, port, calling_ae, timeouts or Timeouts(), tls
    )
    try:
        status = association.send_c_echo().get("Status")
    finally:
        release(association)
    if status != 0x0000:
        raise Unavailable(f"{ae_title}@{host}:{port} did not answer C-ECHO with success")


def send_files(
    paths: Sequence[Path],
    *,
    ae_title: str,
    host: str,
    port: int,
    calling_ae: str = "NADIR",
    on_progress: Callable[[Sent], None] | None = None,
    associations: int = 1,
    timeouts: Timeouts | None = None,
    tls: ssl.SSLContext | None = None,
    reencoding: Reencoding | None = None,
) -> tuple[Sent, ...]:
    """Return what became of each file, in the order given.

    Every (SOP class, transfer syntax) is proposed as it is in the files; nothing is decoded, and nothing converted
    but what `reencoding` allows. With
    more than one association, files are dealt out in turn and `on_progress` is called from several threads.
    With a TLS context the peer is called by TLS only.
    Refuses `association-rejected` when the peer does so for good. Raises Unavailable when it cannot be reached;
    once one file was answered, later trouble is told in the `Sent` of the files it befell.
    """
    sender = _Sender(ae_title, host, port, calling_ae, timeouts or Timeouts(), on_progress, tls, reencoding)
    results: dict[int, Sent] = {}
    items: list[tuple[int, _Item]] = []
    for index, path in enumerate(paths):
        try:
            items.append((index, _item(path, reencoding)))
        except (Refused, Unavailable) as error:
            results[index] = sender.told(Sent(path=path, sop_instance_uid="", status=None, text=str(error)))
    hands = [items[start::associations] for start in range(max(1, associations))]
    with ThreadPoolExecutor(max_workers=len(hands)) as pool:
        for hand in pool.map(sender.send, [hand for hand in hands if hand]):
            results.update(hand)
    return tuple(results[index] for index in range(len(paths)))


def _item(path: Path, reencoding: Reencoding | None) -> _Item:
    meta, _ = split(path)
    values = [
        str(meta.get(keyword) or "")
        for keyword in ("MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "TransferSyntaxUID")
    ]
    if not all(values):
        raise Refused("incomplete-file-meta", "the file meta does not name SOP class, instance and syntax")
    own = values[2]
    return _Item(
        path=path,
        sop_class_uid=values[0],
        sop_instance_uid=values[1],
        transfer_syntax_uid=own,
        syntaxes=reencoding.transfer_syntaxes if reencoding and own in UNCOMPRESSED else (own,),
    )


class _Sender:
    def __init__(
        self,
        ae_title: str,
        host: str,
        port: int,
        calling_ae: str,
        timeouts: Timeouts,
        on_progress: Callable[[Sent], None] | None,
        tls: ssl.SSLContext | None,
        reencoding: Reencoding | None,
    ) -> None:
        self._peer = (ae_title, host, port, calling_ae, timeouts, tls)
        self._on_progress = on_progress
        self._reencoding = reencoding

    def told(self, sent: Sent) -> Sent:
        if self._on_progress is not None:
            self._on_progress(sent)
        return sent

    def send(self, items: Sequence[tuple[int, _Item]]) -> dict[int, Sent]:
        results: dict[int, Sent] = {}
        for group in _groups(items):
            left = list(group)
            while left:
                before = len(left)
                try:
                    self._send_some(left, results)
                except (Unavailable, Refused) as error:
                    if not results:
                        raise
                    self._give_up(left, results, str(error))
                if left and len(left) == before:
                    self._give_up(left, results, "the association ended")
        return results

    def _send_some(self, left: list[tuple[int, _Item]], results: dict[int, Sent]) -> None:
        """Send from the front of `left` until it is empty or the association has ended."""
        contexts = list(dict.fromkeys(context for _, item in left for context in item.contexts))
        association = associate([*contexts], *self._peer)
        accepted = {
            (str(c.abstract_syntax), str(c.transfer_syntax[0]))
            for c in association.accepted_contexts
            if c.as_scu
        }
        try:
            while left and association.is_established:
                index, item = left.pop(0)
                results[index] = self.told(self._store(association, item, accepted))
                if results[index].status is None:
                    break  # without an answer the association is of no more use
        finally:
            release(association)

    def _store(self, association: Association, item: _Item, accepted: set[tuple[str, str]]) -> Sent:
        syntax = next((s for s in item.syntaxes if (item.sop_class_uid, s) in accepted), None)
        if syntax is None:
            text = "the peer accepts no such SOP class in a transfer syntax that the file can have"
            return Sent(
                path=item.path,
                sop_instance_uid=item.sop_instance_uid,
                status=SOP_CLASS_NOT_SUPPORTED,
                text=text,
            )
        if syntax == item.transfer_syntax_uid or self._reencoding is None:
            return _store(association, item, item.path)
        out = self._reencoding.temporary()
        try:
            return _store(association, item, reencode(item.path, syntax, out))
        finally:
            out.unlink(missing_ok=True)

    def _give_up(self, left: list[tuple[int, _Item]], results: dict[int, Sent], text: str) -> None:
        for index, item in left:
            results[index] = self.told(
                Sent(path=item.path, sop_instance_uid=item.sop_instance_uid, status=None, text=text)
            )
        left.clear()


def _groups(items: Sequence[tuple[int, _Item]]) -> Iterator[list[tuple[int, _Item]]]:
    """Give the items in groups that one association has contexts for."""
    group: list[tuple[int, _Item]] = []
    contexts: set[tuple[str, str]] = set()
    for index, item in items:
        if len(contexts.union(item.contexts)) > LARGEST_CONTEXTS:
            yield group
            group, contexts = [], set()
        contexts.update(item.contexts)
        group.append((index, item))
    if group:
        yield group


def _store(association: Association, item: _Item, path: Path) -> Sent:
    # Process-wide in pynetdicom, and right for all of it: a path is sent as the bytes that lie there.
    _config.STORE_SEND_CHUNKED_DATASET = True
    try:
        answer = association.send_c_store(path)
    except (OSError, ValueError, RuntimeError, AttributeError) as error:
        log.warning(line("not-sent", error=type(error).__name__))
        return Sent(
            path=item.path, sop_instance_uid=item.sop_instance_uid, status=None, text=type(error).__name__
        )
    status = answer.get("Status")
    text = str(answer.get("ErrorComment") or "") if status is not None else "no answer"
    return Sent(
        path=item.path,
        sop_instance_uid=item.sop_instance_uid,
        status=None if status is None else int(status),
        text=text,
    )


def associate(
    contexts: Sequence[tuple[str, str | None]],
    ae_title: str,
    host: str,
    port: int,
    calling_ae: str,
    timeouts: Timeouts,
    tls: ssl.SSLContext | None = None,
    handlers: Sequence[tuple[Any, ...]] = (),
    ext_neg: Sequence[Any] = (),
) -> Association:
    """Return an association that offers (SOP class, transfer syntax), all usual ones when that is None.

    Raises Unavailable when the peer cannot be reached or rejects for now; refuses `association-rejected`.
    """
    ae = SendingAE(calling_ae)
    ae.connection_timeout = timeouts.connect
    ae.acse_timeout = timeouts.associate
    ae.dimse_timeout = ae.network_timeout = timeouts.answer
    proposed = [build_context(uid, syntax) if syntax else build_context(uid) for uid, syntax in contexts]
    where = f"{ae_title}@{host}:{port}"
    try:
        association = ae.associate(
            host,
            port,
            contexts=proposed,
            ae_title=ae_title,
            tls_args=(tls, host) if tls else None,
            evt_handlers=list(handlers),
            ext_neg=list(ext_neg),
        )
    except (OSError, RuntimeError) as error:
        raise Unavailable(f"{where} cannot be reached: {error}") from error
    if not association.is_established:
        _tell_why(association, where, by_tls=tls is not None)
    return association


def _tell_why(association: Association, where: str, *, by_tls: bool) -> NoReturn:
    """Raise what `associate` raises of an association that was not established."""
    rejection = rejection_of(association)
    if rejection is not None and rejection.result != TRANSIENT:
        raise Refused("association-rejected", f"{where} rejected the association: {rejection.reason_str}")
    if rejection is not None:
        raise Unavailable(f"{where} rejected the association for now: {rejection.reason_str}")
    if (
        association.is_aborted
        and association.acceptor.primitive is not None
        and not association.accepted_contexts
    ):
        raise Refused(
            "association-rejected", f"{where} accepts none of the SOP classes and transfer syntaxes"
        )
    why = why_failed(association)
    hint = what_to_ask(association, by_tls=by_tls)
    raise Unavailable(f"{where} cannot be reached{': ' if why else ''}{why}{hint}")


def release(association: Association) -> None:
    """End an association in order, if it has not ended."""
    if association.is_established:
        association.release()
    association.join(5.0)
