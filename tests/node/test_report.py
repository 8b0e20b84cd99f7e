from __future__ import annotations

import base64
import csv
import re
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO, StringIO
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
from phantom_study import study_of, true_finding
from PIL import Image, ImageDraw
from rich.console import Console

from node.demo_truth import true_things
from node.report.canvas import Panel, Window, across_plane, font, slice_plane, write
from node.report.folder import write_report
from node.report.overlays import OUTLINE, largest, montage, overlay, rounded
from node.report.page import CONTROL, signed
from node.report.pdf import report_pdf
from node.report.shown import ShownFinding, ShownMeasurement, StudyReport, Truth
from node.report.table import COLUMNS, changes, compare, csv_text, safe_cell, without_counterpart
from node.report.terminal import truth_table
from node.report.typeface import drawable
from plugins.contract import Flag, Mask
from plugins.errors import Refused, Unavailable
from training.phantom import PET_GRID, Grid, phantom


def pdf_text(document: bytes, folder: Path) -> str:
    if shutil.which("pdftotext") is None:
        pytest.skip("pdftotext is not installed")
    file = folder / "report.pdf"
    file.write_bytes(document)
    return subprocess.run(
        ["pdftotext", "-layout", file, "-"], capture_output=True, check=True
    ).stdout.decode()


MADE_AT = datetime(2024, 6, 4, 12, 0, tzinfo=UTC)
CT_GRID = Grid(shape=(75, 256, 256), spacing_mm=(4.0, 1.5625, 1.5625))


@pytest.fixture(scope="module")
def dates() -> list[tuple[StudyReport, Truth]]:
    made = []
    for index in (0, 1):
        thorax = phantom(0, index, ct_grid=CT_GRID, pet_grid=PET_GRID)
        study = study_of(thorax)
        ct, pet = study.volumes
        findings = [
            ShownFinding.of(
                true_finding(volume, grid, nodule), plugin=plugin, tracking_uid=f"2.25.{index}{role}{number}"
            )
            for volume, grid, plugin, role in (
                (ct, CT_GRID, "lung_nodule", 1),
                (pet, PET_GRID, "pet_lesion", 2),
            )
            for number, nodule in enumerate(thorax.truth.nodules)
            if volume.role == "ct" or nodule.suv > 4
        ]
        report = StudyReport(study=study, findings=tuple(findings), patient_name="Phantom^Thorax")
        made.append((report, true_things(thorax)))
    return made


def region_of(report: StudyReport) -> ShownFinding:
    ct = report.study.volumes[0]
    return ShownFinding(
        label="Left lung",
        plugin="emphysema",
        tracking_uid="2.25.99",
        series_instance_uid=ct.series_instance_uid,
        mask=Mask.from_full((ct.array < -500) & (np.arange(ct.array.shape[2]) > 140)),
        measurements=(ShownMeasurement(name="laa_950", value=5.8, unit="%", method="voxels below -950 HU"),),
    )


def pixels_like(image: Image.Image, colour: tuple[int, int, int]) -> int:
    return int((np.abs(np.asarray(image).astype(int) - colour).max(axis=2) < 25).sum())


def test_truth_meets_the_nearest_finding_on_the_right_kind_of_image(
    dates: list[tuple[StudyReport, Truth]],
) -> None:
    report, truth = dates[0]
    rows = {(row.thing, row.name): row for row in compare(report, truth)}
    upper = rows["Right upper", "long_axis"]
    assert (upper.true, upper.tracking_uid) == (24.0, "2.25.010")
    assert upper.measured == pytest.approx(24.0, abs=1.6)
    assert rows["Right upper", "suv_max"].measured == pytest.approx(9.0, rel=1e-3)
    assert rows["Left upper", "suv_max"].measured is None
    assert rows["Left lung", "laa_950"].measured is None


def test_a_lesion_away_from_every_true_one_is_told_as_extra(dates: list[tuple[StudyReport, Truth]]) -> None:
    report, truth = dates[0]
    stray = replace(report.findings[0], label="Stray", tracking_uid="2.25.7", centroid_mm=(0.0, 0.0, 0.0))
    more = replace(report, findings=(*report.findings, stray))
    assert [f.label for f in without_counterpart(more, compare(more, truth))] == ["Stray"]


def test_change_between_dates_follows_the_true_name_and_knows_what_is_new(
    dates: list[tuple[StudyReport, Truth]],
) -> None:
    found = changes([report for report, _ in dates], [truth for _, truth in dates])
    rows = {(change.thing, change.name): change for change in found}
    shrunk = rows["Right upper", "long_axis"]
    assert shrunk.percent == pytest.approx(-100 / 3, abs=6)
    assert shrunk.true == (24.0, 16.0)
    new = rows["Right middle", "volume"]
    assert new.before is None and new.after is not None and new.percent is None


def test_without_truth_only_equal_tracking_uids_are_linked(dates: list[tuple[StudyReport, Truth]]) -> None:
    first, second = (report for report, _ in dates)
    assert changes([first, second]) == ()
    linked = replace(second, findings=(replace(second.findings[0], tracking_uid="2.25.010"),))
    (axis, volume) = changes([first, linked])
    assert (axis.name, volume.name) == ("long_axis", "volume")
    assert volume.percent == pytest.approx(100 * (1.407 - 4.524) / 4.524, abs=6)


def test_studies_of_different_patients_are_never_compared(dates: list[tuple[StudyReport, Truth]]) -> None:
    first, second = (report for report, _ in dates)
    patient = replace(second.study.patient, patient_id="OTHER")
    other = replace(
        second,
        study=replace(second.study, patient=patient),
        findings=(replace(second.findings[0], tracking_uid="2.25.010"),),
    )
    assert changes([first, other]) == ()


def test_the_outline_on_the_picture_encloses_the_area_of_the_mask(
    dates: list[tuple[StudyReport, Truth]],
) -> None:
    report, _ = dates[0]
    finding = report.findings[0]
    volume, mask = report.study.volumes[0], finding.mask
    assert mask is not None
    k = mask.origin[0] + mask.voxels.shape[0] // 2
    middle = tuple(o + (n - 1) / 2 for o, n in zip(mask.origin[1:], mask.voxels.shape[1:], strict=True))
    panel = Panel(
        slice_plane(volume, k), Window(low=-1350, high=150), 400, centre=(middle[0], middle[1]), field_mm=60.0
    )
    bright = np.asarray(panel.image)[:, :, 0] > 160
    area_mm2 = float(bright[100:300, 100:300].sum()) * (60 / 400) ** 2
    voxels_mm2 = float(mask.voxels[k - mask.origin[0]].sum()) * 1.5625**2
    assert area_mm2 == pytest.approx(voxels_mm2, rel=0.08)


def test_a_point_of_the_plane_lands_on_its_pixel_also_when_pixels_are_not_square(
    dates: list[tuple[StudyReport, Truth]],
) -> None:
    volume = dates[0][0].study.volumes[0]
    plane = across_plane(volume, volume.array[:, 100])
    panel = Panel(plane, Window(low=0, high=1), 200, centre=(10.0, 20.0), field_mm=100.0)
    assert panel.at((10.0, 20.0)) == (100.0, 100.0)
    assert panel.at((15.0, 20.0)) == pytest.approx((100.0, 140.0))
    assert panel.at((10.0, 36.0)) == pytest.approx((150.0, 100.0))
    assert plane.letters == ("R", "L", "H", "F")


def test_every_finding_gets_a_picture_with_its_outline(dates: list[tuple[StudyReport, Truth]]) -> None:
    report, _ = dates[0]
    for finding in (report.findings[0], report.findings[-1]):
        image = overlay(finding, report)
        assert image is not None and image.width > 900
        assert pixels_like(image, OUTLINE) > 100
    assert overlay(region_of(report), report) is not None


def test_where_there_are_too_many_findings_the_largest_are_shown_in_their_order(
    dates: list[tuple[StudyReport, Truth]],
) -> None:
    report, _ = dates[0]
    masks = [finding.mask for finding in report.findings if finding.mask is not None]
    one, three = (replace(report.findings[0], mask=mask) for mask in (masks[0], masks[-1]))
    assert one.mask is not None and three.mask is not None and one.mask.count != three.mask.count
    two = max(one, three, key=lambda f: f.mask.count if f.mask else 0)
    bare = replace(one, mask=None)
    assert largest([bare, one, three], report, 2) == (one, three)
    assert largest([bare, one, three], report, 1) == (two,)


def test_a_finding_without_mask_or_volume_has_no_picture(dates: list[tuple[StudyReport, Truth]]) -> None:
    report, _ = dates[0]
    assert overlay(replace(report.findings[0], mask=None), report) is None
    assert overlay(replace(report.findings[0], series_instance_uid="1.2.3.99"), report) is None
    bare = replace(report, study=replace(report.study, volumes=()), findings=())
    assert montage(bare) is None


def test_the_folder_holds_pictures_csv_and_a_page_that_fetches_nothing(
    dates: list[tuple[StudyReport, Truth]], tmp_path: Path
) -> None:
    reports = [replace(report, findings=(*report.findings[:2], region_of(report))) for report, _ in dates]
    told: list[tuple[int, int]] = []
    files = write_report(
        tmp_path,
        reports,
        made_at=MADE_AT,
        truth=[truth for _, truth in dates],
        progress=lambda done, total: told.append((done, total)),
    )
    assert told[-1] == (8, 8)
    assert sum(path.suffix == ".png" for path in files) == 8
    assert all(path.is_file() for path in files)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "For research use only" in html
    assert "Truth beside measurement" in html and "Change between dates" in html
    targets = re.findall(r"(?:src|href|action|url)\s*[=(]\s*[\"']?([^\s>]{0,40})", html)
    assert targets and all(target.startswith("data:image/") for target in targets)
    assert "http://" not in html and "https://" not in html
    assert "<script" not in html
    pictures = re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", html)
    assert len(pictures) == 8
    Image.open(BytesIO(base64.b64decode(pictures[0]))).verify()
    with (tmp_path / "measurements.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    axis = next(r for r in rows if r["name"] == "long_axis" and r["study_date"] == "2024-03-04")
    assert tuple(axis) == COLUMNS
    assert (axis["unit"], axis["truth"]) == ("mm", "24")
    ends = np.array([[float(axis[f"{a}{n}_mm"]) for a in "xyz"] for n in (1, 2)])
    assert np.linalg.norm(ends[1] - ends[0]) == pytest.approx(float(axis["value"]), abs=1e-3)


@pytest.mark.parametrize("learned", [True, False])
def test_beside_the_truth_stands_how_networks_outline_nodules_when_they_did(
    dates: list[tuple[StudyReport, Truth]], tmp_path: Path, learned: bool
) -> None:
    flags = (Flag(code="interval", sentence="'Nodule 1': with 90 % coverage"),) if learned else ()
    reports, truth = [replace(report, flags=flags) for report, _ in dates], [true for _, true in dates]
    write_report(tmp_path, reports, made_at=MADE_AT, truth=truth)
    screen = Console(file=StringIO(), width=80, no_color=True)
    for kind in ("nodule", "lung"):
        screen.print(truth_table(reports, truth, kind))
    assert isinstance(screen.file, StringIO)
    words = " ".join(screen.file.getvalue().split())
    assert words.count("sizes are larger than the truth") == learned
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("sizes are larger than the truth") == learned


def test_words_from_the_network_are_escaped_and_never_become_a_path(
    dates: list[tuple[StudyReport, Truth]], tmp_path: Path
) -> None:
    report, _ = dates[0]
    evil = replace(report.findings[0], label="../../<script>alert(1)</script>")
    flag = Flag(code="odd", sentence="Series <img src=x onerror=alert(1)> is odd.")
    files = write_report(
        tmp_path / "out",
        [replace(report, findings=(evil,), patient_name="A^<b>B</b>\x1b]0;x\x07", refused=(flag,))],
        made_at=MADE_AT,
    )
    html = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<script" not in html and "<img src=x" not in html and "<b>B" not in html
    assert "&lt;script&gt;" in html
    assert "\x1b" not in html and "\x07" not in html
    assert all(path.resolve().is_relative_to(tmp_path / "out") for path in files)
    assert {p.name for p in tmp_path.iterdir()} == {"out"}


def test_a_study_in_which_nothing_was_found_has_a_page_that_says_so(
    dates: list[tuple[StudyReport, Truth]], tmp_path: Path
) -> None:
    report, _ = dates[0]
    write_report(tmp_path, [replace(report, findings=())], made_at=MADE_AT)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Nothing was found in this study" in html
    assert "Truth beside measurement" not in html


def test_the_page_tells_the_doubts_of_findings_and_none_only_where_there_are_none(
    dates: list[tuple[StudyReport, Truth]], tmp_path: Path
) -> None:
    plain = replace(dates[0][0], findings=dates[0][0].findings[:1])
    doubt = Flag(code="hardly-a-lesion", sentence="'Nodule 1': it hardly stands out")
    doubted = replace(plain, findings=(replace(plain.findings[0], flags=(doubt,)),))
    shown = []
    for number, report in enumerate((plain, doubted, replace(doubted, flags=(doubt,)))):
        write_report(tmp_path / str(number), [report], made_at=MADE_AT)
        html = (tmp_path / str(number) / "report.html").read_text(encoding="utf-8")
        shown.append(html.partition("Refused and flagged")[2])
    assert ["no doubt was raised" in words for words in shown] == [True, False, False]
    assert [words.count("hardly-a-lesion") for words in shown] == [0, 1, 1]


def test_what_only_informs_stands_under_notes_and_not_under_doubts(
    dates: list[tuple[StudyReport, Truth]], tmp_path: Path
) -> None:
    notes = tuple(
        Flag(code=code, sentence=f"told as {code}")
        for code in ("interval", "malignancy-interval", "marked-by")
    )
    finding = replace(dates[0][0].findings[0], flags=notes)
    report = replace(dates[0][0], findings=(finding,))
    doubted = replace(report, flags=(Flag(code="uneven-slices", sentence="told as a doubt"),))
    texts = [
        " ".join(pdf_text(report_pdf(one, [], made_at=MADE_AT, software="Nadir 0"), tmp_path).split())
        for one in (report, doubted)
    ]
    words = "Notes told as interval (interval) told as malignancy-interval (malignancy-interval)"
    assert all(f"{words} told as marked-by (marked-by)" in text for text in texts)
    assert "Doubtful" not in texts[0]
    assert "Doubtful told as a doubt (uneven-slices) Notes" in texts[1]
    write_report(tmp_path, [report], made_at=MADE_AT)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "no doubt was raised" in html
    assert 'class="chip warn">' not in html
    assert re.search(
        r'<h3>Notes</h3>\s.*\s<li><span class="chip plain">interval</span> told as interval', html
    )


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx", "\rx"])
def test_no_cell_of_the_csv_runs_as_a_formula(text: str) -> None:
    assert safe_cell(text) == f"'{text}"
    (row,) = csv.DictReader(StringIO(csv_text([{"label": text}], ["label"])))
    assert row["label"] == f"'{text}"


def test_numbers_in_the_csv_stay_numbers() -> None:
    assert [safe_cell(v) for v in (-1.5, 2, True, None, 1234567.0)] == ["-1.5", 2, "yes", "", "1234567"]


@pytest.mark.parametrize(
    ("value", "words"), [(1234.4, "1234"), (24.13, "24.1"), (1.386, "1.39"), (-889.0, "−889"), (0.0, "0.00")]
)
def test_numbers_are_shown_with_about_three_digits(value: float, words: str) -> None:
    assert rounded(value) == words


def test_a_difference_that_rounds_to_zero_has_no_sign() -> None:
    assert [signed(v) for v in (-0.01, 0.04, -0.06, 12.0)] == ["0.0", "0.0", "−0.1", "+12.0"]


def test_truth_of_another_number_of_studies_is_refused(
    dates: list[tuple[StudyReport, Truth]], tmp_path: Path
) -> None:
    report, truth = dates[0]
    with pytest.raises(Refused, match="truth-does-not-fit"):
        write_report(tmp_path, [report], made_at=MADE_AT, truth=[truth, truth])


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        ("Nodule 3", "Nodule 3"),
        ("Müller Ω ж", "Müller Ω ж"),
        ("胸部 CT", "(not drawable here) CT"),
        ("山田 太郎", "(not drawable here)"),
        ("山田\u3000김희중", "(not drawable here)"),
    ],
)
def test_pictures_say_what_they_cannot_draw(text: str, drawn: str) -> None:
    assert drawable(text) == drawn


def test_a_label_that_cannot_be_drawn_is_drawn_as_the_words_that_say_so(
    dates: list[tuple[StudyReport, Truth]],
) -> None:
    report, _ = dates[0]
    pictures = [
        overlay(replace(report.findings[0], label=label), report) for label in ("胸部", "(not drawable here)")
    ]
    assert None not in pictures
    assert pictures[0] == pictures[1]
    overviews = [
        montage(replace(report, description=words)) for words in ("胸部 CT", "(not drawable here) CT")
    ]
    assert overviews[0] == overviews[1]


def test_east_asian_identity_is_text_in_the_pdf_with_a_sentence_for_viewers_that_cannot_draw_it(
    dates: list[tuple[StudyReport, Truth]], tmp_path: Path
) -> None:
    report = replace(dates[0][0], findings=(), patient_name="王^小东", description="胸部CT ﾔﾏﾀﾞ ไทย")
    words = " ".join(pdf_text(report_pdf(report, [], made_at=MADE_AT, software="Nadir 0"), tmp_path).split())
    assert "Patient 王 小东" in words
    assert "Study 胸部CT ﾔﾏﾀﾞ (not drawable here)" in words
    assert "Boxes or gaps in a name or text are Chinese, Japanese or Korean" in words
    latin = replace(report, patient_name="Müller^Jörg", description="Ω ж")
    words = pdf_text(report_pdf(latin, [], made_at=MADE_AT, software="Nadir 0"), tmp_path)
    assert "Müller Jörg" in words and "Boxes" not in words


def test_a_name_from_the_right_is_drawn_in_its_order_in_the_pdf_and_in_pictures(
    dates: list[tuple[StudyReport, Truth]], tmp_path: Path
) -> None:
    report = replace(dates[0][0], findings=(), patient_name="לוי^דוד", description="محمد CT 12")
    read_back = pdf_text(report_pdf(report, [], made_at=MADE_AT, software="Nadir 0"), tmp_path)
    words = " ".join(CONTROL.sub("", normalize("NFKC", read_back)).split())
    assert "Patient לוי דוד" in words and "محمد" in words
    drawn = []
    for text, as_stored in (("אב 1", False), ("1 בא", True), ("אב 1", True)):
        picture = Image.new("RGB", (90, 30))
        if as_stored:
            face = font(15, bold=True, as_stored=True)
            ImageDraw.Draw(picture).text((4, 15), text, font=face, fill=(255, 255, 255), anchor="lm")
        else:
            write(ImageDraw.Draw(picture), (4, 15), text, 15, (255, 255, 255))
        drawn.append(picture.tobytes())
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_report_that_cannot_be_written_is_told_in_one_sentence(
    dates: list[tuple[StudyReport, Truth]], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="cannot be written"):
        write_report(tmp_path / "file", [replace(dates[0][0], findings=())], made_at=MADE_AT)
