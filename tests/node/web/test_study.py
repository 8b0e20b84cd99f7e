"""The page of a study and its JSON: what it states, what a person may decide, and how it looks in a browser."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import pytest
from browser import TABLET, Sight
from course_rows import Clock, Linked, lesion, visit
from sqlmodel import Session, select
from web_site import WebSite

from store import accounts
from store.tables import Choice, Finding, Instance, Job, Study
from store.tracking.link import Kind

JANUARY, MARCH = date(2026, 1, 10), date(2026, 3, 10)
ONE, TWO, NEW = "2.25.1", "2.25.2", "2.25.3"
PAGE, NOTHING = "/studies/1.2.2", "/studies/1.2.3"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebSite]:
    """Give a node with two visits, a new lesion at the second, and a study in which nothing was found."""
    made = WebSite(tmp_path_factory.mktemp("study"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accounts, "SCRYPT_N", 1 << 4)
        made.account("ANNA", "physicist")
        made.account("VERA", "viewer")
        with made.database.transaction() as session:
            clock = Clock()
            both = [lesion(ONE), lesion(TWO, segment_number=2)]
            first = visit(session, clock, JANUARY, both, study="1.2.1")
            found = [lesion(ONE, 18), lesion(NEW, 30, segment_number=2, label="Nodule <B>")]
            links = [
                Linked(kind=Kind.SAME, uid=ONE, earlier=[ONE], study=first),
                Linked(kind=Kind.NEW, uid=NEW, study=first),
                Linked(kind=Kind.GONE, uid=TWO, earlier=[TWO], study=first, is_drawn=False),
            ]
            visit(session, clock, MARCH, found, links, study="1.2.2")
            visit(session, clock, MARCH, [], study="1.2.3", patient={"patient_id": "Q"})
        yield made
    made.stop()


def say(site: WebSite, name: str, path: str = f"{PAGE}/choices", **fields: str) -> tuple[int, str]:
    client = site.signed_in(name)
    answer = client.post(path, data=fields, headers={"HX-Request": "true"})
    return answer.status_code, answer.text


def test_the_page_states_what_was_found_and_also_that_nothing_was(site: WebSite) -> None:
    client = site.signed_in("VERA")
    page = client.get(PAGE).text
    assert "Nodule &lt;B&gt;" in page and "Nodule <B>" not in page
    assert (
        "target: proposed by the rules of selection, by the baseline: Long axis 20.0 mm: measurable" in page
    )
    assert "nobody confirmed it yet" in page and "2.0 mm from where it was expected" in page
    assert "it looked, and nothing was found" in client.get(NOTHING).text
    assert client.get("/studies/1.2.9").status_code == 404
    assert "Accept" not in page and "Accept" in site.signed_in("ANNA").get(PAGE).text


def test_who_opens_a_study_is_told_to_the_trail(site: WebSite) -> None:
    site.heard.clear()
    site.signed_in("VERA").get(PAGE)
    (told,) = [m for m in site.heard if m.event.meaning == "DICOM Instances Accessed"]
    assert told.participants[0].user_id == "VERA" and told.subjects[0].id == "1.2.2"
    assert told.subjects[1].id != "P1"


def test_a_choice_by_page_has_the_account_as_its_author_and_is_told_to_the_trail(site: WebSite) -> None:
    site.heard.clear()
    status, parts = say(site, "ANNA", lesion=NEW, kind="confirm", value="true", note="seen on MR too")
    assert status == 200 and 'hx-swap-oob="true"' in parts and "confirmed as a lesion" in parts
    with site.database.reading() as session:
        row = session.exec(select(Choice).order_by(Choice.id.desc())).first()  # type: ignore[union-attr]
        assert row is not None
        assert (row.author, row.source, row.kind, row.note) == ("ANNA", "page", "confirm", "seen on MR too")
    (told,) = [m for m in site.heard if m.event.meaning == "Patient Record"]
    assert told.participants[0].user_id == "ANNA" and told.subjects[0].details == (
        ("Choice", f"{row.id} confirm"),
    )
    with site.database.reading() as session:
        assert list(session.exec(select(Job.plugin).where(Job.state == "queued"))) == ["response"]
    status, parts = say(site, "ANNA", f"{PAGE}/choices/{row.id}/undo")
    assert status == 200 and "confirmed as a lesion" not in parts
    assert say(site, "ANNA", f"{PAGE}/choices/{row.id}/undo")[0] == 409


def test_what_was_not_drawn_is_corrected_in_words_of_the_criteria(site: WebSite) -> None:
    assert "Looked for, not drawn here" in site.signed_in("VERA").get(PAGE).text
    status, parts = say(site, "ANNA", lesion=TWO, kind="status", value="NE")
    assert status == 200 and "<option selected>NE</option>" in parts and "seen: NE" in parts


def test_a_study_that_is_still_coming_is_asked_about_again_and_tells_of_other_findings(site: WebSite) -> None:
    client = site.signed_in("VERA")
    with site.database.transaction() as session:
        session.exec(select(Study).where(Study.study_instance_uid == "1.2.3")).one().state = "receiving"
    page = client.get(NOTHING).text
    assert "every 3s" in page and "receiving" in page
    mark = page.partition("/progress?seen=")[2].partition('"')[0]
    assert "other findings" not in client.get(f"{NOTHING}/progress", params={"seen": mark}).text
    assert "other findings" in client.get(f"{NOTHING}/progress", params={"seen": "1-1"}).text
    with site.database.transaction() as session:
        session.exec(select(Study).where(Study.study_instance_uid == "1.2.3")).one().state = "settled"


def test_the_page_of_a_study_that_was_done_tells_when_a_later_revision_has_other_findings(
    site: WebSite,
) -> None:
    client, clock, patient = site.signed_in("VERA"), Clock(seconds=1000, studies=50), {"patient_id": "R"}
    with site.database.transaction() as session:
        visit(session, clock, JANUARY, [lesion("2.25.51", 18)], study="1.2.51", patient=patient)
    page = client.get("/studies/1.2.51").text
    (asked,) = re.findall(r'hx-get="(/studies/1.2.51/progress[^"]*)" hx-trigger="every 5s"', page)
    before = client.get(asked).text
    assert asked in before and "other findings" not in before
    with site.database.transaction() as session:
        visit(session, clock, JANUARY, [lesion("2.25.51", 28)], study="1.2.51", patient=patient)
    assert "There are other findings now" in client.get(asked).text


@pytest.mark.parametrize(
    ("fields", "status", "sentence"),
    [
        ({"lesion": "2.25.77", "kind": "role", "value": "target"}, 404, "the patient has no lesion"),
        ({"lesion": ONE, "kind": "role", "value": "king"}, 400, "role is one of"),
        ({"lesion": NEW, "kind": "relink", "value": ONE}, 400, "is that lesion at this visit already"),
        ({"lesion": ONE, "kind": "drawn", "value": "x"}, 422, "kind"),
        ({"lesion": ONE, "kind": "site"}, 422, "value"),
    ],
)
def test_what_cannot_be_decided_is_refused_with_a_sentence(
    site: WebSite, fields: dict[str, str], status: int, sentence: str
) -> None:
    answered, text = say(site, "ANNA", **fields)
    assert answered == status and sentence in text
    assert say(site, "VERA", **fields)[0] == 403


def test_a_choice_of_a_finding_that_was_overtaken_since_it_was_looked_at_is_refused(site: WebSite) -> None:
    patient = {"patient_id": "R"}
    with site.database.transaction() as session:
        visit(session, Clock(), MARCH, [lesion("2.25.7")], study="1.2.7", patient=patient)
        pk = session.exec(select(Finding.id).where(Finding.tracking_uid == "2.25.7")).one()
    client = site.signed_in("ANNA")
    page, forms = client.get("/studies/1.2.7").text, client.get(f"/studies/1.2.7/findings/{pk}/choose").text
    assert f'"finding": "{pk}"' in page and forms.count(f'name="finding" value="{pk}"') == forms.count(
        "<form"
    )
    path, shown = "/studies/1.2.7/choices", {"lesion": "2.25.7", "finding": str(pk)}
    assert say(site, "ANNA", f"{PAGE}/choices", **shown, kind="reject", value="true")[0] == 404
    assert say(site, "ANNA", path, **shown, kind="outline", value="approved")[0] == 200
    assert say(site, "ANNA", path, **shown, kind="relink", value="new")[0] == 200
    status, text = say(site, "ANNA", path, **shown, kind="reject", value="true")
    assert status == 409 and "load the page again" in text
    with site.database.transaction() as session:
        found = session.get_one(Finding, pk)
        found.superseded = True
    assert say(site, "ANNA", path, **shown, kind="outline", value="approved")[0] == 409
    assert len(client.get("/api/studies/1.2.7/choices").json()["choices"]) == 2


def test_a_form_that_was_shown_before_somebody_else_decided_overwrites_nothing(site: WebSite) -> None:
    client, listed = site.signed_in("ANNA"), f"/api{PAGE}/choices"
    row = re.search(
        r'name="lesion" value="' + TWO + r'".*?name="seen" value="([\d,]*)"', client.get(PAGE).text
    )
    assert row is not None
    shown = {"lesion": TWO, "kind": "status", "seen": row[1]}
    before = client.get(listed).json()["total"]
    status, _ = say(site, "ANNA", **shown, value="absent")
    assert status == 200
    status, text = say(site, "ANNA", **shown, value="NE")
    assert status == 409 and "somebody decided of it meanwhile" in text
    assert client.post(listed, json={**shown, "value": "NE"}).json()["code"] == "overtaken"
    (made,) = client.get(listed).json()["choices"][before:]
    assert (made["value"], client.post(f"{listed}/{made['number']}/undo").status_code) == ("absent", 201)
    assert say(site, "ANNA", **shown, value="NE")[0] == 200
    (pk, *_) = (
        f["finding"] for f in client.get("/api/findings", params={"study": "1.2.2"}).json()["findings"]
    )
    forms = client.get(f"{PAGE}/findings/{pk}/choose").text
    assert forms.count('name="seen"') == forms.count("<form")


def test_the_json_tells_findings_choices_and_what_was_made_of_them(site: WebSite) -> None:
    client = site.signed_in("ANNA")
    rows = client.get("/api/findings", params={"study": "1.2.2", "limit": 1}).json()
    assert (rows["total"], {row["label"] for row in rows["findings"]}) == (2, {"Nodule .1"})
    rest = client.get("/api/findings", params={"study": "1.2.2", "cursor": rows["next"]}).json()
    assert {row["label"] for row in rest["findings"]} == {"Nodule <B>"} and rest["next"] is None
    made = client.post(
        "/api/studies/1.2.2/choices", json={"lesion": ONE, "kind": "outline", "value": "approved"}
    )
    assert made.status_code == 201 and made.json()["author"] == "ANNA"
    listed = client.get("/api/studies/1.2.2/choices").json()["choices"]
    assert (listed[-1]["kind"], listed[-1]["counts"]) == ("outline", True)
    told = client.get("/api/assessments", params={"study": "1.2.2"}).json()
    assert told["counts"] == {"accepted": 1, "not-assessed": 1} and told["total"] == 2
    one = client.get(f"/api/findings/{told['assessments'][0]['finding']}").json()
    assert one["role_because"] == "Long axis 20.0 mm: measurable, one of the largest of lung."
    assert one["assessment"]["verdict"] == "accepted" and one["identity"]["lesion_uid"] == ONE
    assert [m["name"] for m in one["measurements"]] == ["long_axis", "short_axis"]
    number = made.json()["number"]
    assert client.post(f"/api/studies/1.2.2/choices/{number}/undo").status_code == 201
    study = client.get("/api/studies/1.2.2").json()
    assert study["head"]["patient_id"] == "P1" and study["analyses"][0]["findings"] == 2
    assert len(client.get("/api/studies/1.2.2/findings").json()["findings"]) == 2


def test_pictures_and_results_whose_files_are_gone_are_told_of_in_a_sentence(site: WebSite) -> None:
    client = site.signed_in("VERA")
    pk = client.get("/api/findings", params={"study": "1.2.2"}).json()["findings"][0]["finding"]
    for path in (f"{PAGE}/findings/{pk}/picture", f"/api/findings/{pk}/slices"):
        answer = client.get(path)
        assert answer.status_code == 404 and "no longer here" in answer.json()["error"]
    assert client.get(f"{NOTHING}/findings/{pk}/picture").status_code == 404
    result = client.get("/api/studies/1.2.2").json()["analyses"][0]["results"][0]["result_pk"]
    answer = client.get(f"{PAGE}/results/{result}")
    assert answer.status_code == 404 and "no longer on this node" in answer.json()["error"]


def newest(session: Session) -> str:
    statement = select(Study.study_instance_uid).order_by(Study.study_date.desc())  # type: ignore[union-attr]
    return str(session.exec(statement).first())


@pytest.mark.xdist_group("demo")
def test_a_person_looks_at_slices_accepts_one_lesion_and_rejects_another_in_a_browser(
    demo_site: WebSite, look: Callable[..., Sight]
) -> None:
    with demo_site.database.reading() as session:
        uid = newest(session)
    sight = look(demo_site.url, TABLET, dark=True)
    page = sight.open(f"/studies/{uid}")
    card = page.locator(".finding", has=page.get_by_role("heading", name="Nodule 6"))
    card.scroll_into_view_if_needed()
    card.locator("input[type=range]:not([disabled])").wait_for()
    picture = card.locator(".near img")
    picture.evaluate("image => image.decode()")
    assert picture.evaluate("image => image.naturalWidth") == 480
    card.get_by_role("button", name="Slice behind").click()
    assert "slice=" in (picture.get_attribute("src") or "")
    page.keyboard.press("o")
    assert "outline=false" in (picture.get_attribute("src") or "")
    card.get_by_role("button", name="Accept").click()
    card.locator(".chip", has_text="accepted").wait_for()
    assert "accepted" in page.locator("#finding-table tr", has_text="Nodule 6").inner_text()
    card.get_by_role("button", name="Reject or change").click()
    dialog = page.get_by_role("dialog", name="Decide")
    dialog.get_by_role("heading", name="Nodule 6").wait_for()
    dialog.get_by_role("combobox", name="It is").select_option(label="Nodule 1")
    dialog.get_by_role("button", name="Relink").click()
    dialog.get_by_role("alert").wait_for()
    assert "at this visit already" in dialog.get_by_role("alert").inner_text()
    sight.require_clean()
    reject = dialog.locator("form", has=page.get_by_role("button", name="Reject"))
    reject.get_by_label("Why").fill("a vessel")
    reject.get_by_role("button", name="Reject").click()
    card.locator(".chip", has_text="rejected").wait_for()
    assert not dialog.is_visible() and "a vessel" in card.inner_text()
    card.get_by_role("button", name="Take back: rejected").click()
    card.locator(".chip", has_text="accepted").wait_for()
    sight.require_clean()


@pytest.mark.xdist_group("demo")
@pytest.mark.parametrize("width", [320, 375])
def test_the_page_and_the_worklist_are_no_wider_than_a_phone(
    demo_site: WebSite, look: Callable[..., Sight], width: int
) -> None:
    with demo_site.database.reading() as session:
        uid = newest(session)
    sight = look(demo_site.url, (width, 800))
    page = sight.open(f"/studies/{uid}")
    assert page.locator(".numbers").count() > 1
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert sight.open("/worklist").evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.xdist_group("demo")
def test_a_picture_is_drawn_once_and_one_whose_images_are_gone_says_so_on_the_page(
    demo_site: WebSite, look: Callable[..., Sight]
) -> None:
    pictures = Path(demo_site.settings.home) / "pictures"
    shutil.rmtree(pictures, ignore_errors=True)
    with demo_site.database.reading() as session:
        uid = newest(session)
        hashes = list(session.exec(select(Instance.sha256)))
    client = demo_site.client()
    found = client.get(f"/api/studies/{uid}/findings").json()["findings"]
    address = f"/studies/{uid}/findings/{found[0]['finding_pk']}/picture"
    assert client.get(address).content == client.get(address).content
    assert len(list(pictures.rglob("*.png"))) == 1
    assert client.get(address).headers["Cache-Control"] == "no-store"
    away = demo_site.settings.home / "away"
    (demo_site.settings.home / "store" / "objects").rename(away)
    try:
        assert client.get(address).status_code == 200  # it was kept
        lost = client.get(address, params={"slice": 40})
        assert hashes and lost.status_code == 404 and "no longer here" in lost.json()["error"]
        shutil.rmtree(pictures)
        sight = look(demo_site.url)
        page = sight.open(f"/studies/{uid}")
        page.locator(".finding [role=alert]").first.wait_for()
        assert "no longer here" in page.locator(".finding [role=alert]").first.inner_text()
        sight.require_clean()
    finally:
        away.rename(demo_site.settings.home / "store" / "objects")
