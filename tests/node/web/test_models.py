"""The models page and its JSON: what counts and what waits, decisions by people, runs that go on, drift, documents."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from datetime import timedelta
from html import unescape

import httpx
import pytest
from browser import LAPTOP, TABLET, Sight, sign_in
from models_in_use import NAME, retrained
from playwright.sync_api import expect
from sqlmodel import col, select
from web_site import WebSite

from models.shipped import VOUCHED, open_shipped
from node.model_documents import document_of, documents_of
from node.schedule import Schedule
from node.settings import Settings
from node.web.week_plots import plots
from plugins.errors import Refused
from store import accounts, asked_runs, leases, registry, runs
from store.audit_tables import AuditRecord
from store.model_tables import TrainingRun
from store.runs import State
from training.drift_told import Course

PAGE = {"Accept": "text/html"}

# One site for all of them: what one leaves, the next one finds.
pytestmark = pytest.mark.xdist_group("models")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebSite]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accounts, "SCRYPT_N", 1 << 10)
        made = WebSite(tmp_path_factory.mktemp("models"))
        retrained(made.settings.home, made.database)
        for role in accounts.ROLES:
            made.account(role, role)
        yield made
        made.stop()


@pytest.fixture(scope="module")
def viewer(site: WebSite) -> httpx.Client:
    return site.signed_in("viewer")


@pytest.fixture(scope="module")
def physicist(site: WebSite) -> httpx.Client:
    return site.signed_in("physicist")


@pytest.fixture(scope="module")
def administrator(site: WebSite) -> httpx.Client:
    return site.signed_in("administrator")


def text(answer: httpx.Response) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


def counting(site: WebSite) -> str:
    with site.database.reading() as session:
        return registry.counts_now(session, NAME)


def last_audit(site: WebSite) -> str:
    with site.database.reading() as session:
        rows = select(AuditRecord).order_by(col(AuditRecord.id).desc()).limit(1)
        return session.exec(rows).one().message


def test_the_list_tells_of_each_family_what_counts_what_waits_and_what_changed(viewer: httpx.Client) -> None:
    shown = text(viewer.get("/models", headers=PAGE))
    assert (
        "nodule_segmenter 1 , version 1.1.0 2025-12-20 09:00 approved by Dr. First 3 proposed learning"
        in shown
    )
    assert "fold 2: step 300 of 600 1 changed" in shown
    version = open_shipped("petct_multitask").manifest.version
    assert f"petct_multitask shipped , version {version} the release nothing none yet no alarm" in shown
    assert "2026-W13 lung_nodule: the reconstruction kernel changed: 'soft' 75% -> 0%." in shown
    labels = text(viewer.get("/models/labels"))
    assert "0 of 0 masks came since the last run that learned; 20 new ones are needed" in labels


def test_a_family_shows_its_models_runs_and_history(viewer: httpx.Client) -> None:
    shown = text(viewer.get(f"/models/{NAME}", headers=PAGE))
    assert re.search(
        r"3 1\.3\.0 waits for a person .* 2 1\.2\.0 not proposed .* 1 1\.1\.0 counts .* shipped", shown
    )
    assert "learning 1 of 3 " in shown and " 71 22 fold 2: step 300 of 600 –" in shown
    assert "2025-12-20 09:00 approved 1 Dr. First It draws better." in shown
    part = viewer.get(f"/models/{NAME}/runs", headers={"HX-Request": "true"}).text
    assert part.startswith('<div id="runs-part" hx-get="/models/nodule_segmenter/runs" hx-trigger="every 3s"')
    still = viewer.get("/models/petct_multitask/runs").text
    assert "hx-get" not in still and "No run yet." in still


def test_drift_over_the_weeks_is_drawn_with_its_alarm_first(viewer: httpx.Client) -> None:
    shown = viewer.get(f"/models/{NAME}/drift").text
    assert "2026-W13: lung_nodule: the reconstruction kernel changed: " in unescape(shown)
    first = shown.partition("<figure")[2].partition("</figure>")[0]
    assert "Reconstruction kernel over the weeks" in first and first.count('<g class="bad">') == 2
    assert "style=" not in shown
    assert "Nothing was analysed with this family yet" in viewer.get("/models/petct_multitask/drift").text


def test_the_drawing_of_a_quantity_without_values_is_empty_and_not_broken() -> None:
    assert plots(Course(plugin="x", families=(), weeks=(), limits=None), ()) == []  # type: ignore[arg-type]


def test_a_model_shows_its_card_its_figures_with_intervals_and_the_gate_check_by_check(
    viewer: httpx.Client,
) -> None:
    shown = text(viewer.get(f"/models/{NAME}/3", headers=PAGE))
    assert "The gate proposed it. Proposed. Mean Dice: 0.8" in shown
    assert "Learned from Twelve balls <b>in noise</b>. Licence" in shown
    assert "Limits Balls are round. Nobody is a ball." in shown
    assert "Dice, mean 0.841 0.830 to 0.852 Volume, mean error, % −1.2 How" in shown
    assert re.search(r"Mean Dice passed 0\.8\d\d 0\.8\d\d 0\.030 0\.030 to 0\.030", shown)
    assert "Nobody kept an evaluation of this model here. The documents of run 3 below compare it" in shown
    shipped = text(viewer.get(f"/models/{NAME}/shipped", headers=PAGE))
    dice = open_shipped(NAME).card["figures"]["segmentation"]["settings"]["the crop alone"]["dice"]
    assert "replaced" in shipped and "856 nodule crops of 471 patients" in shipped
    assert f"Dice, mean {dice['value']:.3f} {dice['low']:.3f} to {dice['high']:.3f}" in shipped


@pytest.mark.parametrize(
    "path",
    [
        "/models/liver",
        f"/models/{NAME}/9",
        f"/models/{NAME}/x",
        f"/models/{NAME}/{'9' * 40}",
        "/models/liver/drift",
    ],
)
def test_what_is_not_there_is_a_page_with_a_sentence(viewer: httpx.Client, path: str) -> None:
    answer = viewer.get(path, headers=PAGE)
    assert answer.status_code == 404
    assert "there is no" in text(answer)


def test_documents_come_as_pages_that_may_run_nothing_and_no_other_file_does(
    viewer: httpx.Client, site: WebSite, look: Callable[..., Sight]
) -> None:
    page = viewer.get(f"/models/{NAME}/runs/1/impact.html")
    assert page.status_code == 200 and "<script>" in page.text
    policy = page.headers["content-security-policy"]
    assert policy.startswith("sandbox; default-src 'none'") and "script-src" not in policy
    paper = viewer.get(f"/models/{NAME}/runs/1/impact.pdf")
    assert paper.headers["content-disposition"] == 'attachment; filename="nodule_segmenter-run1-impact.pdf"'
    told = [subject.name for message in site.heard for subject in message.subjects]
    assert told[-2:] == [f"impact.{kind} of run 1 of {NAME}" for kind in ("html", "pdf")]
    for path in (
        f"{NAME}/runs/1/protocol.html",
        f"{NAME}/runs/1/..%2F..%2Fsides.salt",
        "petct_multitask/runs/1/impact.html",
        f"{NAME}/runs/4/impact.html",
        f"{NAME}/runs/{10**30}/impact.html",
        f"{NAME}/runs/99/impact.html",
    ):
        assert viewer.get(f"/models/{path}").status_code == 404, path


def test_a_viewer_decides_nothing_and_a_physicist_starts_no_run(
    viewer: httpx.Client, physicist: httpx.Client
) -> None:
    given = {"confirm": f"{NAME} 3"}
    assert viewer.post(f"/models/{NAME}/3/approve", data=given).status_code == 403
    assert viewer.post(f"/models/{NAME}/rollback", data=given).status_code == 403
    assert physicist.post(f"/models/{NAME}/retrain", data=given).status_code == 403
    assert "Approve …" not in viewer.get(f"/models/{NAME}/3", headers=PAGE).text


def test_the_json_says_the_same_and_decides_the_same(site: WebSite, physicist: httpx.Client) -> None:
    token = site.client(Authorization=f"Bearer {site.token('reader', 'api')}")
    families = token.get("/api/models").json()
    assert (families["total"], families["next"]) == (4, None)
    (own,) = [one for one in families["families"] if one["family"] == NAME]
    assert own["counts"]["number"] == 1 and [one["number"] for one in own["proposed"]] == [3]
    assert own["counts"]["decided_at"].endswith("Z")
    model = token.get(f"/api/models/{NAME}/3").json()
    assert model["state"] == "proposed" and model["judged_against"] == "1" and model["run"] == 3
    assert model["card"]["limits"] == ["Balls are round.", "Nobody is a ball."]
    gain = next(check for check in model["checks"] if check["name"] == "dice_gain")
    assert gain["difference"]["value"] == pytest.approx(0.03) and gain["outcome"] == "passed"
    page = token.get(f"/api/models/{NAME}/runs", params={"limit": 3}).json()
    rest = token.get(f"/api/models/{NAME}/runs", params={"limit": 3, "cursor": page["next"]}).json()
    assert [run["id"] for run in page["runs"] + rest["runs"]] == [4, 3, 2, 1]
    assert (page["total"], rest["next"]) == (4, None)
    assert [run["is_running"] for run in page["runs"]] == [True, False, False]
    drift = token.get(f"/api/models/{NAME}/drift", params={"weeks": 2}).json()["analyses"][0]
    assert [week["week"] for week in drift["weeks"]] == ["2026-W12", "2026-W13"]
    assert token.post(f"/api/models/{NAME}/3/approve", json={}).status_code == 403
    wrong = physicist.post(f"/api/models/{NAME}/2/approve", json={})
    assert (wrong.status_code, wrong.json()["code"]) == (409, "not-proposed")
    none = physicist.post("/api/models/petct_multitask/rollback", json={})
    assert (none.status_code, none.json()["code"]) == (409, "nothing-before")


def test_a_model_counts_after_it_was_typed_and_a_rollback_takes_it_back_with_its_line_in_the_trail(
    physicist: httpx.Client, site: WebSite
) -> None:
    before = counting(site)
    refused = physicist.post(f"/models/{NAME}/3/approve", data={"confirm": NAME}, headers=PAGE)
    assert refused.status_code == 400 and "nothing was changed: type 'nodule_segmenter 3'" in text(refused)
    not_proposed = physicist.post(f"/models/{NAME}/2/approve", data={"confirm": f"{NAME} 2"}, headers=PAGE)
    assert not_proposed.status_code == 409 and "the gate did not propose nodule_segmenter 2" in text(
        not_proposed
    )
    assert counting(site) == before
    done = physicist.post(
        f"/models/{NAME}/3/approve", data={"confirm": f" {NAME}  3 ", "note": "Better on 8 mm."}
    )
    assert (done.status_code, done.headers["location"]) == (303, f"/models/{NAME}")
    assert counting(site) not in (before, VOUCHED[NAME])
    told = last_audit(site)
    assert 'UserID="physicist"' in told and "models/nodule_segmenter/3" in told
    page = text(physicist.get(f"/models/{NAME}", headers=PAGE))
    assert "approved 3 physicist Better on 8 mm." in page
    back = physicist.post(f"/models/{NAME}/rollback", data={"confirm": NAME, "note": "No."})
    assert back.status_code == 303 and counting(site) == before
    assert "models/nodule_segmenter/1" in last_audit(site)


def test_a_rollback_from_a_page_on_which_another_model_counted_goes_no_further_back(
    physicist: httpx.Client, site: WebSite
) -> None:
    one, at = counting(site), f"/models/{NAME}/rollback"
    assert physicist.post(f"/models/{NAME}/3/approve", data={"confirm": f"{NAME} 3"}).status_code == 303
    three, page = counting(site), physicist.get(f"/models/{NAME}", headers=PAGE).text
    assert re.findall(r'name="in_place_of" value="(\w+)"', page) == [three] and three != one
    form = {"in_place_of": three, "confirm": NAME, "to": "before"}
    assert physicist.post(at, data=form).status_code == 303 and counting(site) == one
    for to in ("before", "shipped"):
        again = physicist.post(at, data={**form, "to": to}, headers=PAGE)
        assert again.status_code == 409 and f"another {NAME} counts by now than when you looked" in text(
            again
        )
    said = physicist.post(f"/api{at}", json={"in_place_of": three})
    assert (said.status_code, said.json()["code"]) == (409, "overtaken")
    assert physicist.post(f"/api{at}", json={"in_place_of": "3"}).status_code == 422
    assert counting(site) == one
    assert physicist.post(f"/api/models/{NAME}/3/approve", json={}).status_code == 200
    done = physicist.post(f"/api{at}", json={"in_place_of": three})
    assert (done.status_code, done.json()["counts"]["number"], counting(site)) == (200, 1, one)


def test_a_run_is_asked_of_the_scheduler_once_and_refused_when_nobody_would_begin_it(
    administrator: httpx.Client, site: WebSite
) -> None:
    running = administrator.post(f"/models/{NAME}/retrain", headers=PAGE)
    assert running.status_code == 409
    family = "petct_multitask"
    nobody = administrator.post(f"/models/{family}/retrain", headers=PAGE)
    assert nobody.status_code == 409 and "no scheduler of this node runs" in text(nobody)
    now, started = site.database.now(), []
    schedule = Schedule(
        site.database,
        Settings(home=site.settings.home),
        owner="here",
        start=lambda name, command: started.append((name, *command)) or 0,  # type: ignore[func-returns-value]
    )
    with site.database.transaction() as session:
        leases.take(session, leases.SCHEDULER, "here", now, 60)
    assert "node:2 has been retraining" in text(administrator.post(f"/models/{NAME}/retrain", headers=PAGE))
    assert administrator.post(f"/models/{family}/retrain").status_code == 303
    assert b64encode(b"retraining asked for").decode() in last_audit(site)
    assert administrator.post(f"/models/{family}/retrain", headers=PAGE).status_code == 409
    assert "A run was asked for by administrator" in text(
        administrator.get(f"/models/{family}", headers=PAGE)
    )
    schedule.tick(now)
    deadline = time.monotonic() + 60
    while not started and time.monotonic() < deadline:
        time.sleep(0.01)
    schedule.close()
    assert started == [("retrain petct_multitask", "models", "retrain", "petct_multitask")]
    with site.database.reading() as session:
        assert asked_runs.asked(session, family) is None
    assert administrator.post("/models/nodule_detector/retrain", headers=PAGE).status_code == 400


def test_a_run_that_was_killed_is_called_so_and_another_may_be_asked_for(site: WebSite) -> None:
    with site.database.transaction() as session:
        late = site.database.now() + timedelta(hours=3)
        run = runs.newest(session, NAME)
        assert run is not None and runs.is_alive(run, site.database.now()) and not runs.is_alive(run, late)
        asked_runs.ask(session, NAME, "x", late)
        assert asked_runs.take(session) == (NAME,)
        assert documents_of(site.settings.home, run) == []


@pytest.mark.parametrize("ended", [State.ABANDONED, State.FAILED])
def test_documents_are_those_of_the_run_that_judged_and_not_of_one_that_was_killed_in_its_folder(
    site: WebSite, ended: State
) -> None:
    home = site.settings.home
    with site.database.reading() as session:
        run = runs.get(session, 1)
    killed = TrainingRun(id=9, family=NAME, state=ended, owner="x", begun_at=run.begun_at, folder=run.folder)
    assert documents_of(home, run) == ["impact"] and documents_of(home, killed) == []
    with pytest.raises(Refused, match="no-such-document: run 9 of nodule_segmenter has no document"):
        document_of(home, killed, NAME, "impact.html")


def test_the_pages_are_made_without_torch() -> None:
    code = (
        "import sys, node.web.dashboard, training.drift_told, node.model_view, training.promotion, "
        "training.labelled_kind, training.evaluate.drawn; "
        "sys.exit(','.join({'torch', 'monai', 'SimpleITK', 'matplotlib'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("size", "dark"), [(LAPTOP, False), pytest.param(TABLET, True, marks=pytest.mark.long)]
)
def test_in_a_browser_the_pages_are_whole_at_both_sizes(
    site: WebSite, look: Callable[..., Sight], size: tuple[int, int], dark: bool
) -> None:
    sight = look(site.url, size, dark=dark)
    page = sign_in(sight, "physicist")
    every = ("/models", f"/models/{NAME}", f"/models/{NAME}/3", f"/models/{NAME}/shipped")
    for path in every if dark else every[1:3]:
        sight.open(path)
        page.wait_for_load_state("networkidle")
        sight.require_clean()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
    page.goto(f"{site.url}/models/{NAME}/runs/1/impact.html")
    assert page.title() == "Impact"
    assert page.evaluate("getComputedStyle(document.querySelector('h1')).color") == "rgb(1, 2, 3)"


def test_in_a_browser_a_physicist_approves_by_typing_and_sees_it_count(
    site: WebSite, look: Callable[..., Sight]
) -> None:
    sight = look(site.url)
    page = sign_in(sight, "physicist")
    sight.open(f"/models/{NAME}/3")
    page.get_by_role("button", name="Approve …").click()
    assert sight.serious_faults() == []
    page.get_by_label("Why").fill("It draws better.")
    page.get_by_role("button", name="Approve", exact=True).click()
    assert page.url.endswith("/3")  # the browser holds back what was not typed
    page.get_by_label("Type nodule_segmenter 3 to confirm").fill("nodule_segmenter 3")
    page.get_by_role("button", name="Approve", exact=True).click()
    page.wait_for_url(f"**/models/{NAME}")
    assert page.locator(".tile b").first.inner_text() == "3"
    page.get_by_role("button", name="Roll back …").click()
    page.get_by_label("to the model of the release").check()
    page.get_by_label("Type nodule_segmenter to confirm").fill(NAME)
    page.get_by_role("button", name="Roll back", exact=True).click()
    expect(page.locator(".tile b").first).to_have_text("shipped")
    assert counting(site) == VOUCHED[NAME]
