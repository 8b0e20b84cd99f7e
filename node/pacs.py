"""The PACS over DICOMweb (PS3.18): what it holds (QIDO-RS), its bytes (WADO-RS), our results into it (STOW-RS).

The one extension point is `httpx.Client`: give one with another transport, and every test is a function.
Errors: `Unavailable` when asking again may help (no answer, 5xx, 408, 425, 429), `Refused` when it will not.
"""

from __future__ import annotations

import datetime
import re
import ssl
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import httpx

from node.deliveries import without_credentials
from node.dicom_json import number, text, values
from node.multipart import BLOCK_BYTES, FilesBody, PartWriter, boundary_of
from node.paced_http import is_packed_twice, paced_client, what_failed
from node.stow_response import StowAnswer, read_response
from node.tls import distrust
from plugins.errors import Refused, Unavailable
from store.charset import CONTROL

PAGE, MAX_PAGES = 500, 2000
MAX_JSON_BYTES = 64 << 20
MAX_OBJECT_BYTES = 8 << 30
DICOM_JSON = "application/dicom+json"
ORIGINAL = 'multipart/related; type="application/dicom"; transfer-syntax=*'
RAW = "?*/:@"
"""Characters that may stand in a query as they are (RFC 3986 section 3.4), and that no server takes for another."""
UID = re.compile(r"[0-9.]{1,64}")
TRANSIENT = frozenset({408, 425, 429})
NOTHING_FAILED = frozenset({200, 204})
STUDY_UID, SERIES_UID, INSTANCES_IN_STUDY = "0020000D", "0020000E", "00201208"
SOP_UID, SOP_CLASS = "00080018", "00080016"
STUDY_DATE, MODALITY, MODALITIES = "00080020", "00080060", "00080061"
PATIENT_ID, ISSUER = "00100020", "00100021"


@dataclass(frozen=True, kw_only=True)
class HeldInstance:
    """One instance that the PACS says it holds."""

    series_instance_uid: str
    """Series Instance UID, as the PACS writes it."""
    sop_instance_uid: str
    """SOP Instance UID, as the PACS writes it."""
    sop_class_uid: str
    """SOP Class UID; empty when the PACS does not tell."""


@dataclass(frozen=True, kw_only=True)
class HeldStudy:
    """One study that the PACS says it holds."""

    study_instance_uid: str
    """Study Instance UID, as the PACS writes it."""
    instances: int | None
    """Number of Study Related Instances; None when the PACS does not tell."""


@dataclass(frozen=True, kw_only=True)
class HeldSeries:
    """One series that the PACS says it holds."""

    series_instance_uid: str
    """Series Instance UID, as the PACS writes it."""
    modality: str
    """Modality; empty when the PACS does not tell."""


@dataclass(frozen=True, kw_only=True)
class PatientStudy:
    """One study that the PACS says it holds of a patient: what it says, not yet believed."""

    study_instance_uid: str
    """Study Instance UID, as the PACS writes it."""
    patient_id: str
    """PatientID, without padding."""
    issuer: str
    """IssuerOfPatientID; empty when the PACS does not tell."""
    study_date: str
    """Study Date as YYYYMMDD; empty when the PACS does not tell."""
    modalities: frozenset[str]
    """Modalities in Study; none when the PACS does not tell."""


def matching(patient_id: str) -> str:
    """Return a PatientID as a key to match: no key can ask for a backslash, so any character may stand there."""
    return patient_id.replace("\\", "?")


def unescaped(patient_id: str) -> str:
    """Return a PatientID as a key that no address has to escape: `?` for each such character, `*` where it is no ASCII.

    Servers that do not decode their addresses know no other; how many characters `ü` is, they disagree on.
    """
    return re.sub(r"[^\x00-\x7f]+", "*", re.sub(r"[^A-Za-z0-9._~\x80-\U0010ffff-]", "?", patient_id))


def plain(value: str) -> str:
    """Return a text of an answer as the store keeps such texts (`store.charset.decode_text`), to be compared."""
    return unicodedata.normalize("NFC", CONTROL.sub(" ", value)).strip()


class Reached(Unavailable):
    """The server was reached and could not do it now, or nobody knows whether it did."""

    def __init__(self, sentence: str, retry_after_seconds: float = 0.0) -> None:
        super().__init__(sentence)
        self.retry_after_seconds = retry_after_seconds


class Answered(Reached):
    """The server answered, and with nothing that can be used; of something else it may answer better."""


class DicomWeb:
    """A DICOMweb origin server.

    Parameters
    ----------
    root_url
        The root, e.g. ``http://127.0.0.1:8042/dicom-web``; ``http://user:password@...`` for basic authentication,
        which is shown nowhere afterwards.
    client
        What speaks HTTP; one of its own when None. Proxies and certificates belong to it.
    tls
        How its own client judges the server (`node.tls.context_to`); by public authorities when None.

    """

    def __init__(
        self, root_url: str, *, client: httpx.Client | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self.root_url = without_credentials(root_url).rstrip("/")
        # Results and identities go to the configured address or nowhere.
        self._client = client or paced_client(tls)
        if self.root_url != root_url.rstrip("/"):
            url = httpx.URL(root_url)
            self._client.auth = httpx.BasicAuth(url.username, url.password)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def answers(self) -> bool:
        """Return whether the PACS answers a query. Never raises."""
        try:
            self._page("/studies", {"limit": "1"})
        except (Refused, Unavailable):
            return False
        return True

    def recent_studies(self, since: datetime.date) -> Iterator[HeldStudy]:
        """Yield the studies whose Study Date is `since` or later."""
        query = {"StudyDate": f"{since:%Y%m%d}-", "includefield": INSTANCES_IN_STUDY}
        for row in self._rows("/studies", query, STUDY_UID):
            yield HeldStudy(
                study_instance_uid=text(row, STUDY_UID), instances=number(row, INSTANCES_IN_STUDY)
            )

    def study_instances(self, study_instance_uid: str) -> tuple[HeldInstance, ...]:
        """Return the instances of a study; none when the PACS does not know it. Refuses `invalid-uid`."""
        return self._instances(f"/studies/{uid_of(study_instance_uid)}/instances")

    def patient_studies(
        self, patient_id: str, since: datetime.date, until: datetime.date
    ) -> Iterator[PatientStudy]:
        """Yield the studies between two dates that the PACS takes to be the patient's; whose they are is not checked.

        A wildcard within the PatientID matches as such, and a PACS may ignore what it was asked for. One that finds
        nothing by the PatientID is asked by `unescaped` too, unless that would ask for everybody.
        """
        keys, looser = [matching(patient_id)], unescaped(patient_id)
        if looser not in keys and looser.strip("*?"):
            keys.append(looser)
        for key in keys:
            query: dict[str, str | list[str]] = {
                "PatientID": key,
                "StudyDate": f"{since:%Y%m%d}-{until:%Y%m%d}",
                "includefield": [PATIENT_ID, ISSUER, STUDY_DATE, MODALITIES],
            }
            found = False
            for row in self._rows("/studies", query, STUDY_UID):
                found = True
                yield _patient_study(row)
            if found:
                return

    def study_series(self, study_instance_uid: str) -> tuple[HeldSeries, ...]:
        """Return the series of a study. Refuses `invalid-uid`."""
        query: dict[str, str | list[str]] = {"includefield": [SERIES_UID, MODALITY]}
        return tuple(
            HeldSeries(series_instance_uid=uid_of(text(row, SERIES_UID)), modality=text(row, MODALITY))
            for row in self._rows(f"/studies/{uid_of(study_instance_uid)}/series", query, SERIES_UID)
        )

    def series_instances(self, study: str, series: str) -> tuple[HeldInstance, ...]:
        """Return the instances of a series. Refuses `invalid-uid`."""
        return self._instances(f"/studies/{uid_of(study)}/series/{uid_of(series)}/instances", series)

    def retrieve_series(self, study: str, series: str, new_path: Callable[[], Path]) -> Iterator[Path]:
        """Yield the files of a series one by one as they arrive, in their original encoding."""
        yield from self._retrieve(f"/studies/{uid_of(study)}/series/{uid_of(series)}", new_path)

    def retrieve_instance(self, study: str, series: str, sop: str, path: Path) -> None:
        """Write one instance to `path`, in its original encoding. Refuses `incomplete-pull` when none came."""
        where = f"/studies/{uid_of(study)}/series/{uid_of(series)}/instances/{uid_of(sop)}"
        if not list(self._retrieve(where, lambda: path)):
            sentence = f"{self.root_url} answered without the instance that was asked for"
            raise Refused("incomplete-pull", sentence)

    def store(self, paths: Sequence[Path]) -> tuple[StowAnswer, ...]:
        """Return what the PACS says of each instance in `paths` (STOW-RS, PS3.18 10.5.3).

        An instance that the answer does not name is missing in the result, except that a 200 or 204 without any and
        without a failure says that all were stored: then the result is empty. Raises `Unavailable` or `Refused` when
        the whole request failed, or nobody can tell what became of it.
        """
        body = FilesBody(paths)
        headers = {
            "Content-Type": body.content_type,
            "Content-Length": str(body.length),
            "Accept": DICOM_JSON,
        }
        with self._answer("POST", "/studies", headers=headers, content=iter(body), accept=(409,)) as response:
            answers = read_response(_body(response, self.root_url))
            if answers and any(answer.speaks for answer in answers):
                return answers
            if answers == () and response.status_code in NOTHING_FAILED:
                return ()
            if response.status_code == 409:
                raise _error(response, self.root_url)
        status = response.status_code
        raise Reached(f"{self.root_url} answered HTTP {status} without saying what was stored")

    def _instances(self, path: str, series: str = "") -> tuple[HeldInstance, ...]:
        query: dict[str, str | list[str]] = {"includefield": [SERIES_UID, SOP_UID, SOP_CLASS]}
        return tuple(
            HeldInstance(
                series_instance_uid=uid_of(text(row, SERIES_UID) or series),
                sop_instance_uid=uid_of(text(row, SOP_UID)),
                sop_class_uid=text(row, SOP_CLASS),
            )
            for row in self._rows(path, query, SOP_UID)
        )

    def _rows(self, path: str, query: Mapping[str, str | list[str]], key: str) -> Iterator[dict[str, Any]]:
        """Yield rows with distinct `key`s, page by page, until a page brings nothing new.

        Neither a short page nor an ignored offset is taken for the end: servers cap pages silently.
        """
        seen: set[str] = set()
        offset = 0
        for _ in range(MAX_PAGES):
            page = self._page(path, {**query, "limit": str(PAGE), "offset": str(offset)})
            new = [row for row in page if text(row, key) and text(row, key) not in seen]
            if not new:
                return
            for row in new:
                if text(row, key) not in seen:
                    seen.add(text(row, key))
                    yield row
            offset += len(page)

    def _page(self, path: str, query: Mapping[str, str | list[str]]) -> list[dict[str, Any]]:
        asked = urlencode(query, doseq=True, quote_via=quote, safe=RAW)
        with self._answer("GET", f"{path}?{asked}", headers={"Accept": DICOM_JSON}) as response:
            if response.status_code == 204:
                return []
            rows = json_of(response, self.root_url)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise Answered(f"{self.root_url} answered a query with something that is not DICOM JSON")
        return rows

    def _retrieve(self, path: str, new_path: Callable[[], Path]) -> Iterator[Path]:
        headers = {"Accept": ORIGINAL, "Accept-Encoding": "identity"}
        with self._answer("GET", path, headers=headers) as response:
            boundary = boundary_of(response.headers.get("Content-Type", ""))
            if boundary is None or response.headers.get("Content-Encoding", "identity") != "identity":
                raise Unavailable(
                    f"{self.root_url} answered a retrieve with something that is not plain multipart"
                )
            parts = PartWriter(boundary, new_path, MAX_OBJECT_BYTES)
            try:
                for block in response.iter_raw(BLOCK_BYTES):
                    yield from parts.feed(block)
                if not parts.finished:
                    raise Unavailable(f"{self.root_url} broke off in the middle of an answer")
            finally:
                parts.close()

    @contextmanager
    def _answer(
        self, method: str, path: str, *, accept: tuple[int, ...] = (), **request: Any
    ) -> Iterator[httpx.Response]:
        try:
            with self._client.stream(method, self.root_url + path, **request) as response:
                if response.status_code not in accept and not response.is_success:
                    raise _error(response, self.root_url)
                if is_packed_twice(response):
                    raise Answered(f"{self.root_url} answered with something that is packed more than once")
                yield response
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            if why := distrust(error):
                raise Unavailable(f"{self.root_url} is not spoken to: {why}") from error
            raise Unavailable(f"{self.root_url} does not answer ({type(error).__name__})") from error
        except httpx.HTTPError as error:
            raise Reached(f"{self.root_url} {what_failed(error)}") from error
        except httpx.InvalidURL as error:
            raise Refused("bad-url", f"'{self.root_url}' is not a URL that can be asked") from error
        except OSError as error:
            raise Unavailable(f"an answer of {self.root_url} could not be kept ({error.strerror})") from error


def uid_of(text: str) -> str:
    """Return `text` when it may stand in a URL as a UID; lenient on leading zeros, which exist in the wild."""
    if not UID.fullmatch(text):
        raise Refused("invalid-uid", f"{text[:80]!r} is not a UID")
    return text


def _patient_study(row: dict[str, Any]) -> PatientStudy:
    return PatientStudy(
        study_instance_uid=text(row, STUDY_UID),
        patient_id=plain(text(row, PATIENT_ID)),
        issuer=plain(text(row, ISSUER)),
        study_date=text(row, STUDY_DATE),
        modalities=frozenset(one for one in values(row, MODALITIES) if isinstance(one, str)),
    )


def _error(response: httpx.Response, root_url: str) -> Refused | Unavailable:
    status = response.status_code
    if status >= 500 or status in TRANSIENT:
        return Answered(f"{root_url} answered HTTP {status}", _retry_after_seconds(response))
    if status in (401, 403, 407):
        return Refused("pacs-denied", f"{root_url} denies access (HTTP {status}): check the credentials")
    if status == 404:
        return Refused("pacs-unknown", f"{root_url} does not know what was asked for (HTTP 404)")
    if 300 <= status < 400:
        text = f"{root_url} names another address (HTTP {status}), which is not followed: check the address"
        return Refused("pacs-moved", text)
    return Refused("pacs-refused", f"{root_url} refused the request (HTTP {status})")


def _retry_after_seconds(response: httpx.Response) -> float:
    """Return what `Retry-After` says, a number or a date (RFC 9110 section 10.2.3); 0 when it says nothing."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text[:9])
    try:
        until = parsedate_to_datetime(text)
        return max(0.0, (until - datetime.datetime.now(datetime.UTC)).total_seconds())
    except (TypeError, ValueError):
        return 0.0


def _body(response: httpx.Response, root_url: str) -> bytes:
    body = bytearray()
    for block in response.iter_bytes():
        body += block
        if len(body) > MAX_JSON_BYTES:
            raise Answered(f"{root_url} answered with more than {MAX_JSON_BYTES} bytes of JSON")
    return bytes(body)


def json_of(response: httpx.Response, root_url: str) -> Any:
    """Return the JSON of an answer; None for an empty one. Raises `Unavailable` for what is too long or no JSON."""
    body = _body(response, root_url)
    try:
        return httpx.Response(200, content=body).json() if body else None
    except (ValueError, RecursionError) as error:
        raise Answered(f"{root_url} answered with something that is not JSON") from error


__all__ = [
    "DicomWeb",
    "HeldInstance",
    "HeldSeries",
    "HeldStudy",
    "PatientStudy",
    "StowAnswer",
    "json_of",
    "matching",
    "plain",
    "uid_of",
    "unescaped",
    "without_credentials",
]
