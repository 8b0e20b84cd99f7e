"""DICOMweb from the node's own store, read-only: what a node without a PACS shows in the viewer.

QIDO-RS for studies, series and instances, WADO-RS for metadata, instances, frames in the encoding they came in, and
bulk data (PS3.18 sections 10.4 and 10.6). Results that a newer one took the place of are not shown.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydicom import Dataset
from starlette.exceptions import HTTPException

from node.multipart import FilesBody
from node.web.accept import ANY, taken
from node.web.asked import Asked
from node.web.study_query import INSTANCE_KEYS, SERIES_KEYS, match_keys, study_query
from store.database import Database
from store.dicom.dicom_json import as_json, header, matches, metadata, row
from store.dicom.pixel_parts import OCTETS, Part, Pixels, bulk, frame, pixels, read, syntax_of
from store.held import HeldObject, HeldStudy, count_studies, held_objects, held_studies
from store.objects import ObjectStore

JSON = "application/dicom+json"
DICOM = "application/dicom"
IN_JSON = frozenset({"studies", "series", "instances", "metadata"})
MOST_STUDIES = 500
"""In one answer; series and instances of a study are all listed."""
MOST_PAGED = 10**18
MOST_FRAME_BYTES = 256 << 20
"""Of frames that are asked for at once; a single one is given however large it is."""


class OwnDicomWeb:
    """Answers from rows and files.

    Parameters
    ----------
    database, objects
        Where they are.

    """

    def __init__(self, database: Database, objects: ObjectStore) -> None:
        self._database = database
        self._objects = objects

    def get(self, asked: Asked, query: Mapping[str, str], accept: str, root: str) -> Response:
        """Return the answer; `root` is the address of this `/dicom-web`. Raises 400, 404 and 406."""
        if asked.what in IN_JSON and not taken(accept, (JSON, "application/json")):
            raise _other_form(JSON)
        if not asked.study:
            if asked.what != "studies":
                raise HTTPException(400, "name the study: /studies/{study}/" + asked.what)
            return self._studies(query, root)
        held = self._held(asked)
        word, _, rest = asked.what.partition("/")
        at = f"{root}/{asked.path}"
        if word in ("series", "instances"):
            return self._listed(word, held, query, root, asked.study)
        if word in ("metadata", "") and not all(self._objects.path(one.sha256).is_file() for one in held):
            raise HTTPException(404, "an image of it is no longer here; 'nadir fsck' lists what is gone")
        if word == "metadata":
            return StreamingResponse(self._metadata(held, root, asked.study), media_type=JSON)
        paths = [self._objects.path(one.sha256) for one in held]
        if word == "":
            return _files(paths, accept)
        if word == "frames" and rest.replace(",", "").isdecimal():
            return _multipart(
                frames(pixels(paths[0]), [int(number) for number in rest.split(",")], accept), at
            )
        if word in ("bulk", "bulkdata"):
            return _bulk(read(paths[0]), rest, accept, at)
        raise HTTPException(406, "this node gives images as they came, and renders none")

    def _held(self, asked: Asked) -> list[HeldObject]:
        with self._database.reading() as session:
            found = held_objects(session, asked.study, asked.series, asked.sop)
        if not found:
            raise HTTPException(404, "this node does not hold what was asked for")
        return found

    def _studies(self, query: Mapping[str, str], root: str) -> Response:
        limit, offset = _page(query)
        wanted = study_query(query)
        with self._database.reading() as session:
            found = held_studies(session, wanted, min(limit, MOST_STUDIES), offset)
            of = count_studies(session, wanted)
        return _rows([_study_row(one, root) for one in found], of - offset - len(found), root)

    def _listed(
        self, word: str, held: Sequence[HeldObject], query: Mapping[str, str], root: str, study: str
    ) -> Response:
        """Return series or instances of a study, those that match. Raises 400 for a key that is not matched."""
        wanted = match_keys(query, SERIES_KEYS if word == "series" else INSTANCE_KEYS, of=word)
        limit, offset = _page(query)
        counts: dict[str, int] = {}
        for one in held:
            counts[one.series_instance_uid] = counts.get(one.series_instance_uid, 0) + 1
        if word == "series":
            held = list({one.series_instance_uid: one for one in reversed(held)}.values())[::-1]
        end, more = offset + limit, 0
        if not wanted:
            held, more = held[offset:end], len(held) - end
        at = f"{root}/studies/{study}"
        rows = [
            row(header(self._objects.path(one.sha256)), word, at, counts[one.series_instance_uid])
            for one in held
        ]
        if wanted:
            rows = [found for found in rows if matches(found, wanted)]
            rows, more = rows[offset:end], len(rows) - end
        return _rows(rows, more, root)

    def _metadata(self, held: Sequence[HeldObject], root: str, study: str) -> Iterator[str]:
        before = "["
        for one in held:
            at = f"{root}/studies/{study}/series/{one.series_instance_uid}/instances/{one.sop_instance_uid}"
            yield before + json.dumps(metadata(self._objects.path(one.sha256), at))
            before = ","
        yield "]"


def _study_row(study: HeldStudy, root: str) -> dict[str, Any]:
    found = Dataset()
    found.StudyInstanceUID = study.study_instance_uid
    found.StudyDate = study.study_date.strftime("%Y%m%d") if study.study_date else ""
    found.StudyTime = study.study_time
    found.AccessionNumber = study.accession_number
    found.StudyDescription = study.study_description
    found.ModalitiesInStudy = list(study.modalities)
    found.PatientID = study.patient_id
    found.IssuerOfPatientID = study.issuer
    found.PatientName = study.patient_name
    found.PatientSex = study.patient_sex
    born = study.patient_birth_date
    found.PatientBirthDate = born.strftime("%Y%m%d") if born else ""
    found.NumberOfStudyRelatedSeries = study.series
    found.NumberOfStudyRelatedInstances = study.instances
    found.RetrieveURL = f"{root}/studies/{study.study_instance_uid}"
    return as_json(found)


def _page(query: Mapping[str, str]) -> tuple[int, int]:
    """Return limit and offset. Raises 400 for what is no unsigned integer (PS3.18 section 8.3.4.4)."""
    return _unsigned(query, "limit", MOST_PAGED), _unsigned(query, "offset", 0)


def _unsigned(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdecimal()):
        raise HTTPException(400, f"{name} is a number without a sign")
    return min(int(text), MOST_PAGED)


def _rows(rows: Sequence[Mapping[str, Any]], more: int, root: str) -> Response:
    """Return a list, which says how many more match."""
    warning = f"299 {root}: There are {more} additional results that can be requested"
    return JSONResponse(rows, media_type=JSON, headers={"Warning": warning} if more > 0 else None)


def _files(paths: Sequence[Path], accept: str) -> Response:
    """Return whole objects. Raises 406 when one is in a transfer syntax that is not taken."""
    syntaxes = taken(accept, (DICOM,))
    if ANY not in syntaxes:
        for syntax in map(syntax_of, paths):
            if syntax not in syntaxes:
                raise _other_form(f'multipart/related; type="{DICOM}"; transfer-syntax={syntax}')
    body = FilesBody(paths)
    length = {"Content-Length": str(body.length)}
    return StreamingResponse(iter(body), media_type=body.content_type, headers=length)


def frames(held: Pixels, numbers: Sequence[int], accept: str) -> list[Part]:
    """Return frames, counted from 1. Raises 406, and 413 for more than the memory is to hold at a time."""
    kind, syntax = held.given_as
    # Viewers ask for octets in any transfer syntax and take the image that comes.
    if not taken(accept, (kind, OCTETS)) & {ANY, syntax, held.transfer_syntax}:
        raise _other_form(f'multipart/related; type="{kind}"; transfer-syntax={syntax}')
    found: list[Part] = []
    for number in numbers:
        found.append(frame(held, number))
        if len(found) > 1 and sum(len(part.content) for part in found) > MOST_FRAME_BYTES:
            raise HTTPException(413, "these are too many frames for one answer; ask for fewer frames at once")
    return found


def _bulk(dataset: Dataset, tag: str, accept: str, at: str) -> Response:
    part = bulk(dataset, tag)
    if not taken(accept, (part.kind, OCTETS)):
        raise _other_form(part.kind)
    if "multipart/" in accept.lower():
        return _multipart([part], at)
    return Response(part.content, media_type=part.kind)


def _other_form(given: str) -> HTTPException:
    return HTTPException(
        406, f"this is given as {given}, which the Accept header does not take; ask for that or */*"
    )


def _multipart(parts: Sequence[Part], at: str) -> Response:
    boundary = uuid4().hex
    body = b"".join(
        f"--{boundary}\r\nContent-Type: {part.kind}\r\nContent-Location: {at}\r\n"
        f"Content-Length: {len(part.content)}\r\n\r\n".encode()
        + part.content
        + b"\r\n"
        for part in parts
    )
    inner = parts[0].kind.partition(";")[0]
    kind = f'multipart/related; type="{inner}"; boundary={boundary}'
    return Response(body + f"--{boundary}--\r\n".encode(), headers={"Content-Type": kind})


__all__ = ["OwnDicomWeb", "frames"]
