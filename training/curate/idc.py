"""The Imaging Data Commons: an index says what there is, and public buckets give the files over plain HTTPS.

A bucket lists a series under `<uuid of the series>/` (S3, ListObjectsV2); the entity tag of an object that was stored
in one piece is its MD5.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from plugins.errors import Refused, Unavailable
from training.curate.idc_index import IdcIndex
from training.curate.selection import RemoteSeries, Selection
from training.curate.series_files import SeriesFiles, checked_uid
from training.curate.wire import Halted, Remote, Wire

SERVER = "https://s3.amazonaws.com"
FRIENDS = ("amazonaws.com",)
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
PREFIX = re.compile(r"[A-Za-z0-9._-]{1,128}")
MD5 = re.compile(r'"([0-9a-f]{32})"')
MAX_PAGES = 1000
MEGABYTE = 1_000_000
LICENCES = {
    "CC BY 3.0": "https://creativecommons.org/licenses/by/3.0/",
    "CC BY 4.0": "https://creativecommons.org/licenses/by/4.0/",
    "CC BY-NC 3.0": "https://creativecommons.org/licenses/by-nc/3.0/",
    "CC BY-NC 4.0": "https://creativecommons.org/licenses/by-nc/4.0/",
}


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One object of a bucket."""

    key: str
    """Its key."""
    size_bytes: int
    """Its length."""
    etag: str
    """Its entity tag, with quotes."""

    @property
    def md5(self) -> str:
        """Return its MD5; empty when it was stored in several pieces."""
        match = MD5.fullmatch(self.etag)
        return match[1] if match else ""


class Idc:
    """Collections of IDC: the index, and one `Wire` whose base is the address of the buckets."""

    name = "idc"
    title = "IDC"

    def __init__(self, wire: Wire, index: IdcIndex) -> None:
        self.wire = wire
        self.index = index

    @property
    def address(self) -> str:
        """Return where the buckets are."""
        return self.wire.base_url

    def version(self) -> str:
        """Return the version of the index."""
        return self.index.version

    def series(self, collection: str, selection: Selection) -> tuple[RemoteSeries, ...]:
        """Return all series of a collection. Refuses `unknown-collection`."""
        folded = re.sub(r"[^a-z0-9]+", "_", collection.lower())
        rows = self.index.rows("collection_id", frozenset({collection, folded}))
        if not rows:
            near = ", ".join(difflib.get_close_matches(folded, self.index.collections, n=3, cutoff=0.5))
            hint = f"; there are {near}" if near else ""
            raise Refused("unknown-collection", f"the index of IDC has no collection {collection}{hint}")
        return tuple(_series(row) for row in rows)

    def find(self, uids: Iterable[str]) -> dict[str, RemoteSeries]:
        """Return those of the series that the archive has."""
        rows = self.index.rows("SeriesInstanceUID", frozenset(checked_uid(uid) for uid in uids))
        return {one.series_instance_uid: one for one in map(_series, rows)}

    def fetch(
        self, series: RemoteSeries, files: SeriesFiles, sops: frozenset[str] = frozenset()
    ) -> dict[str, str]:
        """Return why instances of a series did not come, by their key; `sops` are wanted, all when empty.

        A bucket does not tell SOP Instance UIDs: when some are wanted, objects come until those are there.
        Raises `Halted`, `Unavailable` and `Refused` when nothing more of the series comes.
        """
        if not sops and files.complete_version is not None and files.complete_version == series.where:
            return {}
        if sops and sops <= files.kept.keys():
            return {}
        listed = self._listed(series.where)
        keys = {kept.key for kept in files.kept.values()}
        md5s = {kept.md5 for kept in files.kept.values()} | files.elsewhere
        todo = [one for one in listed if (one.md5 not in md5s if one.md5 else one.key not in keys)]
        why = self._fetched(series, todo, files, sops)
        if sops:
            reason = "; ".join(why.values()) or "the series has no such instance"
            return dict.fromkeys(sorted(sops - files.kept.keys()), reason)
        if not why:
            files.complete(series.where)
        return why

    def _fetched(
        self, series: RemoteSeries, todo: list[Stored], files: SeriesFiles, sops: frozenset[str]
    ) -> dict[str, str]:
        bucket = series.where.partition("/")[0]
        why: dict[str, str] = {}

        def one(stored: Stored) -> None:
            if sops and sops <= files.kept.keys():
                return
            remote = Remote(
                url=f"{self.wire.base_url}/{bucket}/{quote(stored.key)}",
                size_bytes=stored.size_bytes,
                etag=stored.etag,
                at_most_bytes=stored.size_bytes,
            )
            try:
                self.wire.file(
                    remote,
                    files.part(stored.key),
                    lambda path: files.adopt(path, wanted=sops, md5=stored.md5, key=stored.key),
                )
            except Halted:
                raise
            except Unavailable as unavailable:
                why[stored.key] = str(unavailable)
            except Refused as refused:
                why[stored.key] = refused.sentence

        with ThreadPoolExecutor(self.wire.connections) as pool:
            for _ in pool.map(one, todo):
                pass
        return why

    def _listed(self, where: str) -> list[Stored]:
        """Return the objects of a series. Refuses `source-unknown` when there are none."""
        bucket, _, prefix = where.partition("/")
        url = f"{self.wire.base_url}/{bucket}"
        query = {"list-type": "2", "prefix": f"{prefix}/"}
        found: dict[str, Stored] = {}
        for _ in range(MAX_PAGES):
            page = _parsed(self.wire.body(url, query), url)
            found |= {one.key: one for one in _objects(page) if one.key.startswith(f"{prefix}/")}
            token = _text(page, "NextContinuationToken")
            if _text(page, "IsTruncated") != "true" or not token:
                break
            query["continuation-token"] = token
        if not found:
            raise Refused("source-unknown", f"the bucket {bucket} has nothing under {prefix}")
        return sorted(found.values(), key=lambda one: one.key)


def _series(row: Mapping[str, Any]) -> RemoteSeries:
    def text(name: str) -> str:
        value = row.get(name)
        return "" if value is None else str(value).strip()

    doi, licence, size = text("source_DOI"), text("license_short_name"), text("series_size_MB")
    return RemoteSeries(
        series_instance_uid=checked_uid(text("SeriesInstanceUID")),
        study_instance_uid=text("StudyInstanceUID"),
        patient_id=text("PatientID"),
        modality=text("Modality"),
        collection=text("collection_id"),
        instances=int(float(text("instanceCount"))) if text("instanceCount") else None,
        size_bytes=int(float(size) * MEGABYTE) if size else None,
        version=text("crdc_series_uuid"),
        licence=licence,
        licence_uri=LICENCES.get(licence, ""),
        citation=f"https://doi.org/{doi}" if doi else "",
        where=_where(text("aws_bucket"), text("crdc_series_uuid"), text("series_aws_url")),
    )


def _where(bucket: str, uuid: str, url: str) -> str:
    """Return `bucket/uuid`, of which nothing can lead elsewhere. Refuses `bad-idc-index`."""
    if not (bucket and uuid):
        bucket, _, uuid = url.removeprefix("s3://").removesuffix("*").rstrip("/").partition("/")
    if not BUCKET.fullmatch(bucket) or not PREFIX.fullmatch(uuid) or ".." in bucket + uuid:
        raise Refused("bad-idc-index", f"the index names no bucket and folder of a series: {url[:200]!r}")
    return f"{bucket}/{uuid}"


def _parsed(body: bytes, url: str) -> ElementTree.Element:
    if b"<!" in body:
        raise Unavailable(f"{url} answered with a document that declares entities")
    try:
        return ElementTree.fromstring(body)  # noqa: S314 - no declarations in it
    except ElementTree.ParseError as error:
        raise Unavailable(f"{url} answered with something that is no list of objects") from error


def _objects(page: ElementTree.Element) -> Iterable[Stored]:
    for element in page.iterfind("{*}Contents"):
        key, size = _text(element, "Key"), _text(element, "Size")
        if key and not key.endswith("/") and size.isdecimal():
            yield Stored(key=key, size_bytes=int(size), etag=_text(element, "ETag"))


def _text(element: ElementTree.Element, name: str) -> str:
    return element.findtext(f"{{*}}{name}", default="")


__all__ = ["FRIENDS", "SERVER", "Idc", "Stored"]
