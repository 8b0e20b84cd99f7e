"""How one result travels: by C-STORE or by STOW-RS, and what came back."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from node.deliveries import EXPLICIT_LITTLE, DeliverySettings
from node.pacs import DicomWeb, Reached
from node.scu import Reencoding, Timeouts, echo, send_files
from plugins.errors import Refused, Unavailable
from store.dicom.reencode import UNCOMPRESSED, reencode
from store.part10 import split


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """One result on its way."""

    path: Path
    """Its Part 10 file."""
    sop_instance_uid: str
    """Its SOP Instance UID."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a destination said of one parcel."""

    status: int | None
    """DICOM status; None when no answer came: the destination may or may not hold it."""
    text: str = ""
    """One sentence for people, when something went wrong."""
    was_reached: bool = True
    """False when it did not even come to sending."""
    retry_after_seconds: float = 0.0
    """How long the destination asks to be left alone."""


#: Sends a parcel and gives the answer. Raises `Unavailable` or `Refused` when it did not come to sending.
Transport = Callable[[Parcel], Answer]


def dimse(
    ae_title: str,
    host: str,
    port: int,
    calling_ae: str,
    *,
    timeouts: Timeouts | None = None,
    tls: ssl.SSLContext | None = None,
    reencoding: Reencoding | None = None,
) -> Transport:
    """Return a transport by C-STORE, an association a parcel."""

    def send(parcel: Parcel) -> Answer:
        (sent,) = send_files(
            [parcel.path],
            ae_title=ae_title,
            host=host,
            port=port,
            calling_ae=calling_ae,
            timeouts=timeouts,
            tls=tls,
            reencoding=reencoding,
        )
        return Answer(status=sent.status, text=sent.text)

    return send


def stow(dicomweb: DicomWeb, reencoding: Reencoding | None = None) -> Transport:
    """Return a transport by STOW-RS. There is no negotiation: the best encoding of `reencoding` is sent."""

    def send(parcel: Parcel) -> Answer:
        meta, _ = split(parcel.path)
        own = str(meta.get("TransferSyntaxUID") or EXPLICIT_LITTLE)
        if reencoding is None or own not in UNCOMPRESSED or own == reencoding.transfer_syntaxes[0]:
            return _stored(dicomweb, parcel, parcel.path)
        out = reencoding.temporary()
        try:
            return _stored(dicomweb, parcel, reencode(parcel.path, reencoding.transfer_syntaxes[0], out))
        finally:
            out.unlink(missing_ok=True)

    return send


def _stored(dicomweb: DicomWeb, parcel: Parcel, path: Path) -> Answer:
    try:
        said = {answer.sop_instance_uid: answer.status for answer in dicomweb.store([path])}
    except Reached as error:
        return Answer(status=None, text=str(error), retry_after_seconds=error.retry_after_seconds)
    # Without an answer all was stored. What names no instance is about this one, what names others says nothing of it.
    return Answer(status=said.get(parcel.sop_instance_uid, said.get("")) if said else 0x0000)


def echoes(ae_title: str, host: str, port: int, calling_ae: str, tls: ssl.SSLContext | None) -> bool:
    """Return whether an AE takes associations again; one that refuses C-ECHO alone does."""
    try:
        echo(ae_title=ae_title, host=host, port=port, calling_ae=calling_ae, tls=tls)
    except Unavailable:
        return False
    except Refused:
        return True
    return True


def reencoding_for(settings: DeliverySettings, temporary: Callable[[], Path]) -> Reencoding:
    """Return in which encodings results may go to a destination."""
    return Reencoding(transfer_syntaxes=settings.transfer_syntaxes, temporary=temporary)


__all__ = ["Answer", "Parcel", "Transport", "dimse", "echoes", "reencoding_for", "stow"]
