"""`GET /dicom-web/...`: images for the viewer and for programs, from the PACS when there is one, else from the node.

What may be asked is a grammar (PS3.18 chapter 10): UIDs and a few fixed words, so no address that a browser makes up
reaches the PACS.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from node import audit_events
from node.audit import patients_of
from node.audit_message import Subject
from node.web.access import allow
from node.web.pacs_proxy import PacsProxy
from node.web.site import Site
from store.held import patient_of

UID = r"(?=[0-9.]{1,64}(?:/|$))[0-9]+(?:\.[0-9]+)*"
ASKED = re.compile(
    r"(?:studies|series|instances"
    rf"|studies/(?P<study>{UID})(?:/(?P<of_study>series|instances|metadata|rendered|thumbnail))?"
    rf"|studies/(?P<study_2>{UID})/series/(?P<series_2>{UID})(?:/(?P<of_series>instances|metadata|rendered|thumbnail))?"
    rf"|studies/(?P<study_3>{UID})/series/(?P<series_3>{UID})/instances/(?P<sop>{UID})"
    r"(?:/(?P<of_sop>metadata|rendered|thumbnail|frames/[0-9]+(?:,[0-9]+)*(?:/(?:rendered|thumbnail))?"
    r"|bulk(?:data)?(?:/[0-9A-Za-z_-]+)+))?)"
)
LISTS = frozenset({"series", "instances", "thumbnail"})
SAME_SECONDS, MOST_KNOWN = 1800.0, 4096


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What an address asks for."""

    path: str
    """Below the root, without a slash at either end."""
    study: str = ""
    """Study Instance UID; empty for a query over all studies."""
    series: str = ""
    """Series Instance UID."""
    sop: str = ""
    """SOP Instance UID."""
    what: str = ""
    """What of it: `metadata`, `frames/1`, ...; empty for all of it."""

    @property
    def opens(self) -> bool:
        """Return whether the images of a study or what they tell of the patient are read, not only listed."""
        return bool(self.study) and self.what.rpartition("/")[2] not in LISTS


def asked(path: str) -> Asked | None:
    """Return what a path below `/dicom-web` asks for; None for anything but queries and retrieves of DICOMweb."""
    found = ASKED.fullmatch(path)
    if found is None:
        return None
    names = found.groupdict(default="")
    return Asked(
        path=path,
        study=names["study"] or names["study_2"] or names["study_3"],
        series=names["series_2"] or names["series_3"],
        sop=names["sop"],
        what=names["of_study"] or names["of_series"] or names["of_sop"] or ("" if "/" in path else path),
    )


def router(site: Site) -> APIRouter:
    """Return the routes `GET /dicom-web/...`."""
    made = APIRouter(tags=["dicom-web"])
    proxy = PacsProxy(site.settings.pacs_url) if site.settings.pacs_url else None
    readers = Readers(site)

    @made.get("/dicom-web/{path:path}")
    @allow("viewer", scopes=("api",))
    async def read(request: Request, path: str) -> Response:
        """Answer a query (QIDO-RS) or a retrieve (WADO-RS)."""
        wanted = asked(path)
        if wanted is None:
            raise HTTPException(404, "DICOMweb has no such address, or this node does not pass it on")
        if proxy is None:
            raise HTTPException(404, "this node has no PACS to show images of: set pacs_url")
        answer = await proxy.get(request, wanted.path)
        if wanted.opens:
            await run_in_threadpool(readers.tell, request, wanted.study)
        return answer

    return made


class Readers:
    """Tells the audit trail who opens which study, once in half an hour: a viewer asks a thousand times."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._told: OrderedDict[tuple[str, str], float] = OrderedDict()

    def tell(self, request: Request, study_instance_uid: str) -> None:
        """Record that this one reads the study."""
        identity, now = request.state.identity, time.monotonic()
        key = (identity.name, study_instance_uid)
        if now - self._told.get(key, -SAME_SECONDS) < SAME_SECONDS:
            return
        self._told[key] = now
        self._told.move_to_end(key)
        while len(self._told) > MOST_KNOWN:
            self._told.popitem(last=False)
        study = audit_events.study(study_instance_uid, {})
        patient = self._patient(study_instance_uid)
        self._site.record(
            audit_events.instances_accessed(identity.name, request.state.address, study, patient)
        )

    def _patient(self, study_instance_uid: str) -> Subject | None:
        """Return whose study it is, as the trail names patients; None when only the PACS knows it."""
        with self._site.database.reading() as session:
            found = patient_of(session, study_instance_uid)
            if found is None:
                return None
            patients = patients_of(self._site.settings)
            return patients.subject(found.issuer, found.patient_id, found.patient_name)


__all__ = ["Asked", "Readers", "asked", "router"]
