"""Whoever is shown patients by a page or by JSON is in the audit trail: every route is told, or says why it is not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date

import pytest
from course_rows import Clock, lesion, visit
from web_site import WebSite

from node.report.finding_pictures import FindingPictures, SliceRange
from node.web.access import SAFE_METHODS

pytestmark = pytest.mark.sec

STUDY, COURSE, LIST = "DICOM Instances Accessed", "Patient Record", "Export"
TOLD = {
    "GET /studies/{study_instance_uid}": STUDY,
    "GET /studies/{study_instance_uid}/findings/{finding_pk}/choose": STUDY,
    "GET /studies/{study_instance_uid}/findings/{finding_pk}/picture": STUDY,
    "GET /api/studies/{study_instance_uid}": STUDY,
    "GET /api/studies/{study_instance_uid}/findings": STUDY,
    "GET /api/studies/{study_instance_uid}/choices": STUDY,
    "GET /api/findings/{finding_pk}": STUDY,
    "GET /api/findings/{finding_pk}/picture": STUDY,
    "GET /api/findings/{finding_pk}/slices": STUDY,
    "GET /patients/{patient_pk}": COURSE,
    "GET /patients/{patient_pk}/course.{kind}": LIST,
    "GET /api/patients/{patient_pk}/course": COURSE,
    "GET /api/findings": LIST,
    "GET /api/assessments": LIST,
    "GET /api/patients": LIST,
    "GET /api/cohort/patients": LIST,
    "GET /api/cohort/measurements": LIST,
    "GET /api/cohort/export.{kind}": LIST,
    "GET /api/cohort/identified.{kind}": LIST,
    "GET /api/worklist": LIST,
    "POST /api/worklist/search": LIST,
}
"""Routes that show patients, by the record that each makes."""
TOLD_ELSEWHERE = {
    "GET /patients/{patient_pk}/lesions/{tracking_uid}/pictures": "of images, which this node does not have",
    "GET /studies/{study_instance_uid}/results/{result_pk}": "of files, which this node does not have",
    "GET /api/studies/{study_instance_uid}/results/{result_pk}": "of files, which this node does not have",
    "GET /dicom-web/{path:path}": "of images, which this node does not have",
    "GET /uploads/{upload_pk}": "of uploads, which this node does not have",
    "GET /uploads/{upload_pk}/live": "of uploads, which this node does not have",
    "GET /api/uploads/{upload_pk}/report.pdf": "of uploads, which this node does not have",
    "GET /api/uploads/{upload_pk}/results.zip": "of uploads, which this node does not have",
    "GET /models/{family}/runs/{run}/{name}": "of models, which this node does not have",
    "GET /models/{family}/{number}/evaluations/{key}": "of models, which this node does not have",
    "GET /models/{family}/{number}/evaluations/{key}/cases": "of models, which this node does not have",
    "GET /models/{family}/{number}/evaluations/{key}/files/{name}": "of models, which this node does not have",
    "GET /api/models/{family}/{number}/evaluations/{key}": "of models, which this node does not have",
}
"""Routes that tell the trail too, and are tried where there is what they show."""
UNTOLD = {
    "GET /studies/{study_instance_uid}/progress": "a part of a page that was told",
    "GET /patients/{patient_pk}/state": "a part of a page that was told",
    "GET /worklist": "a page that says who is here",
    "GET /upload": "a page that says who is here",
    "GET /cohort": "a page that says who is here",
    "GET /cohort/progress": "no patients",
    "GET /api/jobs": "what there is to do",
    "GET /api/priors": "what there is to do",
    "GET /api/workitems": "what there is to do",
    "GET /api/workitems/{workitem}": "what there is to do",
    "GET /api/uploads": "what there is to do",
    "GET /api/uploads/{upload_pk}": "what there is to do",
    "GET /api/uploads/{upload_pk}/files": "what there is to do",
    "GET /api/uploads/{upload_pk}/files/{number}": "what there is to do",
}
NOBODY = re.compile(
    r"GET (/|/static/.*|/viewer.*|/health|/metrics|/login.*|/api|/api/openapi.json|/(api/)?models.*|/(api/)?system.*"
    r"|/api/(events|audit|accounts|tokens))"
)
"""Routes that show no patient, or the trail itself, which tells that it is read."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebSite]:
    """Give a node with one study of one patient, of whom a lesion was measured, and made pictures of it."""
    made = WebSite(tmp_path_factory.mktemp("told"))
    with made.database.transaction() as session:
        visit(session, Clock(), date(2026, 1, 10), [lesion("2.25.1")], study="1.2.1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FindingPictures, "png", lambda *_, **__: b"a picture")
        patch.setattr(FindingPictures, "is_whole", lambda *_: False)
        patch.setattr(
            FindingPictures,
            "slices",
            lambda *_: SliceRange(first=0, last=0, key=0, count=1, sop_instance_uids=("1.2",)),
        )
        yield made
    made.stop()


def asked(route: str) -> tuple[str, str]:
    """Return method and address of a route for the patient that there is."""
    method, path = route.split()
    path = path.replace("{study_instance_uid}", "1.2.1").replace("{kind}", "csv")
    return method, re.sub(r"\{[a-z]+_pk\}", "1", path)


@pytest.mark.parametrize("route", TOLD)
def test_who_is_shown_a_patient_is_told_to_the_trail(site: WebSite, route: str) -> None:
    site.heard.clear()
    answer = site.client().request(*asked(route), json={} if route.startswith("POST") else None)
    assert answer.status_code == 200, answer.text
    (told,) = site.heard
    assert (told.event.meaning, told.participants[0].user_id) == (TOLD[route], "this machine")
    if TOLD[route] == STUDY:
        assert told.subjects[0].id == "1.2.1"
    if "cohort/export" not in route and "cohort/identified" not in route:
        assert [one.role for one in told.subjects][-1] == "1"


@pytest.mark.parametrize("path", ["/api/studies/1.2.9", "/api/findings/99", "/api/findings/99/picture"])
def test_what_is_not_there_is_told_of_nobody(site: WebSite, path: str) -> None:
    site.heard.clear()
    assert site.client().get(path).status_code == 404
    assert site.heard == []


def test_a_list_of_many_is_told_without_naming_them(site: WebSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.audit.MOST_NAMED", 0)
    site.heard.clear()
    site.client().get("/api/findings")
    (told,) = site.heard
    assert [one.name for one in told.subjects] == ["findings as JSON"]


def test_every_route_is_told_or_says_why_it_is_not(site: WebSite) -> None:
    routes = {
        f"{method} {route.path}"  # type: ignore[attr-defined]
        for route in site.app.router.routes
        for method in getattr(route, "methods", ())
        if method in SAFE_METHODS - {"HEAD", "OPTIONS"} or route.path.endswith("/search")  # type: ignore[attr-defined]
    }
    known = {*TOLD, *TOLD_ELSEWHERE, *UNTOLD}
    assert {one for one in routes if not NOBODY.fullmatch(one)} - known == set()
    assert known - routes == set()
