from __future__ import annotations

import csv
import itertools
import random
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.segmenter import ClassicalNoduleSegmenter, LesionSegmenter

Spacing = tuple[float, float, float]


def distance(
    shape: tuple[int, int, int], spacing: Spacing, centre: tuple[float, float, float]
) -> NDArray[np.floating]:
    axes = np.ogrid[tuple(slice(0, n) for n in shape)]
    return np.sqrt(sum(((a - c) * s) ** 2 for a, c, s in zip(axes, centre, spacing, strict=True)))


def painted(signed_mm: NDArray[np.floating], edge_mm: float, hu: float, image: NDArray[np.float32]) -> None:
    image += np.clip(0.5 - signed_mm / edge_mm, 0, 1).astype(np.float32) * (np.float32(hu) - image)


def test_it_is_a_lesion_segmenter_with_a_card() -> None:
    segmenter = ClassicalNoduleSegmenter()
    assert isinstance(segmenter, LesionSegmenter)
    assert segmenter.card.kind == "classical"
    assert segmenter.card.sha256 != ClassicalNoduleSegmenter(opening=0.6).card.sha256


def ball(
    diameter: float, hu: float, spacing: Spacing, off: tuple[float, float, float]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """What is drawn from the voxel nearest to a ball's centre, and the voxels whose centres lie in the ball."""
    shape = tuple(2 * round(24 / s) + 1 for s in spacing)
    seed = (shape[0] // 2, shape[1] // 2, shape[2] // 2)
    image = np.full(shape, -850.0, dtype=np.float32)
    centre = (seed[0] + off[0], seed[1] + off[1], seed[2] + off[2])
    signed_mm = distance(shape, spacing, centre) - diameter / 2
    painted(signed_mm, float(np.mean(spacing)), hu, image)
    return ClassicalNoduleSegmenter().segment(image, spacing, seed), signed_mm < 0


@settings(max_examples=25, deadline=None)
@given(
    diameter=st.floats(6.0, 26.0),
    hu=st.sampled_from([-100.0, 30.0, 150.0]),
    spacing=st.sampled_from([(1.0, 0.7, 0.7), (2.5, 0.8, 0.8), (1.25, 0.6, 0.6)]),
    off=st.tuples(*[st.floats(-0.5, 0.5)] * 3),
)
@example(diameter=6.0, hu=30.0, spacing=(2.5, 0.8, 0.8), off=(0.0, 0.5, 0.5))
def test_a_ball_is_the_voxels_whose_centres_lie_in_it(
    diameter: float, hu: float, spacing: Spacing, off: tuple[float, float, float]
) -> None:
    found, inside = ball(diameter, hu, spacing, off)
    dice = 2 * np.count_nonzero(found & inside) / (np.count_nonzero(found) + np.count_nonzero(inside))
    assert dice > max(0.9, 1 - 0.9 / diameter)


@pytest.mark.parametrize("spacing", [(1.0, 0.7, 0.7), (2.5, 0.8, 0.8), (1.25, 0.6, 0.6)])
@pytest.mark.parametrize("diameter", [6.0, 9.0, 20.0])
def test_a_ball_has_its_volume_wherever_it_lies_between_the_voxels(diameter: float, spacing: Spacing) -> None:
    places = itertools.product((-0.5, 0.0, 0.25), repeat=3)
    drawn = [np.count_nonzero(ball(diameter, 30.0, spacing, off)[0]) for off in places]
    assert np.mean(drawn) * np.prod(spacing) == pytest.approx(np.pi / 6 * diameter**3, rel=0.06)


def test_a_vessel_that_runs_into_a_nodule_is_cut_off() -> None:
    spacing, shape, seed = (1.0, 0.8, 0.8), (49, 61, 61), (24, 30, 30)
    image = np.full(shape, -850.0, dtype=np.float32)
    k, r = np.ogrid[:49, :61]
    across = np.sqrt(((k - 24) * 1.0) ** 2 + ((r - 30) * 0.8) ** 2)[:, :, None] + np.zeros(61)
    painted(across - 1.6, 0.9, 40.0, image)
    painted(distance(shape, spacing, (24.0, 30.0, 30.0)) - 6.0, 0.9, 40.0, image)
    found = ClassicalNoduleSegmenter().segment(image, spacing, seed)
    assert np.count_nonzero(found) * 0.64 == pytest.approx(np.pi / 6 * 12**3, rel=0.1)
    assert not found[:, :, :18].any()


def test_a_nodule_on_the_wall_is_cut_where_the_lung_ends() -> None:
    spacing, shape, seed = (1.0, 1.0, 1.0), (49, 49, 49), (24, 24, 30)
    image = np.full(shape, -850.0, dtype=np.float32)
    within = np.ones(shape, dtype=np.bool_)
    within[:, :, 36:] = False
    image[~within] = 40.0
    painted(distance(shape, spacing, (24.0, 24.0, 30.0)) - 5.5, 1.0, 40.0, image)
    found = ClassicalNoduleSegmenter().segment(image, spacing, seed, within)
    assert not (found & ~within).any()
    assert np.count_nonzero(found) == pytest.approx(np.pi / 6 * 11**3, rel=0.1)


def test_ground_glass_is_drawn_at_its_own_half_level() -> None:
    spacing, shape, seed = (1.0, 1.0, 1.0), (41, 41, 41), (20, 20, 20)
    image = np.full(shape, -870.0, dtype=np.float32)
    painted(distance(shape, spacing, (20.0, 20.0, 20.0)) - 8.0, 1.0, -600.0, image)
    found = ClassicalNoduleSegmenter().segment(image, spacing, seed)
    assert np.count_nonzero(found) == pytest.approx(np.pi / 6 * 16**3, rel=0.1)


def test_a_mass_larger_than_the_first_window_is_drawn_whole() -> None:
    spacing, shape, seed = (2.0, 2.0, 2.0), (49, 49, 49), (20, 28, 24)
    image = np.full(shape, -850.0, dtype=np.float32)
    painted(distance(shape, spacing, (24.0, 24.0, 24.0)) - 30.0, 2.0, 40.0, image)
    found = ClassicalNoduleSegmenter().segment(image, spacing, seed)
    assert np.count_nonzero(found) * 8 == pytest.approx(np.pi / 6 * 60**3, rel=0.05)


def test_nothing_is_drawn_in_empty_lung() -> None:
    image = np.full((21, 21, 21), -850.0, dtype=np.float32)
    assert not ClassicalNoduleSegmenter().segment(image, (1.0, 1.0, 1.0), (10, 10, 10)).any()


def test_real_nodules_are_drawn_far_better_than_by_a_fixed_threshold(data: Path) -> None:
    with (data / "lidc_nodules" / "nodules.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["label_row_ok"] == "1"]
    scores = []
    for row in random.Random(7).sample(rows, 60):
        ct = nibabel.load(data / "lidc_nodules" / row["image_file"])
        truth = nibabel.load(data / "lidc_nodules" / row["mask_file"]).get_fdata().transpose(2, 1, 0) > 0.5
        image = ct.get_fdata().astype(np.float32).transpose(2, 1, 0)
        x, y, z = (float(v) for v in ct.header.get_zooms()[:3])
        inside = np.argwhere(truth)
        seed = tuple(int(i) for i in inside[((inside - inside.mean(axis=0)) ** 2).sum(axis=1).argmin()])
        found = ClassicalNoduleSegmenter().segment(image, (z, y, x), (seed[0], seed[1], seed[2]))
        scores.append(
            2 * np.count_nonzero(found & truth) / (np.count_nonzero(found) + np.count_nonzero(truth))
        )
    assert float(np.median(scores)) > 0.65
