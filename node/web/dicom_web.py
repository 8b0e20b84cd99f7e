"""`GET /dicom-web/...`: images for the viewer and for programs, from the PACS when there is one, else from the node.

What was uploaded comes from the node in any case. What may be asked is a grammar (`node.web.asked`), so that no
address that somebody makes up reaches the PACS.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from node import audit_events
from node.audit import patients_of
from node.audit_message import Subject
from node.deliveries import without_credentials
from node.tls import context_to
from node.web.access import allow
from node.web.asked import asked
from node.web.own_dicom_web import OwnDicomWeb
from node.web.pacs_proxy import PacsProxy, own_root
from node.web.site import Site
from node.web.study_query import keys_once
from store.held import is_uploaded, patient_of

ToPacs = Callable[[Request, str], Awaitable[Response]]
STUDY_IN_ADDRESS = re.compile(rb"/studies/([0-9.]{1,64})")
SAME_SECONDS, MOST_KNOWN = 1800.0, 4096


def router(site: Site) -> APIRouter:
    """Return the routes `GET /dicom-web/...`."""
    made = APIRouter(tags=["dicom-web"])
    proxy = _proxy(site) if site.settings.pacs_url else None
    own = OwnDicomWeb(site.database, site.objects)
    readers = Readers(site)

    @made.get("/dicom-web/{path:path}")
    @allow("viewer", scopes=("api",))
    async def read(request: Request, path: str) -> Response:
        """Answer a query (QIDO-RS) or a retrieve (WADO-RS)."""
        wanted = asked(path)
        if wanted is None:
            raise HTTPException(404, "DICOMweb has no such address, or this node does not pass it on")
        accept = ", ".join(request.headers.getlist("accept"))
        one = wanted.study or request.query_params.get("StudyInstanceUID", "")
        if proxy is None or (one and await run_in_threadpool(_is_only_here, site, one)):
            query = keys_once(request.query_params.multi_items())
            answer = await run_in_threadpool(own.get, wanted, query, accept, own_root(request))
        else:
            answer = await proxy.get(request, wanted.path)
        if wanted.opens:
            await run_in_threadpool(readers.tell, request, wanted.study)
        return answer

    return made


def _proxy(site: Site) -> PacsProxy:
    pacs_url = site.settings.pacs_url
    return PacsProxy(pacs_url, tls=context_to(site.settings, pacs_url))


def to_pacs(site: Site) -> ToPacs | None:
    """Return what stores in the PACS what a person drew in the viewer; None without a PACS."""
    if not site.settings.pacs_url:
        return None
    proxy, root = _proxy(site), without_credentials(site.settings.pacs_url)

    async def store(request: Request, study: str) -> Response:
        path = f"studies/{study}" if study else "studies"
        if asked(path) is None:
            raise HTTPException(404, "the address names no study")
        answer = await proxy.store(request, path)
        named = STUDY_IN_ADDRESS.search(bytes(answer.body))
        study = study or (named[1].decode() if named else "")
        await run_in_threadpool(_tell_stored, site, request, study, root, answer.status_code)
        return answer

    return store


def _tell_stored(site: Site, request: Request, study: str, root: str, status: int) -> None:
    site.record(
        audit_events.stored(
            request.state.identity.name,
            request.state.address,
            audit_events.Peer(name=root),
            audit_events.study(study, {}) if study else None,
            patient_subject(site, study),
            failure="" if status == 200 else f"HTTP {status}",
        )
    )


def patient_subject(site: Site, study_instance_uid: str) -> Subject | None:
    """Return whose study it is, as the trail names patients; None when the node does not know it."""
    with site.database.reading() as session:
        found = patient_of(session, study_instance_uid)
    if found is None:
        return None
    return patients_of(site.settings).subject(found.issuer, found.patient_id, found.patient_name)


def _is_only_here(site: Site, study_instance_uid: str) -> bool:
    with site.database.reading() as session:
        return is_uploaded(session, study_instance_uid)


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
        patient = patient_subject(self._site, study_instance_uid)
        self._site.record(
            audit_events.instances_accessed(identity.name, request.state.address, study, patient)
        )


__all__ = ["Readers", "ToPacs", "router", "to_pacs"]
