"""The Cancer Imaging Archive by its public REST interface (NBIA): what a collection holds, and its series as zip files.

The server makes a zip file while it sends it: it cannot be resumed, and when the server fails in between the zip file
is in order and lacks images. So what ought to be there is asked for by itself, each image is held against its MD5,
and single images are fetched one by one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from plugins.errors import Refused, Unavailable
from training.curate.selection import RemoteSeries, Selection
from training.curate.series_files import SeriesFiles, checked_uid
from training.curate.wire import Busy, Halted, Remote, Wire
from training.curate.zip_members import dicom_members, plain_md5

SERVER = "https://nbia.cancerimagingarchive.net/nbia-api/services/v4"
FRIENDS = ("cancerimagingarchive.net",)
SINGLE_AT_MOST = 16
"""As many images are fetched one by one; of more the whole series is, once."""
GIVEN_UP_AFTER = 3
"""Images one after the other, each asked for again and again, after which the others would not come either."""
UNKNOWN_SIZE_BYTES = 32 << 30
SLACK_BYTES = 64 << 20
NEW_NAMES = 4
HASHES = (("getM5HashForImage", "SOPInstanceUid"), ("getMD5HashForImage", "SOPInstanceUID"))
DENIED = ("source-denied", "source-refused", "source-unknown")


class Tcia:
    """Collections of TCIA, by one `Wire` whose base is the address of the services."""

    name = "tcia"
    title = "TCIA"

    def __init__(self, wire: Wire) -> None:
        self.wire = wire

    @property
    def address(self) -> str:
        """Return where the collections are."""
        return self.wire.base_url

    def version(self) -> str:
        """Return the version of the archive: TCIA has none, its series have times."""
        return ""

    def series(self, collection: str, selection: Selection) -> tuple[RemoteSeries, ...]:
        """Return all series of a collection, or of the patients that are selected.

        Refuses `unknown-collection`. Raises `Unavailable`.
        """
        found = self._listed(collection, selection)
        if not found:
            named = self._named(collection)
            if named == collection:
                text = f"TCIA lists no series of {collection} to the public: is it restricted, or its patients others?"
                raise Refused("empty-collection", text)
            found = self._listed(named, selection)
        return found

    def find(self, uids: Iterable[str]) -> dict[str, RemoteSeries]:
        """Return those of the series that the archive has."""
        queries = [{"SeriesInstanceUID": checked_uid(uid)} for uid in uids]
        with ThreadPoolExecutor(self.wire.connections) as pool:
            answers = list(pool.map(lambda query: self._rows("getSeries", query), queries))
        found = [_series(row) for rows in answers for row in rows]
        return {one.series_instance_uid: one for one in found}

    def fetch(
        self, series: RemoteSeries, files: SeriesFiles, sops: frozenset[str] = frozenset()
    ) -> dict[str, str]:
        """Return why instances of a series did not come, by SOP Instance UID; `sops` are wanted, all when empty.

        Raises `Halted`, `Unavailable` and `Refused` when nothing more of the series comes.
        """
        uid = series.series_instance_uid
        if not sops and files.complete_version is not None and files.complete_version == series.version:
            return {}
        wanted = sops or self._instances(uid)
        missing = wanted - files.kept.keys()
        why: dict[str, str] = {}
        if len(missing) > SINGLE_AT_MOST or (missing and not sops and missing == wanted):
            try:
                self._zip(series, files, missing)
            except Unavailable as unavailable:
                if isinstance(unavailable, Halted):
                    raise
                why = dict.fromkeys(missing, str(unavailable))
        failed = 0
        for sop in sorted(wanted - files.kept.keys()):
            try:
                self._single(uid, sop, files)
                failed = 0
            except Halted:
                raise
            except Unavailable as unavailable:
                why[sop] = str(unavailable)
                failed += 1
            except Refused as refused:
                why[sop] = refused.sentence
            if failed == GIVEN_UP_AFTER:
                break
        still = wanted - files.kept.keys()
        if not still and not sops:
            files.complete(series.version)
        return {sop: why.get(sop, "it did not come") for sop in sorted(still)}

    def _zip(self, series: RemoteSeries, files: SeriesFiles, wanted: frozenset[str]) -> None:
        uid = series.series_instance_uid
        limit = 2 * series.size_bytes + SLACK_BYTES if series.size_bytes else UNKNOWN_SIZE_BYTES
        remote = Remote(
            url=f"{self.wire.base_url}/getImageWithMD5Hash",
            query={"SeriesInstanceUID": uid},
            at_most_bytes=limit,
        )
        with _told_of_tokens():
            self.wire.file(remote, files.part("zip"), lambda path: _unpacked(path, files, wanted, limit))

    def _single(self, series_instance_uid: str, sop_instance_uid: str, files: SeriesFiles) -> None:
        remote = Remote(
            url=f"{self.wire.base_url}/getSingleImage",
            query={"SeriesInstanceUID": series_instance_uid, "SOPInstanceUID": sop_instance_uid},
            at_most_bytes=UNKNOWN_SIZE_BYTES,
        )
        md5 = self._md5(sop_instance_uid)

        def keep(path: Path) -> None:
            if not files.adopt(path, wanted=frozenset({sop_instance_uid}), md5=md5):
                raise Busy(f"{sop_instance_uid} was asked for and another instance came")

        with _told_of_tokens():
            self.wire.file(remote, files.part(sop_instance_uid), keep)

    def _md5(self, sop_instance_uid: str) -> str:
        """Return the MD5 of an image; empty when the server tells none. Version 4 has other names for it."""
        version = re.search(r"/v([0-9]+)$", self.wire.base_url)
        is_new = version is None or int(version[1]) >= NEW_NAMES
        endpoint, key = HASHES[is_new]
        try:
            text = self.wire.body(f"{self.wire.base_url}/{endpoint}", {key: sop_instance_uid})
        except Refused:
            return ""
        return plain_md5(text.decode("ascii", "replace"))

    def _instances(self, series_instance_uid: str) -> frozenset[str]:
        rows = self._rows("getSOPInstanceUIDs", {"SeriesInstanceUID": checked_uid(series_instance_uid)})
        found = frozenset(checked_uid(row.get("SOPInstanceUID")) for row in rows)
        if not found:
            raise Refused("source-unknown", f"TCIA does not list series {series_instance_uid} any more")
        return found

    def _listed(self, collection: str, selection: Selection) -> tuple[RemoteSeries, ...]:
        queries: list[dict[str, str]] = [{"Collection": collection}]
        if selection.patients:
            queries = [{"Collection": collection, "PatientID": one} for one in sorted(selection.patients)]
        return tuple(_series(row) for query in queries for row in self._rows("getSeries", query))

    def _named(self, collection: str) -> str:
        """Return how TCIA writes a collection's name. Refuses `unknown-collection`."""
        rows = self._rows("getCollectionValues", {})
        names = sorted({str(row["Collection"]) for row in rows if row.get("Collection")})
        if collection in names:
            return collection
        alike = [name for name in names if _folded(name) == _folded(collection)]
        if len(alike) == 1:
            return alike[0]
        near = ", ".join(difflib.get_close_matches(collection, names, n=3, cutoff=0.5))
        hint = f"; there are {near}" if near else ""
        raise Refused("unknown-collection", f"TCIA has no public collection {collection}{hint}")

    def _rows(self, endpoint: str, query: Mapping[str, str]) -> list[dict[str, Any]]:
        """Return the rows of an answer. An empty one has no body; NBIA has no pages."""
        with _told_of_tokens():
            rows = self.wire.json(endpoint, query)
        if rows is None:
            return []
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise Unavailable(f"{self.wire.base_url}/{endpoint} answered with something that is no list")
        return rows


@contextmanager
def _told_of_tokens() -> Iterator[None]:
    """Say in a refusal what may lie behind it: TCIA answers alike for what it does not have and what is not public."""
    try:
        yield
    except Refused as refused:
        if refused.code not in DENIED:
            raise
        text = (
            f"{refused.sentence}: it is gone or not public, or the token (NADIR_TCIA_TOKEN) does not open it"
        )
        raise Refused(refused.code, text) from refused


def _unpacked(archive: Path, files: SeriesFiles, wanted: frozenset[str], limit_bytes: int) -> None:
    """Keep the members that are whole and wanted. Raises `Busy` when there is none."""
    inner = files.part("member")
    kept, last = 0, "it is empty"
    try:
        for member in dicom_members(archive, inner, limit_bytes):
            try:
                kept += bool(files.adopt(member.path, wanted=wanted, md5=member.md5))
            except (Busy, Refused) as wrong:
                last = str(wrong)
    finally:
        inner.unlink(missing_ok=True)
    if not kept:
        raise Busy(f"nothing in the zip file of series {files.uid} could be kept: {last}")


def _series(row: Mapping[str, Any]) -> RemoteSeries:
    """Return a row of getSeries; names that differ between versions of the interface are both taken."""

    def text(*names: str) -> str:
        return next((str(row[name]).strip() for name in names if row.get(name) is not None), "")

    return RemoteSeries(
        series_instance_uid=checked_uid(text("SeriesInstanceUID")),
        study_instance_uid=text("StudyInstanceUID"),
        patient_id=text("PatientID"),
        modality=text("Modality"),
        collection=text("Collection"),
        instances=_number(row.get("ImageCount")),
        size_bytes=_number(row.get("FileSize")),
        version=text("MaxSubmissionTimestamp", "TimeStamp"),
        licence=text("LicenseName"),
        licence_uri=text("LicenseURI"),
        citation=text("DataDescriptionURI", "CollectionURI"),
    )


def _number(value: object) -> int | None:
    try:
        return max(0, int(float(str(value))))
    except (ValueError, OverflowError):
        return None


def _folded(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


__all__ = ["FRIENDS", "SERVER", "Tcia"]
