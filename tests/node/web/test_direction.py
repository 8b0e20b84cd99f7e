"""Outside text in a script that runs from right to left: what stands beside it keeps its order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from browser import Sight
from course_rows import Clock, lesion, visit
from courses import course_patient, ordinary
from playwright.sync_api import Page
from web_site import WebSite

from node import printing
from node.markup import bdi, isolated
from node.report.longitudinal.page import write_html
from node.report.longitudinal.report import build
from node.report.page import page
from store import accounts
from store.charset import decode_text

ARABIC, LUMP = "محمد^علي", "ورم 12-3"
STEERING = "\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
# How far to the right each character of a text stands, within the first element of a selector that holds it.
LEFTS = """([selector, text]) => {
  const walker = document.createTreeWalker(document.querySelector(selector), NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const at = node.data.indexOf(text);
    if (at < 0) continue;
    return [...text].map((_, i) => {
      const range = document.createRange();
      range.setStart(node, at + i);
      range.setEnd(node, at + i + 1);
      return range.getBoundingClientRect().left;
    });
  }
}"""


def lefts(page: Page, selector: str, text: str) -> list[float]:
    found: list[float] | None = page.evaluate(LEFTS, [selector, text])
    assert found is not None, f"{text} is not in {selector}"
    return found


def test_a_right_to_left_name_changes_no_date_and_no_number_beside_it_in_a_browser(
    tmp_path: Path, look: Callable[..., Sight], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "SCRYPT_N", 1 << 4)
    site = WebSite(tmp_path)
    texts = {"patient_name": ARABIC, "study_description": "صدر", "accession_number": "أ-7"}
    with site.database.transaction() as session:
        visit(
            session, Clock(), date(2025, 6, 1), [lesion("2.25.1", label=LUMP)], study="1.2.2", patient=texts
        )
    sight = look(site.url)
    page = sight.open("/studies/1.2.2")
    for selector, text in (("h1", "2025-06-01"), (".lead", "accession")):
        found = lefts(page, selector, text)
        assert found == sorted(found), (selector, text, found)
    assert lefts(page, "h1", "محمد")[0] < lefts(page, "h1", "2025")[0]
    page.screenshot(path=str(tmp_path / "study.png"))
    page = sight.open("/worklist")
    found = lefts(page, "#studies tbody", "2025-06-01")
    assert found == sorted(found)
    page.screenshot(path=str(tmp_path / "worklist.png"))
    sight.require_clean()
    site.stop()


def test_outside_text_has_an_element_of_its_own_on_the_pages_and_in_the_reports(tmp_path: Path) -> None:
    course, responses = ordinary()
    sightings = tuple(replace(one, label=LUMP) for one in course.sightings)
    named = replace(course, sightings=sightings, patient=course_patient(ARABIC, "P-1"))
    report = write_html(
        build(
            named,
            responses,
            lambda name: tmp_path,
            made_at=datetime(2026, 1, 1, tzinfo=UTC),
            software="Nadir 0",
        )
    )
    assert "<strong><bdi>محمد علي</bdi></strong> · ID P-1" in report
    assert f": <bdi>{LUMP}" in report


def test_what_turns_the_text_around_it_is_neither_kept_nor_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for sign in STEERING:
        assert decode_text(f"Rlo^{sign}X".encode(), "utf-8") == "Rlo^ X"
        printing.say(f"Rlo^{sign}X")
        assert capsys.readouterr().out == "Rlo^\N{REPLACEMENT CHARACTER}X\n"
    # Marks are part of how Arabic, Hebrew and Persian are written, and turn nothing around them.
    assert decode_text("می\u200cخواهم\u200f".encode(), "utf-8") == "می\u200cخواهم\u200f"


def test_a_report_page_holds_nothing_that_turns_the_text_around_it() -> None:
    html = page([], title=f"a{STEERING}b", made_at=datetime(2026, 1, 1, tzinfo=UTC), software="Nadir 0")
    assert f"<h1>a{' ' * len(STEERING)}b</h1>" in html


def test_text_with_a_direction_of_its_own_is_escaped_and_nothing_is_made_of_none() -> None:
    assert bdi("<b>ورم") == "<bdi>&lt;b&gt;ورم</bdi>"
    assert (bdi("<b>é"), bdi(""), isolated("é 1")) == ("&lt;b&gt;é", "", "é 1")
    assert isolated(ARABIC) == f"\u2068{ARABIC}\u2069"
