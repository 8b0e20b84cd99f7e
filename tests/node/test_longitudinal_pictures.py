from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from course_images import PLACES, Imaged, imaged

from node.report.longitudinal.course_view import lesions_of, visits_of
from node.report.longitudinal.cut import outline, read_cut, read_masks
from node.report.longitudinal.lesion_pictures import SIZE, lesion_pictures
from node.report.longitudinal.view import Picture
from node.report.overlays import LONG, OUTLINE

DIAMETERS = {1: (16.0, 12.0, 18.0), 2: (10.0, 7.0, None)}


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Imaged]:
    """Give three visits of two balls; the second CT lies on its face, and the second ball is gone at the third."""
    yield imaged(tmp_path_factory.mktemp("course"), DIAMETERS)


def pictures(known: Imaged) -> dict[tuple[str, date], Picture]:
    visits = visits_of(known.course, ())
    lesions = lesions_of(known.course, visits)
    return lesion_pictures(known.course, lesions, visits, known.objects.open_object, known.objects.images_of)[
        0
    ]


@pytest.fixture(scope="module")
def shown(known: Imaged) -> dict[tuple[str, date], Picture]:
    return pictures(known)


def with_files(known: Imaged, files: Mapping[str, str]) -> Imaged:
    return replace(known, objects=replace(known.objects, files=files))


def like(picture: Picture, colour: tuple[int, int, int], near: int = 60) -> np.ndarray:  # type: ignore[type-arg]
    assert picture.image is not None
    return np.argwhere(np.abs(np.asarray(picture.image, dtype=int) - colour).max(axis=2) < near)


def test_the_outline_lies_around_the_lesion_at_its_true_size_on_every_date(
    known: Imaged, shown: dict[tuple[str, date], Picture]
) -> None:
    for visit, diameter in zip(known.course.visits, DIAMETERS[1], strict=True):
        picture = shown["2.25.1001", visit.study_date]
        assert picture.mm_per_pixel == 50.0 / SIZE
        found = like(picture, OUTLINE)
        extent_mm = (found.max(axis=0) - found.min(axis=0) + 1) * picture.mm_per_pixel
        assert extent_mm == pytest.approx(diameter, abs=2.6)
        assert (found.max(axis=0) + found.min(axis=0)) / 2 == pytest.approx(SIZE / 2, abs=6)


def test_all_pictures_of_a_lesion_have_one_scale_and_one_grey_scale(
    known: Imaged, shown: dict[tuple[str, date], Picture]
) -> None:
    days = [visit.study_date for visit in known.course.visits]
    assert len({shown["2.25.1001", day].mm_per_pixel for day in days}) == 1
    assert {shown["2.25.1001", day].words for day in days} == {"W 1500 L -600, 50 mm wide"}


def test_the_long_axis_is_drawn_between_the_end_points_that_were_measured(
    known: Imaged, shown: dict[tuple[str, date], Picture]
) -> None:
    for one in (s for s in known.course.sightings if s.lesion == "2.25.1001"):
        picture = shown[one.lesion, one.date]
        found = like(picture, LONG).astype(float)
        axis = found - found.mean(axis=0)
        along = np.linalg.svd(axis, full_matrices=False)[2][0]
        length_mm = float(np.ptp(axis @ along)) * (picture.mm_per_pixel or 0)
        assert length_mm == pytest.approx(one.measurements["long_axis"].value, abs=1.2)


def test_a_lesion_that_is_gone_is_shown_where_it_was_expected(
    known: Imaged, shown: dict[tuple[str, date], Picture]
) -> None:
    picture = shown["2.25.1002", known.course.visits[2].study_date]
    assert picture.words.endswith("the ring is where it was expected")
    assert len(like(picture, OUTLINE)) == 0
    white = like(picture, (255, 255, 255), 40)
    ring = white[np.abs(np.hypot(*(white - SIZE / 2).T) * (picture.mm_per_pixel or 0) - 3.8) < 0.6]
    assert len(ring) > 40


def test_a_place_that_was_not_scanned_is_not_shown_elsewhere(known: Imaged) -> None:
    *others, gone = known.course.sightings
    assert gone.link is not None
    for place in ((-18.0, 14.0, 90.0), (-118.0, 14.0, 30.0)):
        away = replace(gone, link=replace(gone.link, expected_mm=place))
        found = pictures(replace(known, course=replace(known.course, sightings=(*others, away))))
        assert found["2.25.1002", gone.date].words == "No picture: its place lies outside of the images."


def test_more_pictures_than_a_report_has_room_for_are_told(
    known: Imaged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.report.longitudinal.lesion_pictures.MOST_PICTURES", 3)
    visits = visits_of(known.course, ())
    lesions = lesions_of(known.course, visits)
    objects = known.objects
    shown, missing = lesion_pictures(known.course, lesions, visits, objects.open_object, objects.images_of)
    assert len(shown) == 3
    assert missing == ("1 lesion is without pictures: the report shows at most 3 pictures.",)


def test_a_cut_of_a_patient_who_lies_the_other_way_round_is_the_right_way_up(known: Imaged) -> None:
    for visit in known.course.visits:
        one = next(s for s in known.course.sightings if s.study_instance_uid == visit.study_instance_uid)
        uid = one.measurements["long_axis"].sop_instance_uid
        assert uid is not None and one.seg_sha256 is not None and one.segment_number is not None
        cut = read_cut(known.objects.open_object(uid), None)
        assert cut.flat().letters == ("R", "L", "A", "P")
        row, column = cut.place(PLACES[1])
        assert cut.values[round(row), round(column)] > 0
        masks = read_masks(known.objects.open_object(one.seg_sha256))
        assert masks is not None
        (line,) = outline(masks, one.segment_number, cut)
        assert np.mean(line[:-1], axis=0) == pytest.approx((row, column), abs=0.8)


def test_what_is_no_longer_here_is_told_in_its_place_and_the_rest_is_shown(known: Imaged) -> None:
    gone = known.course.visits[1].study_date
    seg, first = "0" * 64, known.course.visits[0].study_date
    lost = {s.measurements["long_axis"].sop_instance_uid for s in known.course.sightings if s.date == gone}
    part = {name: path for name, path in known.objects.files.items() if name not in {*lost, seg}}
    found = pictures(with_files(known, part))
    assert found["2.25.1001", gone].image is None
    assert found["2.25.1001", gone].words == "No picture: its images are no longer here."
    without = found["2.25.1001", first]
    assert without.image is not None and without.words.endswith("no outline: its SEG is no longer here")


def test_a_damaged_file_is_told_and_stops_nothing(known: Imaged, tmp_path: Path) -> None:
    one = known.course.sightings[0]
    uid = one.measurements["long_axis"].sop_instance_uid or ""
    torn, junk = tmp_path / "torn.dcm", tmp_path / "junk.dcm"
    torn.write_bytes(known.objects.open_object(uid).read_bytes()[:-900])
    junk.write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 64)
    assert one.seg_sha256 is not None
    found = pictures(with_files(known, {**known.objects.files, uid: str(torn)}))
    assert found[one.lesion, one.date].words.startswith("No picture: the pixel data")
    found = pictures(with_files(known, {**known.objects.files, one.seg_sha256: str(junk)}))
    assert "no outline" in found[one.lesion, one.date].words


def test_pictures_of_a_pet_have_one_scale_of_uptake(tmp_path: Path) -> None:
    known = imaged(tmp_path, {1: (16.0, 12.0)}, modality="PT")
    assert {picture.words for picture in pictures(known).values()} == {"SUV 0-10, 50 mm wide"}
