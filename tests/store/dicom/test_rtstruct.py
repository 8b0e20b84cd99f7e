"""RTSTRUCT contours to masks: published counts, closed forms, and the contours that enclose nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_series import derived, make_series
from drawn_regions import structure_set
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.path import Path as Polygon

from plugins.contract import Study
from store.dicom.series import read_study
from store.dicom.slice_contours import inside

BLANK = np.zeros((6, 30, 40))
SQUARE = [(9.5, 4.5), (9.5, 14.5), (19.5, 14.5), (19.5, 4.5)]  # rows 10..19, columns 5..14: 100 pixels


def closed(
    points: list[tuple[float, float]], k: int, instance: str | None = None, *, dz: float = 0.0
) -> tuple[str, Any, Any]:
    """A closed contour of (row, column) points in slice k of a series of 1 mm pixels, 2 mm apart, at the origin."""
    return "CLOSED_PLANAR", [(column, row, 2.0 * k + dz) for row, column in points], instance


def read(folder: Path) -> Study:
    return read_study(folder.rglob("*")).study


@pytest.mark.parametrize("case", ["ct_4dlung", "pet_ge_sts001", "sts_dicom/STS_002", "sts_dicom/STS_003"])
def test_real_regions_have_the_published_voxels_volume_and_values(data: Path, case: str) -> None:
    root, *patient = case.split("/")
    published = json.loads((data / root / "expected.json").read_text())
    if patient:
        parts = published[patient[0]]
        rois = {name: roi for part in parts.values() for name, roi in part["rois"].items()}
    else:
        rois = published.get("rois") or published["rois_by_rtstruct"]
    study = read(data / case)
    assert study.refused == ()
    assert {d.label for d in study.drawn} == set(rois)
    for drawn in study.drawn:
        expected, volume = rois[drawn.label], study.volume(drawn.series_instance_uid)
        values = volume.array[drawn.mask.box][drawn.mask.voxels]
        assert drawn.mask.count == expected["voxels"]
        assert drawn.mask.count * volume.voxel_volume_mm3 / 1000 == pytest.approx(
            expected["volume_ml"], rel=1e-3
        )
        assert float(values.mean()) == pytest.approx(expected["mean"], abs=6e-3)
        assert float(values.max()) == pytest.approx(expected["max"], abs=1e-3)


def test_ct_and_pet_contours_go_to_their_own_series_though_no_reference_resolves(data: Path) -> None:
    study = read(data / "sts_dicom" / "STS_003")
    assert {d.label: study.volume(d.series_instance_uid).modality for d in study.drawn} == {
        "GTV_Mass_CT": "CT",
        "GTV_Mass_PET": "PT",
    }
    assert all([f.code for f in d.flags] == ["contour-series-by-position"] for d in study.drawn) or all(
        not d.flags for d in study.drawn
    )


def test_a_square_and_its_hole_have_the_pixels_whose_centres_are_inside(tmp_path: Path) -> None:
    make_series(tmp_path / "ct", BLANK)
    hole = [(11.5, 6.5), (11.5, 8.5), (13.5, 8.5), (13.5, 6.5)]
    structure_set(tmp_path / "rt", {"GTV": [closed(SQUARE, 2), closed(hole, 2), closed(SQUARE, 3)]})
    (drawn,) = read(tmp_path).drawn
    full = drawn.mask.full()
    truth = np.zeros(BLANK.shape, dtype=bool)
    truth[2:4, 10:20, 5:15] = True
    truth[2, 12:14, 7:9] = False
    np.testing.assert_array_equal(full, truth)
    assert (drawn.label, drawn.number, drawn.interpreted_type, drawn.source) == ("GTV", 1, "GTV", "RTSTRUCT")


def test_contours_on_an_oblique_reversed_series_fall_on_its_own_rows_and_columns(tmp_path: Path) -> None:
    row, column = np.array([0.8, 0.6, 0.0]), np.array([0.36, -0.48, 0.8])
    origin, normal = np.array([-40.0, 25.0, 310.0]), np.cross(row, column)
    make_series(
        tmp_path / "ct",
        BLANK,
        orientation=(*row, *column),
        origin_mm=tuple(origin),
        spacing_mm=(3.0, 0.7, 1.3),
    )
    points = [tuple(origin + 3.0 * 4 * normal + r * 0.7 * column + c * 1.3 * row) for r, c in SQUARE]
    structure_set(tmp_path / "rt", {"GTV": [("CLOSED_PLANAR", points, None)]})
    (drawn,) = read(tmp_path).drawn
    assert drawn.mask.origin == (4, 10, 5)
    assert drawn.mask.voxels.all()
    assert drawn.mask.voxels.shape == (1, 10, 10)


@given(st.lists(st.tuples(st.integers(0, 19000), st.integers(0, 23000)), min_size=3, max_size=12))
def test_inside_agrees_with_another_even_odd_rule_off_the_border(points: list[tuple[int, int]]) -> None:
    polygon = np.array(points) / 1000
    ours = inside([polygon], (20, 24))
    rows, columns = np.mgrid[:20, :24]
    centres = np.stack([rows.ravel(), columns.ravel()], axis=1).astype(float)
    ends = np.roll(polygon, -1, axis=0)
    edge = ends - polygon
    length = np.maximum((edge**2).sum(axis=1), 1e-12)
    along = np.clip(((centres[:, None] - polygon) * edge).sum(axis=2) / length, 0, 1)
    apart = np.linalg.norm(centres[:, None] - polygon - along[..., None] * edge, axis=2).min(axis=1)
    crossings = np.zeros(len(centres), dtype=int)
    for (r1, c1), (r2, c2) in zip(polygon, ends, strict=True):
        spans = (r1 <= centres[:, 0]) != (r2 <= centres[:, 0])
        with np.errstate(divide="ignore", invalid="ignore"):
            at = c1 + (centres[:, 0] - r1) * (c2 - c1) / (r2 - r1)
        crossings += spans & (at > centres[:, 1])
    clear = apart > 1e-6
    np.testing.assert_array_equal(ours.ravel()[clear], (crossings % 2 == 1)[clear])


def test_a_disc_agrees_with_matplotlib() -> None:
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    disc = np.stack([20.3 + 11.7 * np.sin(angle), 18.9 + 9.1 * np.cos(angle)], axis=1)
    rows, columns = np.mgrid[:40, :40]
    expected = (
        Polygon(disc).contains_points(np.stack([rows.ravel(), columns.ravel()], axis=1)).reshape(40, 40)
    )
    np.testing.assert_array_equal(inside([disc], (40, 40)), expected)


REFUSED = {
    "empty-roi": [],
    "point-contour": [("POINT", [(1.0, 2.0, 4.0)], None)],
    "open-contour": [("OPEN_PLANAR", [(1.0, 2.0, 4.0), (9.0, 2.0, 4.0), (9.0, 9.0, 4.0)], None)],
    "contour-off-plane": [closed(SQUARE, 2), closed(SQUARE, 8)],
    "contour-not-planar": [("CLOSED_PLANAR", [(5.0, 5.0, 0.0), (5.0, 5.0, 8.0), (15.0, 5.0, 8.0)], None)],
    "empty-region": [closed([(3.2, 3.2), (3.2, 3.4), (3.4, 3.4)], 2)],
}


@pytest.mark.parametrize("code", REFUSED)
def test_a_region_that_encloses_nothing_is_refused_and_the_others_are_read(code: str, tmp_path: Path) -> None:
    make_series(tmp_path / "ct", BLANK)
    structure_set(tmp_path / "rt", {"bad": REFUSED[code], "good": [closed(SQUARE, 1)]})
    study = read(tmp_path)
    assert [f.code for f in study.refused] == [code]
    assert "'bad'" in study.refused[0].sentence
    assert [(d.label, d.mask.count) for d in study.drawn] == [("good", 100)]


def test_a_contour_wholly_outside_the_image_is_refused(tmp_path: Path) -> None:
    make_series(tmp_path / "ct", BLANK)
    far = [(r + 100, c) for r, c in SQUARE]
    structure_set(tmp_path / "rt", {"far": [closed(far, 2)]})
    assert [f.code for f in read(tmp_path).refused] == ["empty-region"]


def test_a_contour_that_reaches_beyond_the_image_is_cut_with_a_flag(tmp_path: Path) -> None:
    make_series(tmp_path / "ct", BLANK)
    structure_set(tmp_path / "rt", {"edge": [closed([(r, c + 30) for r, c in SQUARE], 2)]})
    (drawn,) = read(tmp_path).drawn
    assert drawn.mask.count == 50
    assert "contour-clipped" in [f.code for f in drawn.flags]


def test_contours_finer_than_the_slices_do_not_cancel_out(tmp_path: Path) -> None:
    make_series(tmp_path / "ct", BLANK)
    structure_set(
        tmp_path / "rt", {"fine": [closed(SQUARE, 2), closed(SQUARE, 2, dz=0.9), closed(SQUARE, 2, dz=-0.9)]}
    )
    (drawn,) = read(tmp_path).drawn
    assert drawn.mask.count == 100
    assert [f.sentence for f in drawn.flags if f.code == "contours-between-slices"] == [
        "contours lie between the slices; those nearest to each slice are used"
    ]


@pytest.mark.parametrize(
    ("off_mm", "says"),
    [
        ((0.0, 0.19), []),
        ((0.1, -0.8), [", up to 0.8 mm from it"]),
        ((0.98, 0.98), [", up to 0.98 mm from it"]),
    ],
)
def test_contours_that_are_put_on_a_slice_they_do_not_lie_in_are_told_with_their_distance(
    tmp_path: Path, off_mm: tuple[float, ...], says: list[str]
) -> None:
    make_series(tmp_path / "ct", BLANK)
    structure_set(tmp_path / "rt", {"off": [closed(SQUARE, k + 2, dz=dz) for k, dz in enumerate(off_mm)]})
    (drawn,) = read(tmp_path).drawn
    assert (drawn.mask.origin[0], drawn.mask.count) == (2, 200)
    start = "contours lie between the slices; those nearest to each slice are used"
    assert [f.sentence for f in drawn.flags if f.code == "contours-between-slices"] == [
        f"{start}{said}" for said in says
    ]


def test_contours_on_every_second_slice_are_flagged_and_not_filled(tmp_path: Path) -> None:
    make_series(tmp_path / "ct", BLANK)
    structure_set(tmp_path / "rt", {"gaps": [closed(SQUARE, k) for k in (0, 2, 4)]})
    (drawn,) = read(tmp_path).drawn
    assert drawn.mask.count == 300
    assert "contour-gaps" in [f.code for f in drawn.flags]


@pytest.mark.parametrize(
    ("slices", "says"),
    [
        ((0, 2, 4), ["only one slice in 2 has a contour; nothing was filled in between"]),
        (
            (0, 1, 4, 5),
            ["2 slices between the first and the last have no contour; nothing was filled in between"],
        ),
        ((1, 2, 4), ["1 slice between the first and the last has no contour; nothing was filled in between"]),
        ((1, 5), ["3 slices between the first and the last have no contour; nothing was filled in between"]),
        ((1, 2, 3), []),
        ((4,), []),
    ],
)
def test_slices_without_a_contour_are_counted_however_they_lie(
    tmp_path: Path, slices: tuple[int, ...], says: list[str]
) -> None:
    make_series(tmp_path / "ct", BLANK)
    structure_set(tmp_path / "rt", {"gaps": [closed(SQUARE, k) for k in slices]})
    (drawn,) = read(tmp_path).drawn
    assert drawn.mask.count == 100 * len(slices)
    assert [f.sentence for f in drawn.flags if f.code == "contour-gaps"] == says


def test_the_instance_a_contour_names_decides_before_the_position(tmp_path: Path) -> None:
    first = make_series(tmp_path / "a", BLANK, series_number=1)
    make_series(tmp_path / "b", BLANK, series_number=2)
    assert first
    named = derived("instance", derived("series", derived("study", "P1", "20250101"), "CT", 2), 2)
    structure_set(tmp_path / "rt", {"GTV": [closed(SQUARE, 2, named)]})
    study = read(tmp_path)
    (drawn,) = study.drawn
    assert study.volume(drawn.series_instance_uid).series_number == 2
    assert drawn.flags == ()


def test_the_series_that_the_object_names_decides_when_contours_name_no_instance(tmp_path: Path) -> None:
    make_series(tmp_path / "a", BLANK, series_number=1)
    make_series(tmp_path / "b", BLANK, series_number=2)
    structure_set(
        tmp_path / "rt",
        {"GTV": [closed(SQUARE, 2)]},
        series=derived("series", derived("study", "P1", "20250101"), "CT", 2),
    )
    study = read(tmp_path)
    assert study.volume(study.drawn[0].series_instance_uid).series_number == 2
    assert study.drawn[0].flags == ()


def test_of_a_thin_and_a_thick_series_that_fit_alike_the_one_without_slices_between_is_taken(
    tmp_path: Path,
) -> None:
    make_series(tmp_path / "thin", BLANK, series_number=1)
    make_series(tmp_path / "thick", BLANK[::2], spacing_mm=(4, 1, 1), series_number=2)
    structure_set(tmp_path / "rt", {"GTV": [closed(SQUARE, k) for k in (0, 2, 4)]})
    study = read(tmp_path)
    assert study.volume(study.drawn[0].series_instance_uid).series_number == 2
    assert [f.code for f in study.drawn[0].flags] == ["contour-series-by-position"]


def test_a_series_found_by_position_is_flagged(tmp_path: Path) -> None:
    make_series(tmp_path / "a", BLANK, series_number=1, origin_mm=(0, 0, 0.7))
    make_series(tmp_path / "b", BLANK, series_number=2)
    structure_set(tmp_path / "rt", {"GTV": [closed(SQUARE, 2)]})
    study = read(tmp_path)
    assert study.volume(study.drawn[0].series_instance_uid).series_number == 2
    assert [f.code for f in study.drawn[0].flags] == ["contour-series-by-position"]


def test_contours_in_a_frame_of_reference_without_images_are_refused(tmp_path: Path) -> None:
    make_series(tmp_path / "ct", BLANK)
    structure_set(tmp_path / "rt", {"GTV": [closed(SQUARE, 2)]}, frame="1.2.3.4")
    assert [f.code for f in read(tmp_path).refused] == ["contour-without-image"]


def test_a_single_slice_is_kept_when_somebody_drew_on_it(tmp_path: Path) -> None:
    make_series(tmp_path / "ct", BLANK[:1])
    structure_set(tmp_path / "rt", {"GTV": [closed(SQUARE, 0)]})
    study = read(tmp_path)
    assert study.refused == ()
    assert [f.code for f in study.volumes[0].flags] == ["single-slice", "constant-image"]
    assert study.drawn[0].mask.count == 100


def test_points_beside_closed_contours_are_left_out_with_a_flag(tmp_path: Path) -> None:
    make_series(tmp_path / "ct", BLANK)
    structure_set(tmp_path / "rt", {"GTV": [closed(SQUARE, 2), ("POINT", [(1.0, 2.0, 4.0)], None)]})
    (drawn,) = read(tmp_path).drawn
    assert drawn.mask.count == 100
    assert "points-left-out" in [f.code for f in drawn.flags]


def drawn_of(folder: Path, *contours: tuple[str, Any, Any]) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """The pixels of slices 2 and 3, and what is doubted, of contours on a blank series."""
    make_series(folder / "ct", BLANK)
    structure_set(folder / "rt", {"GTV": contours})
    study = read(folder)
    assert study.refused == ()
    (drawn,) = study.drawn
    return drawn.mask.full()[2:4], [
        (f.code, f.sentence) for f in drawn.flags if f.code != "contour-series-by-position"
    ]


def moved(points: list[tuple[float, float]], row: float, column: float) -> list[tuple[float, float]]:
    return [(r + row, c + column) for r, c in points]


DISC = [
    (14.7 + 6.3 * np.sin(angle), 17.2 + 8.1 * np.cos(angle))
    for angle in np.linspace(0, 2 * np.pi, 90, endpoint=False)
]


@pytest.mark.parametrize(
    "again",
    [DISC, DISC[::-1], DISC[40:] + DISC[:40], DISC[::2], moved(DISC, 0, 0.01), moved(DISC, -0.05, 0.03)],
    ids=["the same", "the other way round", "from another point", "coarser", "0.01 mm off", "rounded"],
)
def test_a_contour_that_stands_twice_counts_once(again: list[tuple[float, float]], tmp_path: Path) -> None:
    once, _ = drawn_of(tmp_path / "once", closed(DISC, 2), closed(DISC, 3))
    twice, told = drawn_of(tmp_path / "twice", closed(DISC, 2), closed(DISC, 3), closed(again, 3))
    assert once[1].sum() > 150
    np.testing.assert_array_equal(twice, once)
    assert told == [
        ("contours-doubled", "on 1 of its slices a contour stands more than once; it counts once")
    ]


def test_a_region_whose_contours_all_stand_twice_or_thrice_is_no_empty_one(tmp_path: Path) -> None:
    found, told = drawn_of(tmp_path, *[closed(SQUARE, k) for k in (2, 2, 3, 3, 3)])
    assert found.sum() == 200
    assert told == [
        ("contours-doubled", "on 2 of its slices a contour stands more than once; it counts once")
    ]


@pytest.mark.parametrize(("row", "column", "pixels"), [(0, 5, 150), (5, 5, 175), (1, 0, 110), (9, 9, 199)])
def test_contours_that_cross_are_taken_together(row: int, column: int, pixels: int, tmp_path: Path) -> None:
    found, told = drawn_of(tmp_path, closed(SQUARE, 2), closed(moved(SQUARE, row, column), 2))
    assert found[0].sum() == pixels
    assert found[0, 10:20, 5:15].all()
    sentence = "on 1 of its slices contours overlap and neither holds the other; both count"
    assert told == [("contours-cross", sentence)]


def test_a_hole_and_what_is_in_it_stay_beside_contours_that_cross(tmp_path: Path) -> None:
    hole = [(11.5, 6.5), (11.5, 12.5), (17.5, 12.5), (17.5, 6.5)]
    island = [(13.5, 8.5), (13.5, 10.5), (15.5, 10.5), (15.5, 8.5)]
    beside = moved(SQUARE, 0, 8)
    found, told = drawn_of(tmp_path, *[closed(points, 2) for points in (hole, SQUARE, island, beside)])
    truth = np.zeros((30, 40), dtype=bool)
    truth[10:20, 5:15] = True
    truth[12:18, 7:13] = False
    truth[14:16, 9:11] = True
    truth[10:20, 13:23] = True
    np.testing.assert_array_equal(found[0], truth)
    assert [code for code, _ in told] == ["contours-cross"]


@pytest.mark.parametrize(
    "hole",
    [
        [(10.5, 5.5), (10.5, 13.5), (18.5, 13.5), (18.5, 5.5)],
        [(9.5, 6.5), (9.5, 8.5), (13.5, 8.5), (13.5, 6.5)],
        [(8.9, 6.5), (8.9, 12.5), (18.5, 12.5), (18.5, 6.5)],
    ],
    ids=["a wall of one pixel", "at the border", "rounded beyond the border"],
)
def test_a_hole_stays_a_hole_however_near_the_border_it_is(
    hole: list[tuple[float, float]], tmp_path: Path
) -> None:
    found, told = drawn_of(tmp_path, closed(SQUARE, 2), closed(hole, 2))
    np.testing.assert_array_equal(found[0], inside([np.array(SQUARE), np.array(hole)], (30, 40)))
    assert found[0].sum() < 100
    assert told == []


def test_a_hole_by_a_path_through_the_wall_is_one(tmp_path: Path) -> None:
    hole = [(13.5, 6.5), (13.5, 8.5), (11.5, 8.5), (11.5, 6.5)]
    keyhole = [*SQUARE, SQUARE[0], hole[-1], *hole]
    found, told = drawn_of(tmp_path, closed(keyhole, 2))
    assert (found[0].sum(), told) == (96, [])
    assert not found[0, 12:14, 7:9].any()
