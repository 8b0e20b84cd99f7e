from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_series import make_series
from marked_images import (
    annotation,
    group,
    item,
    key_object,
    predecessor,
    reference,
    report,
    scoord,
    scoord3d,
    state,
)
from pydicom import dcmread
from pydicom.dataset import Dataset

from plugins.contract import Mark, Volume
from store.dicom.series import read_study

OBLIQUE = (0.8, 0.6, 0.0, -0.48, 0.64, 0.6)
SPACING = (2.5, 0.7, 0.9)
ORIGIN = (-12.5, 40.25, 310.0)


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    return make_series(
        tmp_path / "study",
        np.random.default_rng(0).normal(-800, 20, (6, 24, 32)),
        spacing_mm=SPACING,
        orientation=OBLIQUE,
        origin_mm=ORIGIN,
    )


def place(k: float, row: float, column: float) -> np.ndarray:
    """Return LPS mm of a voxel centre, by DICOM's own formula (PS3.3 C.7.6.2.1.1)."""
    along_row, along_column = np.array(OBLIQUE[:3]), np.array(OBLIQUE[3:])
    normal = np.cross(along_row, along_column)
    return (
        np.array(ORIGIN)
        + k * SPACING[0] * normal
        + row * SPACING[1] * along_column
        + column * SPACING[2] * along_row
    )


def read(images: list[Path]) -> tuple[tuple[Mark, ...], Volume, list[str]]:
    found = read_study(images[0].parent.iterdir())
    return found.study.marks, found.study.volumes[0], [flag.code for flag in found.flags]


def test_a_point_of_a_report_lies_where_its_image_says(images: list[Path]) -> None:
    content = [group("Target 1", scoord(images[4], "POINT", [20.5, 7.5]))]
    report(images[0].parent / "sr.dcm", images[0], content)
    (mark,), volume, _ = read(images)
    assert mark.point_mm == pytest.approx(place(4, 7, 20), abs=1e-3)
    assert (mark.label, mark.source, mark.made_by) == ("Target 1", "SR", "Doe Jane")
    assert (mark.series_instance_uid, mark.tracking_identifier) == (volume.series_instance_uid, "Target 1")
    assert mark.extent_mm is None


def test_a_circle_and_an_ellipse_mark_their_middle_and_tell_how_long_they_are(images: list[Path]) -> None:
    circle = scoord(images[1], "CIRCLE", [10.5, 8.5, 15.5, 8.5])
    ellipse = scoord(images[2], "ELLIPSE", [4.5, 12.5, 14.5, 12.5, 9.5, 10.5, 9.5, 14.5])
    report(images[0].parent / "sr.dcm", images[0], [group("A", circle), group("B", ellipse)])
    (first, second), _, _ = read(images)
    assert first.point_mm == pytest.approx(place(1, 8, 10), abs=1e-3)
    assert first.extent_mm == pytest.approx(10 * 0.9)
    assert second.point_mm == pytest.approx(place(2, 12, 9), abs=1e-3)
    assert second.extent_mm == pytest.approx(10 * 0.9)


def test_a_point_in_space_needs_the_frame_of_reference_of_a_volume(images: list[Path]) -> None:
    frame = str(dcmread(images[0]).FrameOfReferenceUID)
    content = [
        group("here", scoord3d(frame, [1.5, -2.5, 3.5])),
        group("there", scoord3d("1.2.3.4", [0, 0, 0])),
    ]
    report(images[0].parent / "sr.dcm", images[0], content)
    (mark,), _, codes = read(images)
    assert mark.point_mm == (1.5, -2.5, 3.5)
    assert (mark.label, mark.frame_of_reference_uid, mark.series_instance_uid) == ("here", frame, None)
    assert codes == ["marks-elsewhere"]


@pytest.mark.parametrize(
    "more", [{"modality": "MR"}, {"modality": "PT"}, {"rescale": (0.1, 0.0), "RescaleType": "MGML"}]
)
def test_marks_of_a_study_without_a_ct_in_hounsfield_units_are_counted_and_told(
    tmp_path: Path, more: dict[str, Any]
) -> None:
    images = make_series(tmp_path / "study", np.random.default_rng(0).normal(800, 20, (6, 24, 32)), **more)
    content = [group(name, scoord(images[4], "POINT", [x, 7.5])) for name, x in (("A", 20.5), ("B", 9.5))]
    uid = dcmread(report(images[0].parent / "sr.dcm", images[0], content)).SOPInstanceUID
    found = read_study(images[0].parent.iterdir())
    assert [mark.label for mark in found.study.marks] == ["A", "B"]
    assert [(flag.code, flag.sentence) for flag in found.flags] == [
        (
            "marks-without-ct",
            f"The report {uid} holds 2 marks in a study without a CT in Hounsfield units; a marked lesion is "
            "measured on nothing else.",
        )
    ]
    make_series(images[0].parent, np.zeros((6, 24, 32)), series_number=2, prefix="ct")
    assert read_study(images[0].parent.iterdir()).flags == ()


def test_marks_on_absent_images_are_counted_for_each_object_by_its_name(images: list[Path]) -> None:
    absent = make_series(images[0].parent.parent / "other", np.zeros((2, 24, 32)), series_uid="1.2.3.9")
    for name in ("a.dcm", "b.dcm"):
        content = [group("Target 1", scoord(absent[0], "POINT", [20.5, 7.5]))]
        report(images[0].parent / name, images[0], content)
    sentences = sorted(flag.sentence for flag in read_study(images[0].parent.iterdir()).flags)
    words = "holds 1 mark on images or in a space that are not among the volumes."
    uids = sorted(dcmread(images[0].parent / name).SOPInstanceUID for name in ("a.dcm", "b.dcm"))
    assert sentences == [f"The report {uid} {words}" for uid in uids]


def test_figures_of_a_presentation_state_are_marks_with_their_text(images: list[Path]) -> None:
    drawn = [
        annotation(images[3], "POINT", [5.5, 6.5], "nodule?"),
        annotation(images[3], "CIRCLE", [20.5, 10.5, 23.5, 10.5]),
        annotation(images[3], "POLYLINE", [1, 1, 2, 2], "a line is no mark"),
    ]
    state(images[0].parent / "pr.dcm", images[0], drawn)
    (point, circle), _, codes = read(images)
    assert codes == ["marks-not-read"]
    assert point.point_mm == pytest.approx(place(3, 6, 5), abs=1e-3)
    assert (point.label, point.source, point.made_by) == ("nodule?", "PR", "Roe Ray")
    assert circle.point_mm == pytest.approx(place(3, 10, 20), abs=1e-3)
    assert circle.extent_mm == pytest.approx(6 * 0.9)


def test_a_figure_that_names_no_image_is_told_as_lying_on_all_of_them(images: list[Path]) -> None:
    folder = images[0].parent
    drawn = [annotation(images[3], "POINT", [5.5, 6.5]), annotation(images[3], "POINT", [7.5, 6.5])]
    for one in drawn:
        del one.ReferencedImageSequence
    for name, figures in (("one.dcm", drawn[:1]), ("two.dcm", drawn)):
        state(folder / name, images[0], figures)
        made = dcmread(folder / name)
        series = Dataset()
        series.ReferencedImageSequence = [_named(dcmread(image)) for image in images]
        made.ReferencedSeriesSequence = [series]
        made.save_as(folder / name)
    found = read_study(folder.iterdir())
    assert found.study.marks == ()
    assert {(flag.code, flag.sentence) for flag in found.flags} == {
        (
            "marks-on-all-images",
            f"The presentation state {dcmread(folder / name).SOPInstanceUID} holds {count} on several or all of its "
            "images: no single one is named, so no place is marked.",
        )
        for name, count in (("one.dcm", "1 mark"), ("two.dcm", "2 marks"))
    }


@pytest.mark.parametrize("order", [(1, 3, 4), (4, 3, 1), (3, 3, 4)])
def test_a_figure_on_several_slices_marks_none_of_them_and_is_told(
    images: list[Path], order: tuple[int, ...]
) -> None:
    drawn = annotation(images[3], "CIRCLE", [20.5, 10.5, 23.5, 10.5], "Tumour")
    drawn.ReferencedImageSequence = [reference(images[k]) for k in order]
    state(images[0].parent / "pr.dcm", images[3], [drawn])
    content = scoord(images[3], "POINT", [5.5, 6.5])
    content.ContentSequence[0].ReferencedSOPSequence = [reference(images[k]) for k in order]
    report(images[0].parent / "sr.dcm", images[3], [group("T", content)])
    found = read_study(images[0].parent.iterdir())
    assert found.study.marks == ()
    words = "holds 1 mark on several or all of its images: no single one is named, so no place is marked."
    assert [flag.code for flag in found.flags] == ["marks-on-all-images"] * 2
    assert all(flag.sentence.endswith(words) for flag in found.flags)


def test_a_figure_on_one_image_twice_beside_absent_ones_marks_it(images: list[Path]) -> None:
    absent = make_series(images[0].parent.parent / "other", np.zeros((2, 24, 32)), series_uid="1.2.3.9")
    drawn = annotation(images[3], "POINT", [5.5, 6.5])
    drawn.ReferencedImageSequence = [reference(one) for one in (absent[1], images[3], images[3], absent[0])]
    state(images[0].parent / "pr.dcm", images[3], [drawn])
    (mark,), volume, codes = read(images)
    assert codes == []
    assert mark.point_mm == pytest.approx(place(3, 6, 5), abs=1e-3)
    assert mark.series_instance_uid == volume.series_instance_uid


@pytest.mark.parametrize(("own_frame", "count"), [(False, 1), (True, 0)])
def test_a_figure_on_one_plane_of_two_series_marks_it_when_they_share_their_space(
    images: list[Path], own_frame: bool, count: int
) -> None:
    thick = make_series(
        images[0].parent,
        np.zeros((3, 24, 32)),
        spacing_mm=(2 * SPACING[0], *SPACING[1:]),
        orientation=OBLIQUE,
        origin_mm=ORIGIN,
        series_number=2,
        prefix="thick",
        frame_of_reference_uid="1.2.3.4" if own_frame else None,
    )
    drawn = annotation(images[4], "POINT", [5.5, 6.5])
    drawn.ReferencedImageSequence = [reference(images[4]), reference(thick[2])]
    state(images[0].parent / "pr.dcm", images[4], [drawn])
    found = read_study(images[0].parent.iterdir())
    series = str(dcmread(images[4]).SeriesInstanceUID)
    assert [mark.series_instance_uid for mark in found.study.marks] == [series] * count
    assert [flag.code for flag in found.flags] == ["marks-on-all-images"] * (1 - count)
    for mark in found.study.marks:
        assert mark.point_mm == pytest.approx(place(4, 6, 5), abs=1e-3)


def test_marks_at_the_same_mm_in_two_frames_of_reference_are_two(tmp_path: Path) -> None:
    voxels = np.zeros((6, 24, 32))
    for number, frame in enumerate(("1.2.3", "1.2.4"), start=1):
        series = make_series(
            tmp_path, voxels, frame_of_reference_uid=frame, series_number=number, prefix=f"ct{number}"
        )
        for again in "ab":
            drawn = annotation(series[4], "POINT", [5.5, 6.5], frame)
            state(tmp_path / f"pr{number}{again}.dcm", series[4], [drawn])
    found = read_study(tmp_path.iterdir())
    assert sorted((mark.label, mark.frame_of_reference_uid) for mark in found.study.marks) == [
        ("1.2.3", "1.2.3"),
        ("1.2.4", "1.2.4"),
    ]
    assert {mark.point_mm for mark in found.study.marks} == {(5.0, 6.0, 8.0)}


def _named(image: Dataset) -> Dataset:
    named = Dataset()
    named.ReferencedSOPClassUID = image.SOPClassUID
    named.ReferencedSOPInstanceUID = image.SOPInstanceUID
    return named


def test_where_a_number_was_measured_and_what_nadir_wrote_itself_is_no_mark(images: list[Path]) -> None:
    measured, value = item("NUM", "112031", "Attenuation"), Dataset()
    value.NumericValue = "40"
    measured.MeasuredValueSequence = [value]
    measured.ContentSequence = [scoord(images[1], "POINT", [3.5, 3.5])]
    report(images[0].parent / "probe.dcm", images[0], [group("probe", measured)])
    own = [group("ours", scoord(images[4], "POINT", [20.5, 7.5]))]
    report(images[0].parent / "own.dcm", images[0], own, Manufacturer="Nadir")
    marks, _, _ = read(images)
    assert marks == ()


@pytest.mark.parametrize("data", [[], [1.0], [float("nan"), 2.0]])
def test_a_broken_figure_is_passed_over_and_told(images: list[Path], data: list[float]) -> None:
    report(images[0].parent / "sr.dcm", images[0], [group("A", scoord(images[1], "CIRCLE", data))])
    found = read_study(images[0].parent.iterdir())
    assert found.study.marks == ()
    (flag,) = found.flags
    assert flag.code == "marks-not-read"
    assert "1 CIRCLE without a place" in flag.sentence


def test_figures_that_are_not_read_are_told_with_their_number_and_kind(images: list[Path]) -> None:
    content = [
        group("A", scoord(images[4], "POINT", [20.5, 7.5])),
        group("B", scoord(images[4], "POLYLINE", [1, 1, 4, 1, 4, 4, 1, 1])),
        group("C", scoord(images[4], "MULTIPOINT", [1, 1, 4, 1])),
        group("D", scoord(images[4], "POLYLINE", [9, 9, 12, 9, 12, 12, 9, 9])),
        group("E", scoord(images[4], "DOE_JANE", [9, 9])),
    ]
    report(images[0].parent / "sr.dcm", images[0], content)
    found = read_study(images[0].parent.iterdir())
    assert [mark.label for mark in found.study.marks] == ["A"]
    (flag,) = found.flags
    assert flag.code == "marks-not-read"
    uid = dcmread(images[0].parent / "sr.dcm").SOPInstanceUID
    assert flag.sentence == (
        f"The report {uid} holds figures that are not read as marks: 1 MULTIPOINT, 2 POLYLINE, 1 of an unknown kind; "
        "read are POINT, CIRCLE, ELLIPSE, in pixels of an image or in space, and the anchor of a text without one of "
        "these."
    )


def test_a_figure_on_the_display_is_told_as_one(images: list[Path]) -> None:
    shown = annotation(images[3], "CIRCLE", [0.2, 0.2, 0.3, 0.2])
    shown.GraphicObjectSequence[0].GraphicAnnotationUnits = "DISPLAY"
    state(images[0].parent / "pr.dcm", images[0], [shown])
    found = read_study(images[0].parent.iterdir())
    assert found.study.marks == ()
    assert [flag.code for flag in found.flags] == ["marks-not-read"]
    assert "figures that are not read as marks: 1 CIRCLE in DISPLAY units;" in found.flags[0].sentence


def test_the_anchor_of_a_text_is_the_mark_where_no_figure_beside_it_has_a_middle(images: list[Path]) -> None:
    both = [annotation(images[3], kind, [1, 1, 2, 2], kind) for kind in ("POLYLINE", "POINT")]
    for one in both:
        one.TextObjectSequence[0].AnchorPoint = [5.5, 6.5]
        one.TextObjectSequence[0].AnchorPointAnnotationUnits = "PIXEL"
    state(images[0].parent / "pr.dcm", images[0], both)
    (anchored, pointed), _, codes = read(images)
    assert anchored.point_mm == pytest.approx(place(3, 6, 5), abs=1e-3)
    assert (anchored.label, anchored.extent_mm) == ("POLYLINE", None)
    assert pointed.point_mm == pytest.approx(place(3, 0.5, 0.5), abs=1e-3)
    assert codes == ["marks-not-read"]


def marked(images: list[Path], name: str, column: float, **more: object) -> Path:
    """Write a report that marks T1 on the first image."""
    content = [group("T1", scoord(images[0], "POINT", [column, 7.5]))]
    return report(images[0].parent / name, images[0], content, **more)


def test_a_report_whose_place_a_later_one_took_marks_nothing_and_is_told(images: list[Path]) -> None:
    wrong = marked(images, "sr1.dcm", 20.5)
    named = predecessor(wrong)
    right = marked(images, "sr2.dcm", 5.5, PredecessorDocumentsSequence=[named])
    empty = report(images[0].parent / "sr3.dcm", images[0], [])
    itself = marked(images, "sr4.dcm", 9.5)
    header = dcmread(itself)
    header.PredecessorDocumentsSequence = [predecessor(itself), predecessor(empty)]
    header.save_as(itself)
    found = read_study(images[0].parent.iterdir())
    assert sorted(mark.point_mm for mark in found.study.marks) == [
        pytest.approx(place(0, 7, column), abs=1e-3) for column in (5, 9)
    ]
    (flag,) = found.flags
    assert (flag.code, flag.sentence) == (
        "marks-withdrawn",
        f"The report {dcmread(wrong).SOPInstanceUID} holds 1 mark and counts no longer: "
        f"the document {dcmread(right).SOPInstanceUID} took its place.",
    )


@pytest.mark.parametrize(
    ("title", "meaning"),
    [
        ("113001", "Rejected for Quality Reasons"),
        ("113037", "Rejected for Patient Safety Reasons"),
        ("113038", "Incorrect Modality Worklist Entry"),
        ("113039", "Data Retention Policy Expired"),
        ("113000", None),
    ],
)
def test_what_a_key_object_rejects_marks_nothing_and_is_told(
    images: list[Path], title: str, meaning: str | None
) -> None:
    folder = images[0].parent
    bad = marked(images, "sr.dcm", 20.5)
    drawn = state(folder / "pr.dcm", images[0], [annotation(images[3], "POINT", [5.5, 6.5], "nodule?")])
    marked(images, "good.dcm", 9.5)
    note = dcmread(key_object(folder / "ko.dcm", title, [bad, drawn])).SOPInstanceUID
    found = read_study(folder.iterdir())
    if meaning is None:  # of interest
        assert (len(found.study.marks), found.flags) == (3, ())
        return
    (mark,) = found.study.marks
    assert mark.point_mm == pytest.approx(place(0, 7, 9), abs=1e-3)
    why = f"holds 1 mark and counts no longer: rejected by the key object {note} ({meaning})."
    assert sorted((flag.code, flag.sentence) for flag in found.flags) == [
        ("marks-withdrawn", f"The presentation state {dcmread(drawn).SOPInstanceUID} {why}"),
        ("marks-withdrawn", f"The report {dcmread(bad).SOPInstanceUID} {why}"),
    ]
