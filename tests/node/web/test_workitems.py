"""Workitems as JSON and on the command line: what is told of them, what is not, and ending one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner
from web_site import WebSite

from node.cli import app
from store import workitems
from store.tables import Patient, Study

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
LOCK = "2.25.4242"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[WebSite]:
    made = WebSite(tmp_path)
    with made.database.transaction() as session:
        for number in range(3):
            workitems.begin(session, "http://pacs/rs", f"1.2.{number}", LOCK, label="Find nodules", now=NOON)
        first = workitems.get(session, 1)
        workitems.move(session, first, workitems.CLAIMED, NOON, told="It was claimed.", claimed_at=NOON)
        first = workitems.get(session, 1)
        workitems.move(
            session, first, workitems.FETCHING, NOON, asked='["lung_nodule"]', study_instance_uid="1.2.7"
        )
    yield made
    made.stop()


def test_workitems_are_listed_page_by_page_without_their_transaction_uid(site: WebSite) -> None:
    client = site.client()
    first = client.get("/api/workitems", params={"limit": 2}).json()
    rest = client.get("/api/workitems", params={"limit": 2, "cursor": first["next"]}).json()
    assert [row["id"] for row in first["workitems"] + rest["workitems"]] == [3, 2, 1]
    assert (first["total"], rest["next"]) == (3, None)
    one = rest["workitems"][0]
    assert one == client.get("/api/workitems/1").json()
    assert (one["state"], one["asked"], one["claimed_at"]) == (
        "fetching",
        ["lung_nodule"],
        "2026-03-01T12:00:00Z",
    )
    assert LOCK not in json.dumps([first, rest])
    assert [
        row["id"] for row in client.get("/api/workitems", params={"state": "fetching"}).json()["workitems"]
    ] == [1]


def test_a_workitem_is_cancelled_by_a_person_once_and_the_audit_trail_hears_of_it(site: WebSite) -> None:
    client = site.client()
    done = client.post("/api/workitems/1/cancel", json={"reason": "Wrong patient."})
    assert done.status_code == 200, done.text
    assert done.json()["state"] == "cancelling"
    assert done.json()["told"].endswith("cancelled it: Wrong patient.")
    assert ("Alert Description", "workitem 1 cancelled") in [
        d for m in site.heard for s in m.subjects for d in s.details
    ]
    again = client.post("/api/workitems/1/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "illegal-transition")
    assert client.post("/api/workitems/99/cancel").status_code == 404


def test_the_worklist_page_tells_who_asked_and_offers_to_cancel(site: WebSite) -> None:
    with site.database.transaction() as session:
        session.add(Patient(id=1, patient_id="P7"))
        session.flush()
        times = {"first_arrival_at": NOON, "last_arrival_at": NOON}
        session.add(Study(id=1, patient_pk=1, study_instance_uid="1.2.7", **times))
    page = site.client().get("/worklist").text
    assert "Asked by the worklist for lung_nodule (Find nodules)" in page
    assert 'data-do="/api/workitems/1/cancel"' in page
    site.client().post("/api/workitems/1/cancel")
    assert 'data-do="/api/workitems/1/cancel"' not in site.client().get("/worklist").text


def test_the_command_line_lists_shows_and_cancels(site: WebSite, tmp_path: Path) -> None:
    def ask(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["workitems", *arguments, "--home", str(tmp_path)])
        assert done.exit_code == 0, done.output
        assert LOCK not in done.output
        return str(done.output)

    assert [row["id"] for row in json.loads(ask("list", "--json"))] == [3, 2, 1]
    assert "fetching" in ask("list")
    assert "study instance uid: 1.2.7" in ask("show", "1")
    assert ask("cancel", "1", "--why", "A test.") == "workitem 1 is being cancelled\n"
    assert json.loads(ask("show", "1", "--json"))["told"].endswith("cancelled it: A test.")
