"""The cohort: who it shows, its charts, its numbers as a table and as files."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from browser import LAPTOP, TABLET, Sight, picture
from cohort_rows import LENGTHS, write_cohort
from patience import PATIENCE_SECONDS
from web_site import WebSite

from node.web.api import form
from node.web.frame import PLOTLY, TEMPLATES
from node.web.static_files import _content
from store import accounts
from store.patients import merge

NOW = datetime(2024, 7, 1, 9, 0, tzinfo=UTC)
NUMBERS = 3 * sum(map(len, LENGTHS.values()))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[WebSite, dict[str, int]]]:
    site = WebSite(tmp_path_factory.mktemp("cohort"))
    with site.database.transaction() as session:
        pks = write_cohort(session)
    with pytest.MonkeyPatch.context() as patch:  # a busy machine leaves no patient for the next answer
        patch.setattr("node.web.api.cohort.RECKON_SECONDS", PATIENCE_SECONDS)
        patch.setattr("node.web.cohort.FIRST_SECONDS", PATIENCE_SECONDS)
        yield site, pks
    site.stop()


@pytest.fixture
def site(filled: tuple[WebSite, dict[str, int]]) -> WebSite:
    return filled[0]


def patients(site: WebSite, **asked: Any) -> dict[str, dict[str, Any]]:
    answer = site.client().get("/api/cohort/patients", params=asked).json()
    assert answer["left"] == 0
    return {one["patient_id"]: one for one in answer["patients"]}


def test_courses_in_short_are_those_of_the_reports(filled: tuple[WebSite, dict[str, int]]) -> None:
    site, pks = filled
    found = patients(site)
    assert set(found) == set(LENGTHS)
    assert {name: found[name]["best_overall"] for name in LENGTHS} == {
        "SHRINKS": "PR", "GROWS": "PD", "STAYS": "SD", "ONCE": "", "=HYPERLINK(1)": "SD",
    }  # fmt: skip
    for name, pk in pks.items():
        told = site.client().get(f"/api/patients/{pk}/course").json()["responses"][0]
        points = told["time_points"]
        later = [one["overall"] for one in points[1:]]
        assert [one["verdict"] for one in found[name]["verdicts"]] == later
        assert found[name]["best_overall"] == (told["best_overall"] or "")
    assert found["SHRINKS"]["best_percent"] == pytest.approx(100 * (18 - 40) / 40)
    assert found["SHRINKS"]["days"] == 112 and found["SHRINKS"]["address"] == f"/patients/{pks['SHRINKS']}"


def test_the_charts_are_asked_for_page_by_page_and_filters_hold_for_people_and_numbers(site: WebSite) -> None:
    client = site.client()
    first = client.get("/api/cohort/patients", params={"limit": 3}).json()
    rest = client.get("/api/cohort/patients", params={"limit": 3, "cursor": first["next"]}).json()
    assert (first["total"], len(first["patients"]), len(rest["patients"]), rest["next"]) == (5, 3, 2, None)
    made_up = client.get("/api/cohort/patients", params={"cursor": form.cursor_of(None)})
    assert len(made_up.json()["patients"]) == 5
    assert set(patients(site, response="PR")) == {"SHRINKS"}
    assert set(patients(site, until="2024-01-11")) == {"SHRINKS", "GROWS"}
    assert patients(site, least=2) == {}
    numbers = client.get("/api/cohort/measurements", params={"response": "PR", "limit": 4}).json()
    assert numbers["total"] == 9 and len(numbers["measurements"]) == 4
    more = client.get(
        "/api/cohort/measurements", params={"response": "PR", "limit": 100, "cursor": numbers["next"]}
    ).json()
    pks = [one["measurement_pk"] for one in (*numbers["measurements"], *more["measurements"])]
    assert len(set(pks)) == 9 and pks == sorted(pks, reverse=True)
    for bad in ("criteria=none", "since=soon", "least=-1", "page=0", "sort=secret", "cursor=x"):
        path = "/api/cohort/measurements" if bad.startswith("cursor") else "/cohort"
        assert client.get(f"{path}?{bad}").status_code == 422, bad


def test_a_de_identified_file_holds_every_number_and_nobody(site: WebSite) -> None:
    site.heard.clear()
    answer = site.client().get("/api/cohort/export.csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(rows) == NUMBERS and len({row["patient_key"] for row in rows}) == len(LENGTHS)
    assert sorted({row["day"] for row in rows}, key=int) == ["0", "56", "112"]
    for secret in ("Secret", "SHRINKS", "HYPERLINK", "2024", "2.25.", "1.2."):
        assert secret not in answer.text
    assert answer.headers["content-disposition"] == 'attachment; filename="measurements-deidentified.csv"'
    (message,) = site.heard
    assert "de-identified measurements as csv" in message.xml(NOW, "NADIR")


def test_a_file_with_names_is_told_in_the_trail_and_runs_no_formula(site: WebSite) -> None:
    site.heard.clear()
    text = site.client().get("/api/cohort/identified.csv", params={"name": "volume"}).text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert {row["patient_id"].removeprefix("'") for row in rows} == set(LENGTHS)
    assert "'=HYPERLINK(1)" in text and ",=HYPERLINK" not in text
    (message,) = site.heard
    assert len({one.id for one in message.subjects if one.role == "1"}) == len(LENGTHS)
    assert "110106" in message.xml(NOW, "NADIR") and "identified measurements" in message.xml(NOW, "NADIR")
    parquet = pytest.importorskip("pyarrow.parquet")
    content = site.client().get("/api/cohort/export.parquet").content
    assert parquet.read_table(io.BytesIO(content)).num_rows == NUMBERS


def test_a_file_of_many_patients_with_names_is_told_in_parts_that_name_each_of_them(
    site: WebSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.web.api.cohort.MOST_NAMED", 2)
    site.heard.clear()
    site.client().get("/api/cohort/identified.csv")
    named = [[one.id for one in message.subjects if one.role == "1"] for message in site.heard]
    assert [len(part) for part in named] == [2, 2, 1]
    assert len({pseudonym for part in named for pseudonym in part}) == len(LENGTHS)


def test_a_viewer_sees_the_cohort_and_takes_nothing_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "SCRYPT_N", 1 << 10)
    site = WebSite(tmp_path)
    shown = {}
    for role in ("viewer", "physicist", "administrator"):
        site.account(role, role)
        client = site.signed_in(role)
        page = client.get("/cohort")
        shown[role] = (
            page.status_code, "export.csv" in page.text, "identified.csv" in page.text,
            client.get("/api/cohort/export.csv").status_code, client.get("/api/cohort/identified.csv").status_code,
        )  # fmt: skip
    site.stop()
    assert shown == {
        "viewer": (200, False, False, 403, 403),
        "physicist": (200, True, False, 200, 403),
        "administrator": (200, True, True, 200, 200),
    }
    assert "No patient has a study" in page.text


def charted(page: Any, plot: str) -> Any:
    page.wait_for_selector(f"[data-plot={plot}] .main-svg")
    return page.locator(f"[data-plot={plot}]")


@pytest.mark.parametrize(
    ("size", "dark"), [(LAPTOP, False), pytest.param(TABLET, True, marks=pytest.mark.long)]
)
def test_the_page_in_a_browser(
    filled: tuple[WebSite, dict[str, int]], look: Callable[..., Sight], size: tuple[int, int], dark: bool
) -> None:
    site, pks = filled
    sight = look(site.url, size, dark=dark)
    page = sight.open("/cohort")
    page.wait_for_selector("#progress:not([hx-get])")
    charted(page, "swimmer")
    charted(page, "waterfall").locator(".bars path").nth(3).wait_for()
    charted(page, "progression").locator(".scatterlayer .points path").first.wait_for(state="attached")
    said = page.locator("#progression")
    assert "4 patients with a visit after the baseline, 1 with progression" in said.inner_text()
    rows = [row.inner_text().split("\t") for row in said.locator("tbody tr").all()]
    assert rows[0] == ["At risk", "4", "4", "4", "1", "1"]
    assert rows[1] == ["Without progression", "100 %", "100 %", *["75 % 13–96"] * 3]
    page.locator("#people tbody tr").nth(len(LENGTHS) - 1).wait_for()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    picture(page, f"cohort-{'tablet-dark' if dark else 'laptop'}")
    sight.require_clean()
    page.locator("select[name=response] option[value=PR]").wait_for(state="attached")
    page.get_by_label("Best response").select_option("PR")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**/cohort?*response=PR*")
    assert page.locator("#people tbody tr").count() == 1
    assert page.locator("#numbers tbody tr").count() == 9
    page.get_by_role("link", name="Value").click()
    page.wait_for_url("**sort=value*")
    charted(page, "waterfall").locator(".bars path").first.wait_for()
    page.locator("[data-plot=waterfall]").scroll_into_view_if_needed()
    box = charted(page, "waterfall").locator(".bars path").first.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_url(f"**/patients/{pks['SHRINKS']}")


def test_plotly_finds_every_style_that_it_would_write_into_the_page() -> None:
    head = (TEMPLATES / "plots_head.html").read_text()
    script = (_content(PLOTLY) or b"").decode()
    asked = set(re.findall(r'if\(!document\.getElementById\("([0-9a-f]{40,})"\)\)', script))
    assert asked and all(f'id="{one}"' in head for one in asked)
    assert ".no-inline-styles" in script and 'class="no-inline-styles"' in head


def test_a_merge_makes_one_of_two(tmp_path: Path) -> None:
    site = WebSite(tmp_path)
    with site.database.transaction() as session:
        pks = write_cohort(session)
    assert len(patients(site)) == 5
    with site.database.transaction() as session:
        merge(session, pks["ONCE"], pks["STAYS"], "ANNA", site.database.now())
    found = patients(site)
    assert set(found) == set(LENGTHS) - {"ONCE"} and found["STAYS"]["lesions"] == 2
    rows = list(csv.DictReader(io.StringIO(site.client().get("/api/cohort/export.csv").text)))
    assert len({row["patient_key"] for row in rows}) == 4
    listed = site.client().get("/api/patients", params={"search": "stay"}).json()
    assert [(one["patient_id"], one["others"], one["studies"]) for one in listed["patients"]] == [
        ("STAYS", ["ONCE"], 3)
    ]
    assert (
        site.client().get("/api/patients", params={"search": "name1"}).json()["patients"][0]["patient_id"]
        == "GROWS"
    )
    assert site.client().get("/api/patients", params={"search": "%"}).json()["total"] == 0
    page = site.client().get(f"/patients/{pks['ONCE']}").text
    assert "nadir patients part ONCE" in page and "was declared to be STAYS" in page
    site.stop()
