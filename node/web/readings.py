"""Tells the audit trail whose data somebody looks at, as a page or as JSON: one study, or a list of many patients."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import Request

from node import audit_events
from node.audit import named, patients_of
from node.web.site import Site
from store.study_head import study_head
from store.study_view import sop_classes


def tell_study(site: Site, request: Request, study_instance_uid: str) -> None:
    """Tell that somebody looks at a study, once in a while. Refuses `no-such-study`."""
    name, address = request.state.identity.name, request.state.address
    with site.database.reading() as session:
        head = study_head(session, study_instance_uid)
        study = audit_events.study(study_instance_uid, sop_classes(session, head.study_pk))
    patient = patients_of(site.settings).subject(head.issuer, head.patient_id, head.patient_name)
    message = audit_events.instances_accessed(name, address, study, patient)
    site.record(message, once=("study-read", name, address, head.study_pk))


def tell_list(site: Site, request: Request, what: str, whose: Iterable[tuple[str, str]]) -> None:
    """Tell that somebody took a list as JSON, once in a while; `whose` are issuers and PatientIDs."""
    name, address = request.state.identity.name, request.state.address
    subjects = named(site.settings, whose)
    message = audit_events.exported(name, address, f"{what} as JSON", subjects)
    site.record(message, once=("list-read", name, address, what, *(one.id for one in subjects)))


__all__ = ["tell_list", "tell_study"]
