"""The same object in the other uncompressed little endian encoding: values stay, and equal input gives equal bytes."""

from __future__ import annotations

from pathlib import Path

from pydicom import dcmread
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from plugins.errors import Refused

UNCOMPRESSED = frozenset({str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian)})


def reencode(path: Path, transfer_syntax_uid: str, out: Path) -> Path:
    """Return `out`, which holds the object of `path` in Explicit or Implicit VR Little Endian (PS3.5 Annex A).

    Refuses `cannot-reencode` for any other transfer syntax of either file: that would need a codec.
    """
    dataset = dcmread(path)
    own = str(dataset.file_meta.TransferSyntaxUID)
    if not {own, transfer_syntax_uid} <= UNCOMPRESSED:
        raise Refused("cannot-reencode", f"{own} cannot be written as {transfer_syntax_uid} without a codec")
    dataset.file_meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    dataset.save_as(
        out,
        implicit_vr=transfer_syntax_uid == ImplicitVRLittleEndian,
        little_endian=True,
        enforce_file_format=True,
    )
    return out


__all__ = ["UNCOMPRESSED", "reencode"]
