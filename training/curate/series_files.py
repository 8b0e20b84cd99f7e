"""The files of one downloaded series: the folder is the truth, and a journal says what each file was when it came.

`OUT/<SeriesInstanceUID>/<SOPInstanceUID>.dcm`; a file has its name only when it is whole and is what it is called.
`OUT/.nadir/` holds what is under way and one journal a series. A file whose length or time differs from its journal
is read again before it is believed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataelem import RawDataElement

from plugins.errors import Refused
from store.part10 import DEFLATED, scan_header
from training.curate.wire import Busy

UID = re.compile(r"[0-9]+(?:\.[0-9]+)*")
WORKPLACE = ".nadir"
UNDEFINED = 0xFFFFFFFF
LONGEST_READ_BYTES = 1 << 16
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData", "PixelDataProviderURL")


def checked_uid(text: object) -> str:
    """Return a UID, which may be the name of a file. Refuses `invalid-uid`."""
    if not isinstance(text, str) or len(text) > 64 or not UID.fullmatch(text):
        raise Refused("invalid-uid", f"{str(text)[:80]!r} is not a UID")
    return text


@dataclass(frozen=True, kw_only=True)
class Kept:
    """One file that is there and whole."""

    sop: str
    """SOP Instance UID."""
    size_bytes: int
    """Length."""
    mtime_ns: int
    """When it was written."""
    md5: str
    """MD5 of the file, which is what the archives tell."""
    key: str = ""
    """What the source calls it."""


class SeriesFiles:
    """The files of one series under `folder`.

    `kept` is what is there and whole, by SOP Instance UID; `complete_version` the version of the series when all of
    it is; `elsewhere` the MD5s of its files that somebody has in another place.
    """

    def __init__(self, folder: Path, series_instance_uid: str) -> None:
        self.uid = checked_uid(series_instance_uid)
        self.place = folder / self.uid
        self.kept: dict[str, Kept] = {}
        self.complete_version: str | None = None
        self.elsewhere: frozenset[str] = frozenset()
        self._work = folder / WORKPLACE
        self._journal = self._work / f"{self.uid}.jsonl"
        self._fresh: set[str] = set()
        self._lock = threading.Lock()
        self._look()

    @property
    def size_bytes(self) -> int:
        """Length of all files together."""
        return sum(kept.size_bytes for kept in self.kept.values())

    def part(self, key: str) -> Path:
        """Return where a file of the source, called `key` there, is received."""
        self._work.mkdir(parents=True, exist_ok=True)
        return self._work / (hashlib.sha256(f"{self.uid} {key}".encode()).hexdigest()[:32] + ".part")

    def adopt(self, path: Path, *, wanted: frozenset[str] = frozenset(), md5: str = "", key: str = "") -> str:
        """Return the SOP Instance UID under which a received file is kept now; empty when it is not a wanted one.

        Raises `Busy` when the file is not what was asked for: another checksum, no DICOM, cut, of another series.
        What an earlier call kept under the UID is replaced when the archive has other bytes now. Refuses `two-of-one`:
        this call has kept other bytes under it.
        """
        kept = self._judged(path, key=key)
        if md5 and kept.md5 != md5:
            raise Busy(f"the checksum of {key or kept.sop} is {kept.md5}, not {md5}")
        if wanted and kept.sop not in wanted:
            return ""
        with self._lock:
            there = self.kept.get(kept.sop)
            if there is None or (there.md5 != kept.md5 and kept.sop not in self._fresh):
                self.place.mkdir(parents=True, exist_ok=True)
                with path.open("rb") as file:
                    os.fsync(file.fileno())
                os.replace(path, self.place / f"{kept.sop}.dcm")
                there = self.kept[kept.sop] = kept
                self._fresh.add(kept.sop)
                self._note(asdict(kept))
        if there.md5 != kept.md5:
            raise Refused("two-of-one", f"{kept.sop} came twice with different bytes; the first is kept")
        return kept.sop

    def complete(self, version: str) -> None:
        """Note that every file that the source has of this version is there."""
        if self.complete_version != version:
            self._note({"complete": len(self.kept), "version": version})
            self.complete_version = version

    def _judged(self, path: Path, key: str = "") -> Kept:
        """Return what a file is. Raises `Busy` when it is no whole DICOM file of this series."""
        try:
            header = scan_header(path)
            if header.series_instance_uid != self.uid:
                raise Busy(f"a file of series {header.series_instance_uid} came for {self.uid}")
            _require_whole(path, header.transfer_syntax_uid)
        except Refused as refused:
            raise Busy(
                f"what came for series {self.uid} is no readable DICOM: {refused.sentence}"
            ) from refused
        with path.open("rb") as file:
            md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        found = path.stat()
        return Kept(
            sop=header.sop_instance_uid,
            size_bytes=found.st_size,
            mtime_ns=found.st_mtime_ns,
            md5=md5,
            key=key,
        )

    def _look(self) -> None:
        noted, complete = self._noted()
        for path in self.place.glob("*.dcm"):
            sop, found = path.stem, path.stat()
            before = noted.get(sop)
            if before is None or (before.size_bytes, before.mtime_ns) != (found.st_size, found.st_mtime_ns):
                try:
                    now = self._judged(path, before.key if before else "")
                except Busy:
                    continue
                if now.sop != sop or (before is not None and before.md5 != now.md5):
                    continue
                before = now
                self._note(asdict(now))
            self.kept[sop] = before
        if complete is not None and complete[0] == len(self.kept):
            self.complete_version = complete[1]

    def _noted(self) -> tuple[dict[str, Kept], tuple[int, str] | None]:
        """Return what the journal says; a line that a killed process did not finish says nothing."""
        files: dict[str, Kept] = {}
        complete = None
        try:
            lines = self._journal.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return files, None
        for line in lines:
            try:
                row = json.loads(line)
                if "complete" in row:
                    complete = (int(row["complete"]), str(row["version"]))
                else:
                    files[row["sop"]] = Kept(**row)
            except (ValueError, TypeError, KeyError):
                continue
        return files, complete

    def _note(self, row: dict[str, Any]) -> None:
        self._work.mkdir(parents=True, exist_ok=True)
        with self._journal.open("a", encoding="utf-8") as file:
            # A torn line before this one must not take it along.
            file.write(f"\n{json.dumps(row)}\n")


def _require_whole(path: Path, transfer_syntax_uid: str) -> None:
    """Return when every element of a DICOM file is as long as it says. Refuses `truncated`."""
    size_bytes = path.stat().st_size
    # A long value is passed over instead of being read, which positions within deflated data do not allow.
    longest = None if transfer_syntax_uid in DEFLATED else LONGEST_READ_BYTES
    try:
        dataset = pydicom.dcmread(path, defer_size=longest)
        raw = [dataset.get_item(tag) for tag in dataset.keys()]  # noqa: SIM118 - itself it iterates over elements
    except Exception as error:  # pydicom raises whatever the bytes make it raise
        raise Refused("truncated", f"it cannot be read to its end ({type(error).__name__})") from error
    for element in raw:
        if isinstance(element, RawDataElement) and element.length != UNDEFINED:
            whole = element.value is None and element.value_tell + element.length <= size_bytes
            if not whole and len(element.value or b"") != element.length:
                raise Refused("truncated", "it ends before its last value does")
    if "Rows" in dataset and not any(tag in dataset for tag in PIXELS):
        raise Refused("truncated", "it is an image without pixels")


__all__ = ["WORKPLACE", "Kept", "SeriesFiles", "checked_uid"]
