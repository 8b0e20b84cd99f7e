"""A file or a folder sent to a DICOM peer, as the command line does it."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from node.address import parse_destination
from node.scu import Sent, send_files
from plugins.errors import Refused, Unavailable
from store.part10 import split
from store.walk import all_files_under

MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"


def send_folder(
    path: Path, to: str, *, calling_ae: str, associations: int, tls: ssl.SSLContext | None = None
) -> dict[str, Any]:
    """Return how many files were `sent`, those that `failed` (file, status, reason), and those `passed_over`.

    In a folder, what is not DICOM and the media's directory are passed over. Refuses `bad-destination`,
    `bad-ae-title`, `no-such-path`, `closed-folder`, `no-dicom` and what `send_files` refuses; raises Unavailable.
    """
    ae_title, host, port = _peer(to)
    if not calling_ae.strip() or len(calling_ae) > 16 or not calling_ae.isascii() or "\\" in calling_ae:
        raise Refused("bad-ae-title", f"'{calling_ae}' is no AE title: 1 to 16 letters without a backslash")
    files, passed_over = _files(path)
    sent = send_files(
        files,
        ae_title=ae_title,
        host=host,
        port=port,
        calling_ae=calling_ae,
        associations=associations,
        tls=tls,
    )
    return {
        "sent": sum(s.ok for s in sent),
        "failed": [_failed(s) for s in sent if not s.ok],
        "passed_over": [str(p) for p in passed_over],
    }


def _peer(to: str) -> tuple[str, str, int]:
    try:
        target = parse_destination(to)
    except ValueError as error:
        raise Refused("bad-destination", f"'{to}' is no DICOM peer: write AE@host:port") from error
    if isinstance(target, str):
        raise Refused("bad-destination", f"'{to}' is a URL; send speaks C-STORE: write AE@host:port")
    return target


def _files(path: Path) -> tuple[list[Path], list[Path]]:
    """Return the files to send, and those to pass over."""
    if not path.exists():
        raise Refused("no-such-path", f"{path} does not exist")
    if not path.is_dir():
        if not _is_instance(path):
            raise Refused("no-dicom", f"{path} is no DICOM file with an instance in it")
        return [path], []
    files: list[Path] = []
    others: list[Path] = []
    for file in all_files_under(path):
        (files if _is_instance(file) else others).append(file)
    if not files:
        raise Refused("no-dicom", f"{path} holds no DICOM file")
    return files, others


def _is_instance(path: Path) -> bool:
    """Tell instances from other files; one that begins like DICOM and is broken counts, so that it is told."""
    try:
        meta, _ = split(path)
    except Refused as refusal:
        return refusal.code != "not-part10"
    except Unavailable:
        return True
    return str(meta.get("MediaStorageSOPClassUID", "")) != MEDIA_DIRECTORY


def _failed(sent: Sent) -> dict[str, Any]:
    status = None if sent.status is None else f"0x{sent.status:04X}"
    reason = ": ".join(part for part in (status and f"status {status}", sent.text) if part)
    return {
        "file": str(sent.path),
        "sop_instance_uid": sent.sop_instance_uid,
        "status": status,
        "reason": reason or "no answer",
    }
