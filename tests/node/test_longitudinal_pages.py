from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from unicodedata import normalize
from zoneinfo import ZoneInfo

import pytest
from course_images import imaged
from courses import course_of, course_patient, ordinary, response_of, sighting, visit

from node.report.longitudinal.cohort import cohort_of
from node.report.longitudinal.cohort_document import write_cohort_pdf
from node.report.longitudinal.document import write_pdf
from node.report.longitudinal.page import css_text, write_cohort_html, write_html
from node.report.longitudinal.report import build
from node.report.longitudinal.tables import write_cohort_csv, write_csv, write_json
from node.report.longitudinal.view import LongitudinalReport
from node.report.longitudinal.withdrawn import write_withdrawal
from node.report.page import CONTROL
from node.report.shown import RESEARCH_USE

NOW = datetime(2024, 7, 1, 9, 0, tzinfo=UTC)
NEARLY_MIDNIGHT = datetime(2024, 5, 2, 23, 48, tzinfo=UTC)
HOSTILE = "<script>alert('x')</script><img src=x onerror=y>\"'}</style>&lt;\x00\x1b[31m{{7*7}}\u202e"


def nowhere(name: str) -> Path:
    raise KeyError(name)


def ordinary_report() -> LongitudinalReport:
    course, responses = ordinary()
    return build(course, responses, nowhere, made_at=NOW, software="Nadir 0")


def hostile_report() -> LongitudinalReport:
    course, (response,) = ordinary()
    sightings = tuple(
        replace(s, label=HOSTILE, site=HOSTILE, plugin=HOSTILE, role_by=HOSTILE) for s in course.sightings
    )
    patient = course_patient(HOSTILE, HOSTILE)
    points = tuple(replace(p, because=HOSTILE, doubts=(HOSTILE,)) for p in response.time_points)
    return build(
        replace(course, sightings=sightings, patient=patient),
        [replace(response, time_points=points, quantity=HOSTILE, doubts=(HOSTILE,))],
        nowhere,
        made_at=NOW,
        software="Nadir 0",
    )


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def parsed(html: str) -> Tags:
    tags = Tags()
    tags.feed(html)
    return tags


def pdf_text(document: bytes, folder: Path) -> str:
    if shutil.which("pdftotext") is None:
        pytest.skip("pdftotext is not installed")
    file = folder / "report.pdf"
    file.write_bytes(document)
    done = subprocess.run(["pdftotext", "-layout", file, "-"], capture_output=True, check=True)
    return done.stdout.decode()


def test_the_page_tells_the_verdict_why_and_every_number() -> None:
    tags = parsed(write_html(ordinary_report()))
    said = " ".join("".join(tags.words).split())
    for words in (
        "PD progressive disease", "at least 1.2 times the nadir of 38.0 mm", "T3: Node 4R, Mediastinal lymph node",
        "T2 would have to be 1.5 mm shorter (1.9 standard deviations) for PR", "20.5 ± 0.8", "+23.6 %", "−36.1 %",
        "counts as target (reproducible in all planes)", "New 1 (Nodule in the left lower lobe): new:",
        "outside the field of view", RESEARCH_USE, "lung_nodule", "ab" * 32, "Nadir 0",
    ):  # fmt: skip
        assert words in said, words


def test_times_of_corrections_are_those_of_the_zone_which_stands_above_them(tmp_path: Path) -> None:
    report, tokyo = ordinary_report(), ZoneInfo("Asia/Tokyo")
    corrected = replace(report, corrections=(replace(report.corrections[0], at=NEARLY_MIDNIGHT),))
    withdrawn = write_withdrawal(course_of({}), "recist1.1", "Nadir 0", NOW, zone=tokyo)
    assert "Nobody has corrected anything." in pdf_text(withdrawn, tmp_path)
    for html, pdf, zone, at in (
        (write_html(corrected), write_pdf(corrected), "UTC", "2024-05-02 23:48"),
        (write_html(corrected, tokyo), write_pdf(corrected, tokyo), "Asia/Tokyo", "2024-05-03 08:48"),
    ):
        for told in (" ".join("".join(parsed(html).words).split()), pdf_text(pdf, tmp_path)):
            assert "When," in told and zone in told and at in told


def test_the_page_stands_alone_and_can_be_read_aloud(tmp_path: Path) -> None:
    known = imaged(tmp_path, {1: (16.0, 12.0)})
    response = response_of("P", [(v.study_date, 16.0) for v in known.course.visits], [None, "SD"])
    objects = known.objects
    html = write_html(build(known.course, [response], objects.open_object, objects.images_of, made_at=NOW))
    tags = parsed(html).found
    assert dict(tags)["html"] == {"lang": "en"}
    pictures = [attributes for tag, attributes in tags if tag == "img"]
    assert len(pictures) == 2
    assert all((one["src"] or "").startswith("data:image/png;base64,") and one["alt"] for one in pictures)
    assert all(attributes.get("scope") for tag, attributes in tags if tag == "th")
    assert [tag for tag, _ in tags if tag in ("h1", "h2")][:2] == ["h1", "h2"]
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in tags}
    outside = re.findall(r"(?:src|href)=\"(?!data:)[^\"]*\"|url\((?!#)[^)]*\)|@import", html)
    assert outside == []


@pytest.mark.sec
def test_texts_from_outside_are_words_on_the_page_and_nothing_else() -> None:
    html = write_html(hostile_report())
    tags = parsed(html)
    assert not {"script", "img"} & {tag for tag, _ in tags.found}
    assert not any(name.startswith("on") for _, attributes in tags.found for name in attributes)
    assert sum(tag == "style" for tag, _ in tags.found) == 1 and html.count("</style>") == 1
    assert "<script>alert('x')" in "".join(tags.words)
    assert "{{7*7}}" in html and "\x00" not in html and "\x1b" not in html
    assert re.search(r'content: "([^"]*)"', html)[1].startswith("\\3c \\73 ")  # type: ignore[index]


@pytest.mark.sec
def test_a_string_of_a_style_sheet_is_never_left() -> None:
    assert css_text('"}a\\') == "\\22 \\7d \\61 \\5c "


@pytest.mark.sec
def test_texts_from_outside_are_words_in_the_document_and_no_formula_in_the_table(tmp_path: Path) -> None:
    report = hostile_report()
    said = pdf_text(write_pdf(report), tmp_path)
    assert "<script>alert('x')" in said
    document = write_pdf(report)
    assert not any(word in document for word in (b"/JavaScript", b"/OpenAction", b"/URI", b"/Launch"))
    formula = replace(report, patient=replace(report.patient, patient_id="=cmd|' /C calc'!A0"))
    assert "\n'=cmd" in write_csv(formula)


def test_the_document_has_the_verdict_the_numbers_and_on_every_page_what_it_is(tmp_path: Path) -> None:
    said = pdf_text(write_pdf(ordinary_report()), tmp_path)
    flat = " ".join(said.split())
    for words in ("progressive disease", "at least 1.2 times the nadir", "1.9 standard deviations", "20.5 ± 0.8",
                  "reproducible in all planes", "−36.1 %"):  # fmt: skip
        assert words in flat, words
    pages = said.rstrip("\f").split("\f")
    assert len(pages) > 2
    for number, page in enumerate(pages):
        assert RESEARCH_USE in page and "ID P-0001 (HOSP), Doe Jane" in page
        assert re.search(rf"{number + 1} ?/ ?{len(pages)}", page)


def test_equal_input_gives_equal_bytes() -> None:
    one, other = ordinary_report(), ordinary_report()
    assert write_pdf(one) == write_pdf(other)
    assert write_html(one) == write_html(other)
    assert (write_json(one), write_csv(one)) == (write_json(other), write_csv(other))


def test_very_long_and_very_many_texts_are_written_all_the_same(tmp_path: Path) -> None:
    course, (response,) = ordinary()
    long = "x" * 3000 + " " + "word " * 3000
    points = tuple(replace(p, because=long, doubts=(long,) * 3) for p in response.time_points)
    sightings = tuple(replace(s, label=long, site=long) for s in course.sightings)
    report = build(
        replace(course, sightings=sightings, patient=course_patient(long, "9" * 64)),
        [replace(response, time_points=points)],
        nowhere,
        made_at=NOW,
    )
    assert "progressive disease" in pdf_text(write_pdf(report), tmp_path)
    assert write_html(report).startswith("<!doctype html>")


def test_a_course_with_nothing_in_it_is_written_too(tmp_path: Path) -> None:
    course = replace(course_of({}), sightings=())
    response = response_of("P", [(visit(0).study_date, None)], [None])
    report = build(course, [response], nowhere, made_at=NOW)
    for said in (write_html(report), pdf_text(write_pdf(report), tmp_path)):
        assert "No lesion was seen." in said and "Nobody has corrected anything." in said


def test_names_that_the_typeface_cannot_write_do_not_stop_the_document(tmp_path: Path) -> None:
    course = course_of(
        {1: (12.0,)}, patient=course_patient("山田^太郎"), more=[sighting(visit(0), 2, 9.0, label="결절 Ω ж")]
    )
    response = response_of("P", [(visit(0).study_date, 12.0)], [None])
    report = build(course, [response], nowhere, made_at=NOW)
    said = pdf_text(write_pdf(report), tmp_path)
    assert "ID P-0001 (HOSP), (not drawable here)" in said
    assert "Boxes or gaps in a name or text are Chinese, Japanese or Korean" in said
    assert "山田 太郎" in write_html(report) and "결절 Ω ж" in write_html(report)


@pytest.mark.parametrize("name", ["לוי^דוד", "محمد^علي"])
def test_a_name_from_the_right_is_drawn_in_its_order_in_header_and_tables(tmp_path: Path, name: str) -> None:
    shown = name.replace("^", " ")
    course = course_of({}, patient=course_patient(name), more=[sighting(visit(0), 1, 9.0, label=shown)])
    response = response_of("P", [(visit(0).study_date, 9.0)], [None])
    report = build(course, [response], nowhere, made_at=NOW)
    read_back = CONTROL.sub("", normalize("NFKC", pdf_text(write_pdf(report), tmp_path)))
    said = " ".join(read_back.split())
    assert f"ID P-0001 (HOSP), {shown}" in said
    assert f"Patient {shown} Patient ID" in said
    assert f"T1: {shown}" in said


def test_a_cohort_has_its_charts_its_table_and_the_same_numbers(tmp_path: Path) -> None:
    days = [visit(n).study_date for n in range(3)]
    responses = [
        response_of(
            f"{HOSTILE}{n}", list(zip(days, (50.0, 40.0 - 10 * n, 30.0), strict=True)), [None, "SD", verdict]
        )
        for n, verdict in enumerate(("PR", "PD", "NON-CR/NON-PD"))
    ]
    cohort = cohort_of(responses, criteria="recist1.1", made_at=NOW, software="Nadir 0")
    html = write_cohort_html(cohort)
    tags = parsed(html).found
    assert sum(tag == "svg" for tag, _ in tags) == 2 and not {"script", "img"} & {tag for tag, _ in tags}
    assert "−60.0 %" in html and RESEARCH_USE in html
    assert "−60.0 %" in pdf_text(write_cohort_pdf(cohort), tmp_path)
    assert write_cohort_csv(cohort).count("recist1.1") == 3


def test_charts_hold_no_style_so_that_they_may_stand_on_pages_that_allow_none() -> None:
    html = write_html(ordinary_report())
    charts = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(charts) == 2 and not any("style" in chart for chart in charts)
    assert all('stroke-dasharray="' in chart and 'font-family="' in chart for chart in charts)


def test_a_lesion_tells_where_a_viewer_shows_it_and_a_report_can_be_made_without_pictures() -> None:
    course, responses = ordinary()
    named = tuple(
        replace(
            s,
            measurements={
                name: replace(m, sop_instance_uid=f"{s.series_instance_uid}.7")
                for name, m in s.measurements.items()
            },
        )
        for s in course.sightings
    )
    course = replace(course, sightings=named)
    made = build(course, responses, nowhere, made_at=NOW, with_pictures=False)
    assert made.pictures == {} and made.missing == ()
    first = next(lesion for lesion in made.lesions if lesion.code == "T1").cells[0]
    assert first.place is not None and first.place.sop_instance_uid == "1.2.826.0.1.1.1.7"
    assert first.place.study_instance_uid == "1.2.826.0.1.1"
    undrawn = next(lesion for lesion in made.lesions if lesion.role == "non-target").cells[0]
    assert undrawn.place is not None and undrawn.place.series_instance_uid == ""


def test_a_course_in_short_tells_when_a_new_lesion_was_first_seen() -> None:
    days = [visit(n).study_date for n in range(4)]
    sums = [(day, 40.0) for day in days]
    response = response_of("P", sums, (None, "SD", "PD", "PD"), new_from=2)
    (one,) = cohort_of([response], criteria="recist1.1", made_at=NOW).followed
    assert one.new_days == (112,) and one.verdicts == ((56, "SD"), (112, "PD"), (168, "PD"))
