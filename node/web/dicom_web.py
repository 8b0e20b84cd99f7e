"""`GET /dicom-web/...`: images for the viewer and for programs, from the PACS when there is one, else from the node.

What may be asked is a grammar (`node.web.asked`), so that no address that somebody makes up reaches the PACS.
"""

from __future__ import annotations

import time
from collections import OrderedDict

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from node import audit_events
from node.audit import patients_of
from node.audit_message import Subject
from node.web.access import allow
from node.web.asked import asked
from node.web.own_dicom_web import OwnDicomWeb
from node.web.pacs_proxy import PacsProxy, own_root
from node.web.site import Site
from store.held import patient_of

SAME_SECONDS, MOST_KNOWN = 1800.0, 4096


def router(site: Site) -> APIRouter:
    """Return the routes `GET /dicom-web/...`."""
    made = APIRouter(tags=["dicom-web"])
    proxy = PacsProxy(site.settings.pacs_url) if site.settings.pacs_url else None
    own = OwnDicomWeb(site.database, site.objects)
    readers = Readers(site)

    @made.get("/dicom-web/{path:path}")
    @allow("viewer", scopes=("api",))
    async def read(request: Request, path: str) -> Response:
        """Answer a query (QIDO-RS) or a retrieve (WADO-RS)."""
        wanted = asked(path)
        if wanted is None:
            raise HTTPException(404, "DICOMweb has no such address, or this node does not pass it on")
        if proxy is None:
            query, accept = dict(request.query_params), request.headers.get("accept", "")
            answer = await run_in_threadpool(own.get, wanted, query, accept, own_root(request))
        else:
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


__all__ = ["Readers", "router"]
