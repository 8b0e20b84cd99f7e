"""The DICOM files in a zip file of a server: taken out one by one, under names of ours, bounded, with checksums."""

from __future__ import annotations

import csv
import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from plugins.errors import Refused
from training.curate.wire import Busy

CHECKSUMS = "md5hashes.csv"
MAX_MEMBERS = 200_000
MAX_CHECKSUM_BYTES = 64 << 20
BLOCK_BYTES = 1 << 20
HEX = re.compile(r"[0-9a-f]{1,32}")
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, KeyError)
ENCRYPTED = 0x1


@dataclass(frozen=True, kw_only=True)
class Member:
    """One DICOM file that lies where the caller wanted it."""

    path: Path
    """The file."""
    md5: str
    """MD5 that the zip file tells of it; empty when it tells none."""


def dicom_members(archive: Path, path: Path, at_most_bytes: int) -> Iterator[Member]:
    """Yield the DICOM files of a zip file, each written to `path`, which the next one overwrites.

    The names within are looked up in the list of checksums and used for nothing else; a member that is damaged or
    no DICOM is passed over, for who knows what ought to be there sees that it is missing.
    Raises `Busy` when the zip file is damaged as a whole, and refuses `zip-bomb`.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            infos = opened.infolist()
            if len(infos) > MAX_MEMBERS or sum(info.file_size for info in infos) > at_most_bytes:
                raise Refused("zip-bomb", f"a zip file would unpack to more than {at_most_bytes} bytes")
            md5s = _checksums(opened)
            for info in infos:
                if info.is_dir() or info.flag_bits & ENCRYPTED or info.filename == CHECKSUMS:
                    continue
                if _taken_out(opened, info, path):
                    yield Member(path=path, md5=md5s.get(info.filename, ""))
    except DAMAGED as error:
        raise Busy(f"the zip file that came is damaged ({type(error).__name__})") from error


def _taken_out(opened: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> bool:
    """Return whether a member is DICOM and was written whole, which its CRC says."""
    try:
        with opened.open(info) as member, path.open("wb") as file:
            return _copied(member, file, info.file_size)
    except DAMAGED:
        return False


def _copied(member: IO[bytes], file: IO[bytes], size_bytes: int) -> bool:
    block = member.read(BLOCK_BYTES)
    if block[128:132] != b"DICM":
        return False
    written = 0
    while block:
        written += file.write(block)
        if written > size_bytes:
            return False
        block = member.read(BLOCK_BYTES)
    return True


def _checksums(opened: zipfile.ZipFile) -> dict[str, str]:
    """Return the MD5 of each member by its name; none when the zip file does not tell."""
    try:
        if opened.getinfo(CHECKSUMS).file_size > MAX_CHECKSUM_BYTES:
            return {}
        text = opened.read(CHECKSUMS).decode("utf-8", "replace")
    except KeyError:
        return {}
    rows = (row for row in csv.reader(io.StringIO(text)) if len(row) > 1)
    return {row[0].strip(): plain_md5(row[1]) for row in rows}


def plain_md5(text: str) -> str:
    """Return an MD5 as 32 digits; empty when it is none. Some servers write it without its leading zeros."""
    digits = text.strip().lower()
    return digits.zfill(32) if HEX.fullmatch(digits) else ""


__all__ = ["Member", "dicom_members", "plain_md5"]
