"""A stand-in for TCIA (NBIA REST) and IDC (public S3 buckets) on loopback, of a handful of tiny series, with faults."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import threading
import urllib.parse
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from pydicom import dcmread

BUCKET = "idc-open-data"
SERVICES = "/nbia-api/services/v4"
DOI = "10.7937/k9/tcia.2015.lo9ql9sx"


@dataclass
class Held:
    """One series of the archive."""

    row: dict[str, Any]
    uuid: str
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def uid(self) -> str:
        return str(self.row["SeriesInstanceUID"])


@dataclass
class Asked:
    """One request that came."""

    endpoint: str
    query: dict[str, str]
    headers: dict[str, str]


class PublicArchives:
    """Both archives on one port. `faults[endpoint]` are used up one a request; `always` stay.

    A fault is `cut`, `flip` (one byte is another), `429`, `503`, `404`, `short` (half a body that says it is whole), or
    `to <URL>` for a redirect. Endpoints are those of NBIA, `list` and `object` for the bucket.
    """

    def __init__(self, *folders: Path, collection: str = "LIDC-IDRI") -> None:
        self.collection = collection
        self.held: list[Held] = []
        self.asked: list[Asked] = []
        self.faults: dict[str, list[str]] = {}
        self.always: dict[str, str] = {}
        self.ranges = True
        self.lost: set[str] = set()
        """SOP Instance UIDs that a zip file lacks."""
        self.strangers: list[tuple[str, bytes]] = []
        """Members that a zip file has besides."""
        self.hidden: set[str] = set()
        """Series that TCIA does not have."""
        self.page = 1000
        self.wait: threading.Event | None = None
        """A zip file or object is sent to its half, and the rest when this is set."""
        self.url = ""
        self._lock = threading.Lock()
        for folder in folders:
            self._hold(folder)

    @property
    def tcia(self) -> str:
        return self.url + SERVICES

    def count(self, *endpoints: str) -> int:
        """Return how many requests came."""
        return sum(one.endpoint in endpoints for one in self.asked)

    def fault(self, endpoint: str) -> str:
        with self._lock:
            waiting = self.faults.get(endpoint, [])
            return waiting.pop(0) if waiting else self.always.get(endpoint, "")

    def index(self, path: Path) -> Path:
        """Write the rows of IDC's index as CSV."""
        columns = ("collection_id", "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "Modality")
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            more = ("instanceCount", "series_size_MB", "license_short_name", "source_DOI", "series_aws_url")
            writer.writerow([*columns, *more])
            for held in self.held:
                size = sum(map(len, held.files.values())) / 1e6
                shared = [held.row[key] for key in columns[1:]]
                folder = f"s3://{BUCKET}/{held.uuid}/*"
                name = self.collection.lower().replace("-", "_")
                writer.writerow([name, *shared, len(held.files), size, "CC BY 3.0", DOI, folder])
        return path

    def rows(self, query: dict[str, str]) -> list[dict[str, Any]]:
        keys = ("Collection", "PatientID", "SeriesInstanceUID", "Modality")
        wanted = {key: query[key] for key in keys if key in query}
        return [
            one.row
            for one in self.held
            if one.uid not in self.hidden and all(one.row[key] == value for key, value in wanted.items())
        ]

    def zipped(self, held: Held) -> bytes:
        """Return a series as getImageWithMD5Hash sends it."""
        body = io.BytesIO()
        with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED) as opened:
            lines = ["Filename,MD5Hash"]
            for number, (sop, data) in enumerate(sorted(held.files.items()), start=1):
                if sop not in self.lost:
                    opened.writestr(f"{number:08d}.dcm", data)
                    lines.append(f"{number:08d}.dcm,{hashlib.md5(data).hexdigest().lstrip('0')}")
            for name, data in self.strangers:
                opened.writestr(name, data)
            opened.writestr("md5hashes.csv", "\n".join(lines) + "\n")
        return body.getvalue()

    def _hold(self, folder: Path) -> None:
        files = {
            str(dcmread(path, stop_before_pixels=True).SOPInstanceUID): path for path in folder.iterdir()
        }
        first = dcmread(next(iter(files.values())), stop_before_pixels=True)
        row = {
            "SeriesInstanceUID": str(first.SeriesInstanceUID),
            "StudyInstanceUID": str(first.StudyInstanceUID),
            "PatientID": str(first.PatientID),
            "Modality": str(first.Modality),
            "Collection": self.collection,
            "ImageCount": len(files),
            "FileSize": sum(path.stat().st_size for path in files.values()),
            "MaxSubmissionTimestamp": "2012-02-01 00:00:00.0",
            "LicenseName": "Creative Commons Attribution 3.0 Unported License",
            "LicenseURI": "https://creativecommons.org/licenses/by/3.0/",
            "DataDescriptionURI": f"https://doi.org/{DOI}",
        }
        uuid = hashlib.md5(row["SeriesInstanceUID"].encode()).hexdigest()
        data = {sop: path.read_bytes() for sop, path in files.items()}
        self.held.append(Held(row=row, uuid=uuid, files=data))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    archives: PublicArchives

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        parts = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(parts.query))
        path = urllib.parse.unquote(parts.path)
        if path.startswith(SERVICES):
            endpoint = path.rpartition("/")[2]
        else:
            endpoint = "list" if "list-type" in query else "object"
        self.archives.asked.append(Asked(endpoint, query, dict(self.headers.items())))
        fault = self.archives.fault(endpoint)
        if fault in ("429", "503", "404"):
            self._send(b"busy", status=int(fault), headers={"Retry-After": "7"} if fault == "429" else {})
        elif fault.startswith("to "):
            self._send(b"", status=302, headers={"Location": fault[3:]})
        else:
            self._answer(endpoint, path, query, fault)

    def _answer(self, endpoint: str, path: str, query: dict[str, str], fault: str) -> None:
        archives = self.archives
        held = {one.uid: one for one in archives.held}.get(query.get("SeriesInstanceUID", ""))
        if endpoint == "getCollectionValues":
            self._json([{"Collection": archives.collection}])
        elif endpoint == "getSeries":
            self._json(archives.rows(query))
        elif endpoint == "getSOPInstanceUIDs":
            self._json([{"SOPInstanceUID": sop} for sop in held.files] if held else [])
        elif endpoint == "getImageWithMD5Hash" and held:
            # NBIA makes it on the way: no length, no ranges.
            self._send(archives.zipped(held), fault=fault, chunked=True)
        elif endpoint == "getSingleImage" and held and query["SOPInstanceUID"] in held.files:
            self._send(held.files[query["SOPInstanceUID"]], fault=fault)
        elif endpoint == "getMD5HashForImage":
            bodies = [
                one.files[query["SOPInstanceUID"]]
                for one in archives.held
                if query["SOPInstanceUID"] in one.files
            ]
            self._send(hashlib.md5(bodies[0]).hexdigest().encode() if bodies else b"")
        elif endpoint == "list":
            self._send(self._listing(query).encode(), fault=fault)
        elif endpoint == "object":
            self._object(path, fault)
        else:
            self._send(b"not granted", status=400)

    def _objects(self) -> dict[str, bytes]:
        return {
            f"{held.uuid}/{hashlib.md5(sop.encode()).hexdigest()}.dcm": data
            for held in self.archives.held
            for sop, data in held.files.items()
        }

    def _listing(self, query: dict[str, str]) -> str:
        found = {k: d for k, d in sorted(self._objects().items()) if k.startswith(query["prefix"])}
        start = int(query.get("continuation-token", "0"))
        stop = start + self.archives.page
        more = stop < len(found)
        token = f"<NextContinuationToken>{stop}</NextContinuationToken>" if more else ""
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(data)}</Size>"
            f"<ETag>&quot;{hashlib.md5(data).hexdigest()}&quot;</ETag></Contents>"
            for key, data in list(found.items())[start:stop]
        )
        return (
            '<?xml version="1.0" encoding="UTF-8"?>'
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{contents}</ListBucketResult>"
        )

    def _object(self, path: str, fault: str) -> None:
        data = self._objects().get(path.removeprefix(f"/{BUCKET}/"))
        if data is None:
            self._send(b"<Error/>", status=404)
            return
        tag = f'"{hashlib.md5(data).hexdigest()}"'
        asked = self.headers.get("Range")
        if asked and self.archives.ranges and self.headers.get("If-Range") == tag:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            said = {"ETag": tag, "Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
            self._send(data[start:], status=206, headers=said, fault=fault)
        else:
            self._send(data, headers={"ETag": tag}, fault=fault)

    def _json(self, rows: Iterable[dict[str, Any]]) -> None:
        rows = list(rows)
        # An empty answer of NBIA has no body at all.
        self._send(json.dumps(rows).encode() if rows else b"")

    def _send(
        self,
        body: bytes,
        *,
        status: int = 200,
        headers: dict[str, str] | None = None,
        fault: str = "",
        chunked: bool = False,
    ) -> None:
        if fault == "flip":
            middle = len(body) // 2
            body = body[:middle] + bytes([body[middle] ^ 0xFF]) + body[middle + 1 :]
        if fault == "short":
            body = body[: len(body) // 2]
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        pieces = [body[: len(body) // 2], body[len(body) // 2 :]]
        for number, piece in enumerate(pieces):
            if number and fault == "cut":
                self.close_connection = True
                return
            if number and self.archives.wait is not None and len(body) > 1024:
                self.archives.wait.wait(30)
            if piece:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                self.wfile.flush()
        if chunked:
            self.wfile.write(b"0\r\n\r\n")


@contextmanager
def serving(archives: PublicArchives) -> Iterator[PublicArchives]:
    """Give the archives while they answer."""
    handler = type("Handler", (_Handler,), {"archives": archives})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    archives.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield archives
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
