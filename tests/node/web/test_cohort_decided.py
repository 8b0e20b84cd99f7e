"""What the numbers of the cohort tell of what people decided: in the table, the JSON and the files."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from datetime import date

import pytest
from course_rows import Clock, Linked, lesion, visit
from web_site import WebSite

from store import measured
from store.objects import ObjectStore
from store.patients import merge
from store.tables import Patient
from store.tracking.link import Kind

ONE, TWO, MOVED = "2.25.1", "2.25.2", "2.25.7"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebSite]:
    """Give two visits of P1: the first lesion is rejected, what the second became is relinked to it; and one of Q."""
    made = WebSite(tmp_path_factory.mktemp("decided"))
    with made.database.transaction() as session:
        clock = Clock()
        first = visit(session, clock, date(2026, 1, 10), [lesion(ONE, 18), lesion(TWO, 20)], study="1.2.1")
        same = Linked(kind=Kind.SAME, uid=ONE, earlier=[ONE], study=first)
        visit(session, clock, date(2026, 3, 10), [lesion(ONE, 18), lesion(MOVED, 22)], [same], study="1.2.2")
        visit(session, clock, date(2026, 1, 10), [lesion("2.25.9", 30)], patient={"patient_id": "Q"})
    client = made.client()
    for study, uid, kind, value in (
        ("1.2.1", ONE, "reject", "true"), ("1.2.2", MOVED, "relink", TWO), ("1.2.1", TWO, "site", "liver"),
    ):  # fmt: skip
        said = {"lesion": uid, "kind": kind, "value": value}
        assert client.post(f"/api/studies/{study}/choices", json=said).status_code == 201
    yield made
    made.stop()


def rows(site: WebSite, kind: str) -> list[dict[str, str]]:
    text = site.client().get(f"/api/cohort/{kind}.csv", params={"name": "long_axis"}).text
    return list(csv.DictReader(io.StringIO(text)))


def test_files_and_json_tell_what_was_rejected_which_lesion_it_is_and_where(site: WebSite) -> None:
    named = rows(site, "identified")
    columns = ("tracking_uid", "value", "rejected", "tracking_uid_now", "site", "site_now")
    assert [tuple(row[name] for name in columns) for row in named] == [
        (ONE, "18", "yes", ONE, "Lung", "Lung"),
        (TWO, "20", "no", TWO, "Lung", "liver"),
        (ONE, "18", "yes", ONE, "Lung", "Lung"),
        (MOVED, "22", "no", TWO, "Lung", "liver"),
        ("2.25.9", "30", "no", "2.25.9", "Lung", "Lung"),
    ]
    keyed = rows(site, "export")
    assert [row["rejected"] for row in keyed] == ["yes", "no", "yes", "no", "no"]
    assert [row["site_now"] for row in keyed] == ["Lung", "Liver", "Lung", "Liver", "Lung"]
    assert keyed[1]["lesion_key"] != keyed[3]["lesion_key"]
    assert keyed[1]["lesion_key_now"] == keyed[3]["lesion_key_now"] == keyed[1]["lesion_key"]
    listed = site.client().get("/api/cohort/measurements", params={"name": "long_axis"}).json()
    told = {(one["tracking_uid"], one["rejected"], one["site_now"]) for one in listed["measurements"]}
    assert told == {(ONE, True, "Lung"), (TWO, False, "liver"), (MOVED, False, "liver"),
                    ("2.25.9", False, "Lung")}  # fmt: skip


def test_the_table_tells_it_and_what_is_no_row(site: WebSite) -> None:
    page = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", site.client().get("/cohort?name=long_axis").text))
    numbers = page.partition("What people measured by hand counts in the courses above and is no row here.")[
        2
    ]
    assert numbers.count("rejected") == 2 and numbers.count("relinked") == 1 and numbers.count("liver") == 2


def test_courses_are_read_only_of_whom_people_decided_something(
    site: WebSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    course = measured.decided_sightings.__globals__["course"]

    def counted(session: object, pk: int, objects: ObjectStore | None) -> object:
        read.append(pk)
        return course(session, pk, objects)

    monkeypatch.setattr("store.decided_sightings.course", counted)
    with site.database.reading() as session:
        found = measured.page(session, measured.Chosen(name="long_axis"))
    assert len(found) == 5 and read == [1]


def test_a_choice_holds_for_the_numbers_of_a_person_of_several_patient_ids(site: WebSite) -> None:
    with site.database.transaction() as session:
        merge(session, 2, 1, "ANNA", site.database.now())
        assert session.get_one(Patient, 2).patient_id == "Q"
    said = {"lesion": "2.25.9", "kind": "reject", "value": "true"}
    assert site.client().post("/api/studies/1.2.1/choices", json=said).status_code == 201
    assert [row["rejected"] for row in rows(site, "export")][-1] == "yes"
