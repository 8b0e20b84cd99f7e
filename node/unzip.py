"""Zip files of people, taken apart without trust: bounded in members, bytes and ratio, no name used as a path."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from plugins.errors import Refused, Unavailable

MOST_MEMBERS = 100_000
DIRECTORY_BYTES = 64 << 20
RATIO, RATIO_FROM_BYTES = 200, 1 << 30
BLOCK_BYTES = 1 << 20
ENCRYPTED = 0x1
NESTED = "an archive within the zip file is not unpacked; load it up by itself"
END, END64_LOCATOR, END64 = b"PK\x05\x06", b"PK\x06\x07", b"PK\x06\x06"
LONGEST_END = 22 + 0xFFFF
ARCHIVES = (".zip", ".7z", ".rar", ".tar", ".tgz", ".tar.gz", ".gz", ".bz2", ".xz")
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, KeyError)


@contextmanager
def opened(path: Path, at_most_bytes: int) -> Iterator[tuple[zipfile.ZipFile, list[zipfile.ZipInfo]]]:
    """Give a zip file and its members that are files, in their order.

    Refuses `bad-zip`, `too-many-members`, `zip-too-large` (more than `at_most_bytes` unpacked) and `zip-bomb`.
    """
    with path.open("rb") as file:
        _require_small_directory(file, path.stat().st_size)
        try:
            archive = zipfile.ZipFile(file)
        except DAMAGED as error:
            raise Refused("bad-zip", "the zip file is damaged or did not arrive whole") from error
        with archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            _require_bounded(infos, path.stat().st_size, at_most_bytes)
            yield archive, infos


def _require_small_directory(file: object, size_bytes: int) -> None:
    """Refuse a list of members that would fill the memory before anybody has counted them (APPNOTE 4.3.14, 4.3.16)."""
    seek, read = file.seek, file.read  # type: ignore[attr-defined]
    seek(max(0, size_bytes - LONGEST_END - 20))
    tail = read(LONGEST_END + 20)
    at = tail.rfind(END)
    if at < 0 or len(tail) < at + 22:
        raise Refused("bad-zip", "the zip file is damaged or did not arrive whole")
    entries, directory_bytes = struct.unpack("<HL", tail[at + 10 : at + 16])
    locator = tail[at - 20 : at] if at >= 20 else b""
    if locator[:4] == END64_LOCATOR:
        seek(struct.unpack("<Q", locator[8:16])[0])
        end64 = read(56)
        if len(end64) == 56 and end64[:4] == END64:
            entries, directory_bytes = struct.unpack("<QQ", end64[32:48])
    if entries > MOST_MEMBERS or directory_bytes > DIRECTORY_BYTES:
        raise Refused("too-many-members", f"the zip file has more than {MOST_MEMBERS} members; split it")


def _require_bounded(infos: list[zipfile.ZipInfo], size_bytes: int, at_most_bytes: int) -> None:
    if len(infos) > MOST_MEMBERS:
        raise Refused("too-many-members", f"the zip file has more than {MOST_MEMBERS} members; split it")
    unpacked = sum(info.file_size for info in infos)
    if unpacked > at_most_bytes:
        sentence = f"the zip file would unpack to {unpacked} bytes, and {at_most_bytes} may be; split it"
        raise Refused("zip-too-large", sentence)
    if unpacked > RATIO_FROM_BYTES and unpacked > RATIO * max(size_bytes, 1):
        sentence = (
            f"the zip file would unpack to {unpacked // max(size_bytes, 1)} times its size, as no images do"
        )
        raise Refused("zip-bomb", sentence)


def extract(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> None:
    """Write one member to `path`, whose checksum is right then. Refuses `nested-zip`, `encrypted` and `damaged-member`.

    Raises Unavailable when the disk does not take it.
    """
    if PurePosixPath(info.filename).name.lower().endswith(ARCHIVES) and not is_nifti_name(info.filename):
        raise Refused("nested-zip", NESTED)
    if info.flag_bits & ENCRYPTED:
        raise Refused("encrypted", "it is encrypted; make a zip file without a password")
    written = 0
    try:
        with archive.open(info) as member, path.open("wb") as file:
            while block := member.read(BLOCK_BYTES):
                written += len(block)
                if written > info.file_size:
                    raise zipfile.BadZipFile("longer than it says")
                file.write(block)
    except DAMAGED as error:
        path.unlink(missing_ok=True)
        raise Refused("damaged-member", "it is damaged in the zip file (its checksum is wrong)") from error
    except OSError as error:
        path.unlink(missing_ok=True)
        raise Unavailable("the zip file cannot be unpacked; free or mend the disk") from error
    if written != info.file_size:
        path.unlink(missing_ok=True)
        raise Refused("damaged-member", "it is shorter in the zip file than it should be")


def is_nifti_name(name: str) -> bool:
    """Return whether a name says NIfTI."""
    return name.lower().endswith((".nii", ".nii.gz"))


__all__ = ["ARCHIVES", "NESTED", "extract", "is_nifti_name", "opened"]
