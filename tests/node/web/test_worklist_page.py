"""The worklist in a real browser and as JSON: what is told of each study, what can be done, and that it stays still."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from browser import TABLET, Sight, sign_in
from many_findings import fill
from playwright.sync_api import Page, expect
from sqlmodel import col, select
from web_site import WebSite

from store import accounts, sessions
from store.tables import Job, Study

HERE = {"words": "", "stage": "", "page": "0"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebSite]:
    """Return a node with sixty studies in all stages."""
    made = WebSite(tmp_path_factory.mktemp("worklist"))
    fill(made.database, findings=1200, now=made.database.now())
    yield made
    made.stop()


def job_of(site: WebSite, state: str, *, place: int = 0, plugin: str = "lung_nodule") -> Job:
    with site.database.reading() as session:
        statement = select(Job).where(col(Job.state) == state, col(Job.plugin) == plugin)
        return session.exec(statement.order_by(col(Job.id).desc()).offset(place)).first()  # type: ignore[return-value]


def refreshed(page: Page) -> None:
    with page.expect_response("**/worklist/rows"):
        page.evaluate("htmx.trigger(document.body, 'nadir:changed')")
    page.wait_for_timeout(100)


def say_yes(page: Page, word: str) -> None:
    page.get_by_role("dialog").get_by_role("button", name=word).click()


def test_the_page_tells_of_every_study_where_it_stands_and_why(
    site: WebSite, look: Callable[..., Sight]
) -> None:
    for size, dark in (((1366, 768), False), (TABLET, True)):
        sight = look(site.url, size, dark=dark)
        page = sight.open("/worklist")
        expect(page.locator("tbody[id^=s]")).to_have_count(40)
        stages = page.locator("tbody[id^=s] > tr:first-child td.stage")
        told = "\n".join(stages.all_inner_texts())
        for sentence in (
            "waits for the same analysis of an earlier study, so that lesions keep their identity",
            "attempt 1 of 5 failed: the disk is full; it is tried again in 4 min",
            "as it usually takes here",
            "0 of 3 delivered to PACS@10.0.0.7:104: the connection was refused; it is tried again",
            "3 parked: the connection was refused",
            "the disk is full (unavailable)",
            "20 findings",
        ):
            assert sentence in told, sentence
        assert page.locator("progress").count() > 0
        assert page.evaluate("document.documentElement.scrollWidth") == size[0]
        page.locator("[data-more]").first.click()
        sight.require_clean()


def test_search_stages_and_pages_show_what_they_say_and_put_no_name_into_the_address(
    site: WebSite, look: Callable[..., Sight]
) -> None:
    page = look(site.url).open("/worklist")
    page.keyboard.press("/")
    with page.expect_response("**/worklist/rows"):
        page.keyboard.type("MANY-00003")
    expect(page.locator("tbody[id^=s]")).to_have_count(4)
    assert page.url == f"{site.url}/worklist"
    with page.expect_response("**/worklist/rows"):
        page.locator("#words").fill("nobody has this name")
    expect(page.locator("#nothing")).to_have_text("No study matches.")
    page.locator("#words").fill("")
    expect(page.locator("#pages-of")).to_have_text("1 to 40 of 60")
    page.get_by_role("button", name="Older").click()
    expect(page.locator("#pages-of")).to_have_text("41 to 60 of 60")
    page.locator("#stage-failed").click()
    expect(page.locator("#stage-failed")).to_have_attribute("aria-pressed", "true")
    count = int(page.locator("#stage-failed b").inner_text())
    expect(page.locator("tbody[id^=s]")).to_have_count(count)


def test_a_refresh_changes_what_changed_and_keeps_focus_selection_scroll_and_opened_rows(
    site: WebSite, look: Callable[..., Sight]
) -> None:
    sight = look(site.url)
    page = sight.open("/worklist")
    job = job_of(site, "queued", place=2)
    with site.database.transaction() as session:
        study = session.exec(select(Study).where(col(Study.id) == job.revision_pk)).one()
    row = page.locator(f"#s{study.id}")
    row.locator("[data-more]").click()
    page.evaluate("window.scrollTo(0, 400)")
    page.locator(f"#s{study.id} tr[data-row]").evaluate("row => row.setAttribute('aria-selected', 'true')")
    page.locator(f"#j{job.id}-park").evaluate("button => button.focus({preventScroll: true})")
    still = page.locator("tbody[id^=s]").nth(1).evaluate_handle("one => one")
    with site.database.transaction() as session:
        session.get_one(Study, study.id).study_description = "What was changed"
    refreshed(page)
    expect(row).to_contain_text("What was changed")
    expect(row.locator(".tasks")).to_be_visible()
    assert page.evaluate("document.activeElement.id") == f"j{job.id}-park"
    assert row.locator("tr[data-row]").get_attribute("aria-selected") == "true"
    assert page.evaluate("window.scrollY") == 400
    with site.database.transaction() as session:
        session.get_one(Study, study.id).last_arrival_at = site.database.now() + timedelta(minutes=1)
    refreshed(page)
    assert page.locator("tbody[id^=s]").first.get_attribute("id") == f"s{study.id}"
    assert still.evaluate("one => one.isConnected")
    assert sight.problems == []


def test_what_a_person_does_is_asked_first_told_after_and_in_the_audit_trail(
    site: WebSite, look: Callable[..., Sight]
) -> None:
    page = look(site.url).open("/worklist")
    dead, waiting = job_of(site, "dead"), job_of(site, "queued")
    done = job_of(site, "done", plugin="emphysema")
    for job, what, word, said in (
        (dead, "retry", "Retry", f"Job {dead.id}, lung_nodule, is in the queue."),
        (waiting, "park", "Park", f"Job {waiting.id}, lung_nodule, is parked."),
        (done, "rerun", "Run again", "runs emphysema again; it is in the queue."),
    ):
        uid = f"A{job.revision_pk - 1:06d}"
        page.locator("#words").fill(uid)
        expect(page.locator(f"#s{job.revision_pk}:only-of-type")).to_be_visible()
        page.locator("[data-more]").click()
        site.heard.clear()
        page.locator(f"#j{job.id}-{what}").click()
        page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
        page.locator(f"#j{job.id}-{what}").click()
        say_yes(page, word)
        expect(page.locator("#told")).to_contain_text(said)
        assert [message.event.meaning for message in site.heard] == ["Procedure Record"]
    assert job_of(site, "queued", plugin="emphysema").run == 1
    page.locator("[id$=-park]").last.wait_for()  # the page has taken the new job in
    study = page.locator("tbody[id^=s]")
    study.get_by_role("button", name="Park study").click()
    say_yes(page, "Park")
    expect(study.locator("tr[data-row] .chip")).to_have_text("parked")
    expect(study).to_contain_text("nothing of it runs")
    study.get_by_role("button", name="Unpark study").click()
    say_yes(page, "Unpark")
    expect(page.locator("#told")).to_contain_text("2 jobs wait in the queue")


def test_what_is_asked_before_a_change_names_whose_study_it_is(site: WebSite) -> None:
    rows = site.client().post("/worklist/rows", data={"words": ""}).text
    studies = rows.split('<tbody id="s')[1:]
    assert len(studies) == 40 and rows.count("data-sure=") > 40
    for study in studies:
        name, date = re.search(r"<b>(.*?)</b>", study)[1], re.search(r'"nowrap">(.*?)<', study)[1]  # type: ignore[index]
        assert study.count(f'data-sure="{name}, {date}: ') == study.count("data-sure=")


def test_a_study_that_is_received_tells_when_it_settles_and_can_be_settled(
    tmp_path: Path, look: Callable[..., Sight]
) -> None:
    site = WebSite(tmp_path)
    fill(site.database, findings=20, now=site.database.now())
    sight = look(site.url)
    with site.database.transaction() as session:
        study = session.get_one(Study, 1)
        study.state, study.last_arrival_at = "receiving", site.database.now() - timedelta(seconds=17)
        study.first_arrival_at = study.last_arrival_at
    page = sight.open("/worklist")
    assert (
        "3 images so far; it settles when nothing more comes for 4"
        in page.locator("td.stage").first.inner_text()
    )
    page.locator("[data-more]").click()
    page.get_by_role("button", name="Settle now").click()
    say_yes(page, "Settle now")
    expect(page.locator("td.stage").first).to_contain_text("it settles now")
    again = site.client().post(f"/api/studies/{study.study_instance_uid}/settle")
    assert again.status_code == 200
    assert site.client().post("/api/studies/9.9/settle").status_code == 404
    site.stop()


def test_an_empty_node_says_what_to_do_next(tmp_path: Path, look: Callable[..., Sight]) -> None:
    site = WebSite(tmp_path)
    sight = look(site.url)
    text = sight.open("/worklist").locator("#nothing").inner_text()
    assert "AE title NADIR, port 11112" in text and "upload a folder" in text
    sight.require_clean()
    site.stop()


def test_the_json_walks_through_all_studies_and_finds_one_without_its_name_in_an_address(
    site: WebSite,
) -> None:
    client = site.client()
    seen, cursor = [], ""
    while True:
        answer = client.get("/api/worklist", params={"limit": 25, "cursor": cursor}).json()
        assert answer["total"] == 60
        seen += [one["study_instance_uid"] for one in answer["studies"]]
        cursor = answer["next"]
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) == 60
    (one, *_) = client.post("/api/worklist/search", json={"words": "MANY-00003", "limit": 1}).json()[
        "studies"
    ]
    assert (one["patient_id"], one["modalities"]) == ("MANY-00003", ["CT"])
    assert {"stage", "why", "analyses"} <= set(one)
    assert client.get("/api/worklist", params={"stage": "lost"}).status_code == 422
    assert client.get("/api/worklist", params={"cursor": "WzEsIDJd"}).status_code == 422
    assert client.post("/api/jobs/999999/retry").json()["code"] == "no-such-job"
    assert client.post(f"/api/jobs/{job_of(site, 'done', plugin='emphysema').id}/retry").status_code == 409


def test_who_only_looks_sees_no_button_and_a_page_left_open_keeps_nobody_signed_in(
    tmp_path: Path, look: Callable[..., Sight], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "SCRYPT_N", 1 << 4)
    site = WebSite(tmp_path, session_idle_seconds=120)
    fill(site.database, findings=160, now=site.database.now())
    site.account("vera", "viewer")
    page = sign_in(look(site.url), "vera")
    assert page.locator("[data-do]").count() == 0
    touched: list[object] = []
    monkeypatch.setattr(sessions, "touch", lambda *arguments: touched.append(arguments))
    monkeypatch.setattr(sessions, "TOUCH_AFTER", timedelta(0))
    client = site.signed_in("vera")
    touched.clear()
    assert client.post("/worklist/rows", data=HERE, headers={"X-Nadir-Poll": "1"}).status_code == 200
    assert touched == []
    assert client.post("/worklist/rows", data=HERE).status_code == 200
    assert len(touched) == 1
    site.stop()
