"""The geometry gate on bare planes, with grids known in closed form."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from plugins.errors import Refused
from store.dicom.geometry import Plane, arrange

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def plane(position: tuple[float, ...], **changes: Any) -> Plane:
    values: dict[str, Any] = {
        "sop_instance_uid": f"1.2.{hash(position) % 10**6}",
        "rows": 4,
        "columns": 5,
        "spacing_mm": (0.7, 0.9),
        "orientation": AXIAL,
        "position_mm": position,
        "frame_of_reference_uid": "1.2.3",
    }
    return Plane(**(values | changes))


def stack(along: list[float], **changes: Any) -> list[Plane]:
    return [plane((1.0, 2.0, z), **changes) for z in along]


def code(planes: list[Plane]) -> str:
    with pytest.raises(Refused) as refused:
        arrange(planes)
    return refused.value.code


def test_slices_are_sorted_along_row_cross_column_whatever_their_order() -> None:
    arranged = arrange(stack([4, 0, 6, 2]))
    assert arranged.order == (1, 3, 0, 2)
    assert arranged.positions_mm[0] == (1.0, 2.0, 0.0)
    np.testing.assert_allclose(
        arranged.geometry.affine, [[0, 0, 0.9, 1], [0, 0.7, 0, 2], [2, 0, 0, 0], [0, 0, 0, 1]], atol=1e-12
    )
    assert arranged.flags == ()


def test_a_reversed_normal_reverses_the_slices() -> None:
    arranged = arrange(stack([0, 2, 4], orientation=(1, 0, 0, 0, -1, 0)))
    assert arranged.order == (2, 1, 0)
    np.testing.assert_allclose(arranged.geometry.affine[:3, 0], [0, 0, -2], atol=1e-12)


@given(st.integers(0, 10**6), st.tuples(*[st.floats(-500, 500)] * 3), st.floats(0.5, 5))
def test_an_oblique_stack_has_the_affine_of_its_rotation(
    seed: int, origin: tuple[float, ...], step: float
) -> None:
    turn = Rotation.random(rng=np.random.default_rng(seed)).as_matrix()
    row, column, normal = turn[:, 0], turn[:, 1], turn[:, 2]
    planes = [
        plane(tuple(np.array(origin) + k * step * normal), orientation=(*row, *column)) for k in (3, 1, 0, 2)
    ]
    affine = arrange(planes).geometry.affine
    np.testing.assert_allclose(affine[:3, 0], normal * step, atol=1e-6)
    np.testing.assert_allclose(affine[:3, 1], column * 0.7, atol=1e-6)
    np.testing.assert_allclose(affine[:3, 2], row * 0.9, atol=1e-6)
    np.testing.assert_allclose(affine[:3, 3], origin, atol=1e-6)


@given(st.permutations(range(7)))
def test_the_order_of_the_files_changes_nothing(order: list[int]) -> None:
    planes = stack([0, 2, 4, 6, 8, 10, 12])
    arranged = arrange([planes[i] for i in order])
    assert [order[i] for i in arranged.order] == list(range(7))


def test_cosines_cut_to_few_digits_are_made_perpendicular() -> None:
    rounded = (0.954, -0.208, 0.215, 0.279, 0.880, -0.384)
    affine = arrange([plane((0.0, 0.0, 0.0), orientation=rounded, thickness_mm=1.0)]).geometry.affine[:3, :3]
    unit = affine / np.linalg.norm(affine, axis=0)
    np.testing.assert_allclose(unit.T @ unit, np.eye(3), atol=1e-12)


@pytest.mark.parametrize("step", [0.5, 1.0, 3.0])
def test_a_deviation_up_to_one_per_cent_and_a_hundredth_is_not_worth_a_flag(step: float) -> None:
    slight = min(0.01 * step, 0.01) * 0.9
    assert arrange(stack([0, step, 2 * step + slight, 3 * step + slight])).flags == ()
    more = min(0.01 * step, 0.01) * 1.2
    assert [f.code for f in arrange(stack([0, step, 2 * step + more, 3 * step + more])).flags] == [
        "uneven-slices"
    ]


def test_steps_of_a_real_pet_scanner_are_accepted_with_a_flag_and_their_mean() -> None:
    along = list(itertools.accumulate([3.27] * 40 + [3.19] + [3.27] * 40 + [3.29], initial=0.0))
    arranged = arrange(stack(along))
    assert [f.code for f in arranged.flags] == ["uneven-slices"]
    assert arranged.geometry.spacing[0] == pytest.approx(along[-1] / (len(along) - 1), abs=1e-9)


@pytest.mark.parametrize(
    ("along", "expected"),
    [
        ([0, 2, 4, 8, 10, 12], "missing-slices"),
        ([0, 2, 4, 10, 12, 14], "missing-slices"),
        ([0, 2, 4, 6.8, 8.8], "irregular-spacing"),
        ([0, 2, 4, 7, 9, 11], "irregular-spacing"),
        ([0, 2, 2, 4, 6], "duplicate-slices"),
        ([0, 0, 2, 2, 4, 4], "several-images-per-position"),
        ([3, 3, 3], "several-images-per-position"),
    ],
)
def test_a_stack_that_is_not_regular_is_refused(along: list[float], expected: str) -> None:
    assert code(stack(along)) == expected


def test_steps_that_drift_away_from_a_grid_are_refused() -> None:
    along = list(itertools.accumulate([2.0] * 30 + [2.15] * 30, initial=0.0))
    assert code(stack(along)) == "irregular-spacing"


@pytest.mark.parametrize(("degrees", "refused"), [(0.4, False), (0.6, True), (15.0, True)])
def test_a_tilt_of_more_than_half_a_degree_is_refused(degrees: float, refused: bool) -> None:
    lean = np.tan(np.radians(degrees))
    planes = [plane((0.0, lean * 2 * k, 2.0 * k)) for k in range(60)]
    if refused:
        assert code(planes) == "gantry-tilt"
    else:
        assert [f.code for f in arrange(planes).flags] == ["slight-tilt"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"spacing_mm": ()}, "missing-pixel-spacing"),
        ({"spacing_mm": (1.0,)}, "missing-pixel-spacing"),
        ({"orientation": ()}, "missing-orientation"),
        ({"position_mm": ()}, "missing-position"),
        ({"frame_of_reference_uid": ""}, "missing-frame-of-reference"),
        ({"frame_of_reference_uid": "9"}, "mixed-frames-of-reference"),
        ({"rows": 6}, "mixed-matrix"),
        ({"spacing_mm": (0.7, 0.91)}, "mixed-pixel-spacing"),
        ({"spacing_mm": (0.0, 0.9)}, "bad-geometry"),
        ({"spacing_mm": (float("inf"), 0.9)}, "bad-geometry"),
        ({"orientation": (1, 0, 0, 0, 0, 1)}, "mixed-orientation"),
        ({"position_mm": (0.0, 0.0, float("nan"))}, "bad-geometry"),
    ],
)
def test_one_plane_that_differs_refuses_the_stack(changes: dict[str, Any], expected: str) -> None:
    planes = stack([0, 2, 4, 6])
    planes[2] = replace(planes[2], **changes)
    assert code(planes) == expected


def test_vectors_that_are_no_axes_are_refused() -> None:
    assert code(stack([0, 2], orientation=(1, 0, 0, 1, 0, 0))) == "bad-geometry"
    assert code(stack([0, 2], orientation=(2, 0, 0, 0, 1, 0))) == "bad-geometry"


def test_one_plane_takes_its_thickness_as_depth_and_says_so() -> None:
    arranged = arrange([plane((0.0, 0.0, 0.0), thickness_mm=5.0)])
    assert arranged.geometry.spacing[0] == 5.0
    assert [f.code for f in arranged.flags] == ["single-slice"]
    assert code([plane((0.0, 0.0, 0.0))]) == "single-slice"
