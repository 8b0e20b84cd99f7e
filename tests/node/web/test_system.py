"""The page of administrators in a real browser and as JSON: what it tells and does, and what it keeps to itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser import TABLET, Sight
from many_findings import ARCHIVE, PACS, fill
from playwright.sync_api import expect
from sqlalchemy import text
from web_site import WebSite

from node import audit_events, machine
from node.machine import Gpu, GpuWatch
from node.web import system_view
from store import audit, processes
from store.audit_tables import AuditRecord
from store.objects import ObjectStore
from store.tables import Event

TOKEN = "tcia-t0ken"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebSite]:
    """Return a node that sends to an archive, and that has results for a PACS that was taken out of its settings."""
    made = WebSite(
        tmp_path_factory.mktemp("system"),
        destinations=(f"{ARCHIVE.replace('//', '//nadir:s3cret@')}",),
        tcia_token=TOKEN,
        priors_from=("OLD@10.0.0.9:104",),
    )
    fill(made.database, findings=2000, now=made.database.now())
    with made.database.transaction() as session:
        processes.beat(session, "host:1", ("web", "worker"), "1.0", made.database.now())
    objects = ObjectStore(made.settings.home / "store")
    temporary = objects.temporary()
    temporary.write_bytes(b"no DICOM")
    objects.quarantine(temporary, "this is no DICOM file")
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch is asked in another process, which takes seconds."""
    monkeypatch.setattr(machine, "_by_torch", lambda: ())


def test_the_page_tells_how_the_node_does_and_no_secret(site: WebSite, look: Callable[..., Sight]) -> None:
    for size, dark in (((1366, 768), False), (TABLET, True)):
        sight = look(site.url, size, dark=dark)
        page = sight.open("/system")
        expect(page.get_by_text("none; the analyses run on the CPU")).to_be_visible()
        page.locator("details summary").last.click()
        told = page.locator("main").inner_text()
        for sentence in (
            "No process does: listener, sender, scheduler.",
            "not in the settings",
            "the connection was refused",
            "all delivered",
            "this is no DICOM file",
            "nothing asked yet",
            "There is no account",
            "host:1",
            "lung_nodule",
        ):
            assert sentence in told, sentence
        assert "s3cret" not in page.content() and TOKEN not in page.content()
        assert page.locator(".hours svg").count() == 3
        assert page.evaluate("document.documentElement.scrollWidth") == size[0]
        sight.require_clean()


def test_what_waits_for_a_destination_that_is_gone_is_given_up_once_its_name_was_typed(
    site: WebSite, look: Callable[..., Sight]
) -> None:
    page = look(site.url).open("/system")
    row = page.locator("#destinations tr", has_text=PACS)
    parked, waiting = (int(row.locator("td.n").nth(n).inner_text()) for n in (1, 0))
    site.heard.clear()
    row.get_by_role("button", name="Send again").click()
    page.get_by_role("dialog").get_by_role("button", name="Send again").click()
    expect(page.locator("#told")).to_contain_text(f"{parked} results for {PACS} wait to be sent again.")
    expect(row.locator("td.n").nth(1)).to_have_text("0")
    expect(page.locator("#destinations tr", has_text=ARCHIVE).get_by_role("button")).to_have_count(0)
    row.get_by_role("button", name="Give up").click()
    yes = page.get_by_role("dialog").get_by_role("button", name="Give up")
    expect(yes).to_be_disabled()
    page.get_by_role("dialog").locator("input").fill(PACS)
    yes.click()
    expect(page.locator("#told")).to_contain_text(f"{parked + waiting} results for {PACS} are given up.")
    assert [one.event.meaning for one in site.heard] == ["Procedure Record"] * 2


def test_a_destination_of_the_settings_is_not_given_up_and_where_nothing_waits_nothing_is_done(
    site: WebSite,
) -> None:
    client = site.client()
    answer = client.post("/api/system/destinations/abandon", json={"destination": ARCHIVE})
    assert (answer.status_code, answer.json()["code"]) == (409, "destination-in-use")
    for what in ("retry", "abandon"):
        answer = client.post(f"/api/system/destinations/{what}", json={"destination": "NOBODY@h:1"})
        assert (answer.status_code, answer.json()["code"]) == (404, "no-such-delivery")
    assert client.post("/api/system/priors/retry").json()["said"].startswith("0 searches")


def test_the_trail_is_searched_walked_through_and_checked_and_reading_it_is_a_record(
    site: WebSite, look: Callable[..., Sight]
) -> None:
    with site.database.transaction() as session:
        now = site.database.now()
        message = audit_events.access_changed("account added", "ada", "root").xml(now, "NADIR")
        audit.append(session, [(now, message)])
    site.heard.clear()
    sight = look(site.url)
    page = sight.open("/system/audit")
    first = page.locator("#trail tbody tr").first
    expect(first).to_contain_text("Security Alert, User security Attributes Changed")
    expect(first).to_contain_text("account added")
    expect(page.locator("#trail tbody tr")).to_have_count(50)
    page.get_by_role("button", name="Older").click()
    expect(first).to_contain_text("51")
    page.locator("#words").fill("user changed root")
    expect(page.locator("#trail tbody tr")).to_have_count(1)
    page.get_by_role("button", name="Check the chain").click()
    expect(page.locator("#verdict")).to_contain_text("101 records follow one from the other")
    sight.require_clean()
    with site.database.transaction() as session:
        session.connection().execute(text("UPDATE audit_record SET message = 'spoilt' WHERE id = 100"))
    page.get_by_role("button", name="Check the chain").click()
    expect(page.locator("#verdict")).to_contain_text("Record 100 does not follow")
    expect(sight.open("/system/audit").locator("#trail")).to_contain_text("no audit message any more")
    assert {one.event.meaning for one in site.heard} == {"Audit Log Used"}


def test_events_are_shown_by_kind_and_page_by_page(site: WebSite, look: Callable[..., Sight]) -> None:
    with site.database.transaction() as session:
        session.add_all(
            [Event(at=site.database.now(), kind="many", subject=str(n), text="x") for n in range(60)]
        )
    sight = look(site.url)
    page = sight.open("/system/events?kind=many")
    expect(page.locator("tbody tr")).to_have_count(50)
    page.get_by_role("link", name="Older").click()
    expect(page.locator("tbody tr")).to_have_count(10)
    sight.require_clean()


def test_the_json_tells_the_same_and_walks_through_events_and_trail(site: WebSite) -> None:
    client = site.client()
    told = client.get("/api/system").json()
    assert told["destinations"][0]["name"] == ARCHIVE and told["destinations"][0]["in_settings"]
    assert len(told["hours"]) == 24 and sum(hour["images"] for hour in told["hours"]) > 0
    assert told["missing_roles"] == ["listener", "sender", "scheduler"]
    for noun, rows in (("events", "events"), ("audit", "records")):
        seen, cursor = 0, ""
        while cursor is not None:
            page = client.get(f"/api/{noun}", params={"limit": 40, "cursor": cursor}).json()
            seen, cursor = seen + len(page[rows]), page["next"]
        assert seen == page["total"] >= 100


def test_graphics_cards_are_asked_for_in_another_process_and_seldom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = tmp_path / "asked"
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho >> {asked}\necho 'NVIDIA H200, 1024, 143771, 37'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    watch = GpuWatch()
    card = Gpu(name="NVIDIA H200", used_bytes=1 << 30, memory_bytes=143771 << 20, busy_percent=37)
    assert watch.gpus() == watch.gpus() == (card,)
    assert len(asked.read_text().splitlines()) == 1
    program.write_text("#!/bin/sh\nexit 9\n")
    assert GpuWatch().gpus() == ()


def test_a_record_is_told_in_words_with_who_and_from_where(site: WebSite) -> None:
    now = site.database.now()
    message = audit_events.signed_in("ada", "10.0.0.1", failure="wrong password").xml(now, "NADIR")
    shown = system_view.told(AuditRecord(id=7, at=now, message=message, sha256=""))
    assert (shown.pk, shown.event, shown.is_failure) == (7, "User Authentication, Login", True)
    assert (shown.description, shown.who, shown.what) == ("wrong password", "ada at 10.0.0.1", "")
