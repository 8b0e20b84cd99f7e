"""Evaluation reports on the page of a model and as JSON: of the release, of this node, and never of other weights."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest
from browser import LAPTOP, TABLET, Sight, sign_in
from web_site import WebSite

from models.shipped import EVALUATIONS, VOUCHED, open_shipped
from node import evaluations
from node.evaluation_form import Cases, Report
from node.web.evaluations import ROWS, shown
from store import accounts
from store import evaluations as kept_rows

PAGE = {"Accept": "text/html"}
FAMILY = "petct_multitask"
SHIPPED = sorted(path.stem for path in EVALUATIONS.glob("*.json"))
OURS = {"value": 0.71949, "low": 0.0996, "high": 0.9}
"""The mean Dice of the report that the node keeps; the page says 0.719 0.100 to 0.900."""

# One site for all of them.
pytestmark = pytest.mark.xdist_group("model-evaluations")


def release() -> dict[str, Any]:
    """Return the report that comes with the weights, which is another one whenever they are judged again."""
    plain: dict[str, Any] = json.loads((EVALUATIONS / f"{FAMILY}.json").read_text())
    return plain


def first_dice(plain: Mapping[str, Any]) -> dict[str, float]:
    """Return the mean Dice of the first setting with its interval."""
    figure: dict[str, float] = next(iter(plain["figures"]["segmentation"]["settings"].values()))["dice"]
    return figure


def kept_folder(folder: Path, **changed: Any) -> Path:
    """Write a report as `nadir evaluate` leaves one: that of the release with other data and another Dice."""
    folder.mkdir()
    plain = release()
    plain["data"] |= {"name": "our <b>sarcomas</b>", "sha256": "a" * 64, "cases": "17", "patients": "16"}
    first_dice(plain).update(OURS)
    (folder / "evaluation.json").write_text(json.dumps(plain | changed))
    (folder / "report.html").write_text("<!doctype html><title>Report</title><script>alert(1)</script>")
    (folder / "report.pdf").write_bytes(b"%PDF-1.4")
    (folder / "notes.txt").write_text("not of the report")
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebSite]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accounts, "SCRYPT_N", 1 << 10)
        made = WebSite(tmp_path_factory.mktemp("evaluations"))
        made.account("viewer", "viewer")
        folder = kept_folder(tmp_path_factory.mktemp("out") / "report")
        assert evaluations.keep(made.database, made.settings, folder, "physicist at the command line") == "1"
        yield made
        made.stop()


@pytest.fixture(scope="module")
def viewer(site: WebSite) -> httpx.Client:
    return site.signed_in("viewer")


def text(answer: httpx.Response) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


@pytest.mark.parametrize("family", SHIPPED)
def test_the_release_tells_of_the_weights_that_it_ships_on_the_data_of_their_card(family: str) -> None:
    content = (EVALUATIONS / f"{family}.json").read_bytes()
    report, model = Report.model_validate_json(content), open_shipped(family)
    assert report.model["sha256"] == VOUCHED[family] == model.manifest.sha256
    assert evaluations.differing(report, model.card) is not None  # the same data; the page tells what differs
    assert report.cases and any(section.charts for section in report.sections)
    assert len(content) <= 200_000 and b"image/png" not in content


def test_a_shipped_model_shows_its_evaluation_with_figures_groups_charts_and_cases(
    viewer: httpx.Client,
) -> None:
    plain, listing = release(), text(viewer.get(f"/models/{FAMILY}/shipped", headers=PAGE))
    data = plain["data"]
    row = (
        f"{data['name']} {data['cases']} {data['patients']} {data['sha256'][:12]} the release evaluation.json"
    )
    assert row in listing
    page = viewer.get(f"/models/{FAMILY}/shipped/evaluations/release", headers=PAGE)
    said = text(page)
    assert "every figure on it was found again" in said
    now, on_the_card = (
        f"{dice['value']:.3f} {dice['low']:.3f} to {dice['high']:.3f}"
        for dice in (first_dice(plain), first_dice(open_shipped(FAMILY).card))
    )
    assert f"Dice, mean {now} {on_the_card}" in said
    for group in plain["figures"]["segmentation"]["groups"]:
        assert f"{group['by']} {group['name']} {group['cases']}" in said
    charts = [chart for section in plain["sections"] for chart in section["charts"]]
    assert charts and all(chart["caption"] in said for chart in charts)
    assert page.text.count('data-plot="judged"') == len(charts) and "style=" not in page.text
    assert f"Weights judged {VOUCHED[FAMILY]}" in said


def test_figures_of_the_card_that_are_not_found_again_are_told() -> None:
    report = Report.model_validate_json((EVALUATIONS / f"{FAMILY}.json").read_bytes())
    card = json.loads(json.dumps(open_shipped(FAMILY).card))
    assert evaluations.differing(report, card) == []
    card["figures"]["survival"]["figures"]["c_index"]["value"] = 1.25
    now = report.figures["survival"]["figures"]["c_index"]["value"]
    (sentence,) = evaluations.differing(report, card) or []
    assert sentence == f"survival / figures / c_index: 1.25 on the card, {now:.6g} now"


def test_what_a_site_kept_is_listed_with_its_files_and_who_reads_it_is_in_the_trail(
    viewer: httpx.Client, site: WebSite
) -> None:
    listing = text(viewer.get(f"/models/{FAMILY}/shipped", headers=PAGE))
    assert "our <b>sarcomas</b> 17 16 aaaaaaaaaaaa physicist at the command line report.html ," in listing
    here, before = f"/models/{FAMILY}/shipped/evaluations/1", len(site.heard)
    said = text(viewer.get(here, headers=PAGE))
    assert "other data, another number" in said and "Dice, mean 0.719 0.100 to 0.900" in said
    report = viewer.get(f"{here}/files/report.html")
    assert report.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    paper = viewer.get(f"{here}/files/report.pdf")
    assert (
        paper.content == b"%PDF-1.4" and "petct_multitask-shipped-1" in paper.headers["content-disposition"]
    )
    told = [subject.name for one in site.heard[before:] for subject in one.subjects]
    assert told == [
        f"evaluation 1 of {FAMILY}/shipped {how}" for how in ("as a page", "as report.html", "as report.pdf")
    ]
    for path in (
        f"{here}/files/notes.txt",
        f"{here}/files/..%2Fevaluation.json",
        f"/models/{FAMILY}/shipped/evaluations/release/files/report.html",
        "/models/nodule_segmenter/shipped/evaluations/1",
        f"/models/{FAMILY}/shipped/evaluations/{10**30}",
        f"/models/{FAMILY}/7/evaluations/release",
    ):
        assert viewer.get(path, headers=PAGE).status_code == 404, path
    assert httpx.get(f"{site.url}{here}/files/report.pdf", trust_env=False).status_code == 401


def test_a_report_of_other_weights_is_not_shown_and_the_page_says_so(
    viewer: httpx.Client, site: WebSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = release()
    other["model"]["sha256"] = "b" * 64
    (tmp_path / f"{FAMILY}.json").write_text(json.dumps(other))
    monkeypatch.setattr(evaluations, "EVALUATIONS", tmp_path)
    said = text(viewer.get(f"/models/{FAMILY}/shipped", headers=PAGE))
    assert "The report is of other weights than those of petct_multitask shipped and is not shown" in said
    refused = viewer.get(f"/models/{FAMILY}/shipped/evaluations/release", headers=PAGE)
    assert refused.status_code == 400 and "Dice" not in refused.text
    none = text(viewer.get("/models/nodule_detector/shipped", headers=PAGE))
    cases = open_shipped("nodule_detector").card["figures"]["data"]["cases"]
    says = "No evaluation comes with nodule_detector shipped. The figures on the card below come from"
    assert f"{says} {cases} cases" in none
    with pytest.raises(evaluations.Refused, match="none of them"):
        evaluations.keep(site.database, site.settings, kept_folder(tmp_path / "x", model=other["model"]), "x")
    with pytest.raises(evaluations.Refused, match=r"figures: Input should be an object"):
        evaluations.keep(site.database, site.settings, kept_folder(tmp_path / "y", figures=[]), "x")


def test_a_file_that_was_changed_after_it_was_kept_is_refused(
    viewer: httpx.Client, site: WebSite, tmp_path: Path
) -> None:
    number = evaluations.keep(site.database, site.settings, kept_folder(tmp_path / "z"), "x")
    with site.database.reading() as session:
        row = kept_rows.get(session, VOUCHED[FAMILY], int(number))
    path = site.settings.home / row.folder / "evaluation.json"
    path.write_text(path.read_text() + " ")
    answer = viewer.get(f"/models/{FAMILY}/shipped/evaluations/{number}", headers=PAGE)
    assert answer.status_code == 400 and "is not the file that was kept" in text(answer)


def test_cases_are_sorted_by_any_column_and_paged() -> None:
    rows = [[f"case {n}", None if n == 3 else float(n % 7)] for n in range(60)]
    columns = [{"name": "case_id", "words": "Case", "digits": None}, {"name": "x", "words": "X", "digits": 1}]
    table = Cases.model_validate({"task": "detection", "columns": columns, "rows": rows})
    first = shown(0, table, "-1")
    assert (first.pages, len(first.rows)) == (3, ROWS)
    assert [row[1] for row in first.rows] == sorted((row[1] for row in first.rows), reverse=True)
    assert shown(0, table, "-1", 9).rows[-1] == shown(0, table, "1", 9).rows[-1] == ("case 3", None)
    assert first.query(column=1) == "of=0&sort=1&page=1" and first.order(1) == "descending"
    assert shown(0, table, "77").rows[0][0] == "case 0"


def test_the_json_is_the_same_report_and_documented(viewer: httpx.Client, site: WebSite) -> None:
    token = site.client(Authorization=f"Bearer {site.token('reader', 'api')}")
    listing = token.get(f"/api/models/{FAMILY}/shipped/evaluations").json()
    assert listing["evaluations"][-1]["key"] == "release" and listing["none_of_release"] == ""
    report = token.get(f"/api/models/{FAMILY}/shipped/evaluations/release").json()
    kept = release()
    assert report["figures"] == kept["figures"] and report["cases"][0]["rows"] == kept["cases"][0]["rows"]
    assert token.get(f"/api/models/{FAMILY}/shipped/evaluations/99").json()["code"] == "no-such-evaluation"
    paths = site.app.openapi()["paths"]
    shape = paths["/api/models/{family}/{number}/evaluations/{key}"]["get"]["responses"]["200"]["content"]
    assert shape["application/json"]["schema"]["$ref"].endswith("/Report")


@pytest.mark.long
@pytest.mark.parametrize(("size", "dark"), [(LAPTOP, False), (TABLET, True)])
def test_in_a_browser_the_report_is_drawn_and_its_cases_are_sorted(
    site: WebSite, look: Callable[..., Sight], size: tuple[int, int], dark: bool
) -> None:
    sight = look(site.url, size, dark=dark)
    page = sign_in(sight, "viewer")
    sight.open(f"/models/{FAMILY}/shipped/evaluations/1")
    page.locator(".js-plotly-plot").nth(3).wait_for()
    page.get_by_role("link", name="Dice", exact=True).click()
    page.locator("#cases-0 th[aria-sort=ascending]").wait_for()
    table = release()["cases"][0]
    place = [column["name"] for column in table["columns"]].index("figures dice")
    least = min(row[place] for row in table["rows"])
    assert page.locator("#cases-0 tbody tr").first.locator("td").nth(place).inner_text() == f"{least:.3f}"
    sight.require_clean()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
