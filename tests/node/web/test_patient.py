"""The page of a patient: the numbers of the report, live, with pictures, files and what changed meanwhile."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from html import unescape
from typing import Any

import httpx
import pytest
from browser import LAPTOP, TABLET, Sight, picture
from demo_run import DemoRun
from sqlmodel import select
from web_site import WebSite

from store.choices import choose
from store.tables import Patient

pytestmark = pytest.mark.xdist_group("demo")
NOW = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def address(demo_site: WebSite) -> str:
    with demo_site.database.reading() as session:
        return f"/patients/{session.exec(select(Patient.id)).one()}"


def course(site: WebSite, address: str, *criteria: str) -> dict[str, Any]:
    asked = httpx.QueryParams([("criteria", name) for name in criteria])
    answer = site.client().get(f"/api{address}/course", params=asked)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_page_files_and_json_tell_the_same_numbers(demo_site: WebSite, address: str) -> None:
    client = demo_site.client()
    told = course(demo_site, address, "recist1.1", "volume")
    query = "?criteria=recist1.1&criteria=volume"
    page = unescape(client.get(address + query).text)
    file = client.get(f"{address}/course.json{query}").json()
    assert {**file, "made_at": ""} == {**told, "made_at": ""}
    assert [one["criteria"] for one in told["responses"]] == ["recist1.1", "volume"]
    for response in told["responses"]:
        for point in response["time_points"]:
            assert point["because"].removeprefix("Baseline: ").split(". ")[-1] in page
            assert f">{point['sum']:.1f}<" in page
    for lesion in told["lesions"]:
        assert lesion["tracking_uid"] in page
        for cell in lesion["cells"]:
            if "long_axis" in cell["numbers"]:
                assert f">{cell['numbers']['long_axis']['value']:.1f}" in page
    assert {one["name"] for one in told["densities"]} == {
        "laa_950",
        "laa_910",
        "perc_15",
        "mean_lung_density",
    }
    for one in told["densities"]:
        values = [value["value"] for value in one["values"]]
        first, last = (f" {value:.1f}".replace("-", "\N{MINUS SIGN}") for value in values)
        assert f"{first}, " in page and f"{last}</td>" in page
    rows = client.get(f"{address}/course.csv{query}").text.splitlines()
    seen = sum(bool(cell["status"]) for lesion in told["lesions"] for cell in lesion["cells"])
    assert len(rows) == 1 + seen
    curves = [json.loads(one) for one in re.findall(r'data-plot="curve" data-values="(\{.*?\})">', page)]
    assert [[p["sum"] for p in one["points"]] for one in curves] == [
        [p["sum"] for p in one["time_points"]] for one in told["responses"]
    ]


def test_files_are_given_whole_under_a_name_that_tells_nobody(demo_site: WebSite, address: str) -> None:
    client = demo_site.client()
    demo_site.heard.clear()
    pdf = client.get(f"{address}/course.pdf")
    assert pdf.content.startswith(b"%PDF") and len(pdf.content) > 100_000
    number = address.rpartition("/")[2]
    assert pdf.headers["content-disposition"] == f'attachment; filename="course-{number}.pdf"'
    html = client.get(f"{address}/course.html")
    assert html.text.count("data:image/png") > 5 and "<script" not in html.text
    (message, _) = demo_site.heard
    told = message.xml(NOW, "NADIR")
    assert "110106" in told and "PHANTOM" not in told


def test_programs_ask_whether_it_changed(demo_site: WebSite, address: str) -> None:
    client = demo_site.client()
    answer = client.get(f"/api{address}/course")
    again = client.get(f"/api{address}/course", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    shown = answer.headers["etag"].strip('"')
    assert client.get(f"{address}/state", params={"shown": shown}).status_code == 204
    assert "has changed" in client.get(f"{address}/state", params={"shown": "another"}).text


def test_what_there_is_not_is_told_in_a_sentence(demo_site: WebSite, address: str) -> None:
    client = demo_site.client(Accept="text/html")
    assert client.get("/patients/999").status_code == 404
    assert client.get("/api/patients/999/course").status_code == 404
    missing = client.get(f"{address}/lesions/1.2.3/pictures")
    assert missing.status_code == 404 and "no such lesion" in missing.text
    assert client.get(address, params={"criteria": "made-up"}).status_code == 422
    with demo_site.database.transaction() as session:
        session.add(Patient(patient_id="EMPTY"))
    with demo_site.database.reading() as session:
        empty = session.exec(select(Patient.id).where(Patient.patient_id == "EMPTY")).one()
    page = client.get(f"/patients/{empty}").text
    assert "There is no course yet" in page and "nothing that recist1.1 looks at was measured" in page
    assert client.get(f"/api/patients/{empty}/course").status_code == 409


@pytest.mark.parametrize(
    ("size", "dark"), [(LAPTOP, False), pytest.param(TABLET, True, marks=pytest.mark.long)]
)
def test_the_page_in_a_browser(
    demo_site: WebSite, address: str, look: Callable[..., Sight], size: tuple[int, int], dark: bool
) -> None:
    sight = look(demo_site.url, size, dark=dark)
    page = sight.open(f"{address}?criteria=recist1.1&criteria=percist")
    told = course(demo_site, address, "recist1.1", "percist")
    page.wait_for_selector("[data-plot=spider] .main-svg")
    assert page.locator("[data-plot=curve] .main-svg").first.is_visible()
    assert not page.locator("[data-plot=curve] > svg").first.is_visible()
    seen = sum(bool(cell["status"]) for lesion in told["lesions"] for cell in lesion["cells"])
    page.wait_for_function(f"() => document.querySelectorAll('.lesion-pictures img').length >= {seen - 4}")
    page.wait_for_function("() => !document.querySelector('.lesion-pictures[hx-get]')")
    widths = page.eval_on_selector_all(".lesion-pictures img", "all => all.map((one) => one.naturalWidth)")
    assert set(widths) == {272}
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    picture(page, f"patient-{'tablet-dark' if dark else 'laptop'}")
    sight.require_clean()
    ink = "document.querySelector('[data-plot=spider] .xtick text').style.fill"
    before = page.evaluate(ink)
    page.keyboard.press("t")
    page.wait_for_function(f"() => {ink} !== {json.dumps(before)}")
    page.emulate_media(media="print")
    assert page.locator("[data-plot=curve] > svg").first.is_visible()
    assert not page.locator("[data-plot=curve] .live").first.is_visible()


@pytest.mark.long
def test_a_choice_of_somebody_else_is_told_and_nothing_jumps(
    demo_site: WebSite, address: str, look: Callable[..., Sight]
) -> None:
    sight = look(demo_site.url)
    page = sight.open(address)
    target = next(one for one in course(demo_site, address)["lesions"] if one["code"] == "T1")
    page.evaluate("scrollTo(0, 900)")
    with demo_site.database.transaction() as session:
        pk, uid = int(address.rpartition("/")[2]), target["tracking_uid"]
        choose(session, pk, "role", uid, "non-target", author="ANNA", now=NOW, note="not reproducible")
    page.get_by_text("This course has changed").wait_for()
    assert page.evaluate("scrollY") == 900
    page.get_by_role("link", name="Load it again").click()
    page.get_by_text("counts as non-target (not reproducible)").wait_for()
    sight.require_clean()


@pytest.mark.long
def test_without_scripts_the_charts_are_drawings(
    demo_site: WebSite, address: str, look: Callable[..., Sight], demo: DemoRun
) -> None:
    page = look(demo_site.url, java_script_enabled=False).open(address)
    assert page.locator("[data-plot=curve] > svg").first.is_visible()
    assert page.get_by_role("img", name="Sum of diameters").is_visible()
