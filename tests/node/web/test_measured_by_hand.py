"""What the page of a study and the JSON say of a lesion that a person measured by hand: what its course says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date

import pytest
from course_rows import Clock, Linked, lesion, visit
from persons_report import IMAGE, bring, image, report
from web_site import WebSite

from store import accounts
from store.objects import ObjectStore
from store.tracking.link import Kind

ONE, TWO = "2.25.1", "2.25.2"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebSite]:
    """Give two visits; of the lesion that Nadir measured as 8 mm at the first a person gave 24 x 10 mm there."""
    made = WebSite(tmp_path_factory.mktemp("by-hand"))
    objects = ObjectStore(made.settings.home / "store", sync=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accounts, "SCRYPT_N", 1 << 4)
        made.account("ANNA", "physicist")
        with made.database.transaction() as session:
            clock = Clock()
            found = [lesion(ONE, 8, volume=0.3), lesion(TWO, 20, volume=3.0, segment_number=2)]
            first = visit(session, clock, date(2026, 1, 10), found, study="1.2.1")
            links = [Linked(kind=Kind.SAME, uid=uid, earlier=[uid], study=first) for uid in (ONE, TWO)]
            visit(session, clock, date(2026, 3, 10), found, links, study="1.2.2")
            bring(session, objects, image(), 1)
            bring(session, objects, report(ONE, IMAGE), 2)
        yield made
    made.stop()


def test_the_study_says_what_a_person_measured_by_hand_and_the_role_that_the_course_gives(
    site: WebSite,
) -> None:
    client = site.signed_in("ANNA")
    course = client.get("/api/patients/1/course").json()
    roles = {one["tracking_uid"]: one["role"] for one in course["lesions"]}
    findings = client.get("/api/studies/1.2.1/findings").json()["findings"]
    one, two = findings
    assert {f["tracking_uid"]: f["role"] for f in findings} == roles == {ONE: "target", TWO: "target"}
    assert {m["name"]: m["value"] for m in one["by_hand"]} == {"long_axis": 24.0, "short_axis": 10.0}
    assert (one["counts"], one["note"]) == (False, "What a person measured by hand counts.")
    assert (two["counts"], two["by_hand"]) == (True, [])
    assert client.get(f"/api/findings/{one['finding_pk']}").json() == one
    assessed = client.get("/api/assessments", params={"study": "1.2.1"}).json()["assessments"]
    assert [(row["verdict"], row["note"]) for row in assessed] == [
        ("supplemented", "measured by a person"),
        ("not-assessed", ""),
    ]


def test_the_page_shows_the_size_that_counts_and_the_form_the_role_that_counts(site: WebSite) -> None:
    client = site.signed_in("ANNA")
    page = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", client.get("/studies/1.2.1").text))
    table = page.partition("2 findings")[2]
    assert "24.0 by hand" in table and "Long Axis, measured by a person 24.0 mm" in page
    assert "not measurable" not in page
    pk = client.get("/api/studies/1.2.1/findings").json()["findings"][0]["finding_pk"]
    form = client.get(f"/studies/1.2.1/findings/{pk}/choose").text
    assert "<option selected>target</option>" in form
    seen = {"lesion": ONE, "finding": pk, "seen": "", "kind": "role", "value": "non-target"}
    made = client.post("/api/studies/1.2.1/choices", json=seen)
    assert made.status_code == 201
    one = client.get("/api/studies/1.2.1/findings").json()["findings"][0]
    assert (one["role"], [d["kind"] for d in one["decisions"]]) == ("non-target", ["role"])
    assert client.post(f"/api/studies/1.2.1/choices/{made.json()['number']}/undo").status_code == 201


def test_a_page_of_a_patient_of_whom_no_report_came_reads_no_object(
    site: WebSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(self: ObjectStore, sha256: str) -> None:
        raise AssertionError("an object was read")

    with site.database.transaction() as session:
        visit(session, Clock(), date(2026, 1, 10), [lesion("2.25.7")], study="1.2.7",
              patient={"patient_id": "Q"})  # fmt: skip
    client = site.signed_in("ANNA")
    monkeypatch.setattr(ObjectStore, "path", opened)
    (one,) = client.get("/api/studies/1.2.7/findings").json()["findings"]
    assert (one["role"], one["by_hand"], one["counts"]) == ("target", [], True)
