from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.files import BadModel
from models.nodule_detector import (
    BATCH,
    HOPELESS,
    LIKELY,
    DetectorView,
    LearnedNoduleDetector,
    Search,
    ensemble,
    look,
    strongest_apart,
)
from models.patches import PatchGrid, cut, scaled
from models.shipped import open_shipped

VIEW = DetectorView(shape=(8, 8, 8), voxels_mm=(1.0, 2.0))


def test_each_voxel_size_is_a_channel_cut_from_the_whole_image() -> None:
    image = np.random.default_rng(0).normal(-600, 200, (40, 50, 60)).astype(np.float32)
    spacing, point = (1.25, 0.7, 0.8), (3.0, 30.0, 58.0)
    shown = look(VIEW, image, spacing, point)
    for channel, mm in zip(shown, VIEW.voxels_mm, strict=True):
        whole = scaled(
            cut(image, spacing, point, PatchGrid(shape=VIEW.shape, spacing_mm=(mm,) * 3)), -1000, 400
        )
        assert channel == pytest.approx(whole, abs=1e-4)


STEP = np.where(np.arange(30)[:, None, None] < 15, -1000.0, 400.0).astype(np.float32) * np.ones((1, 30, 30))
DARK, BRIGHT = (2.0, 15.0, 15.0), (27.0, 15.0, 15.0)


def test_others_are_asked_only_about_what_the_first_network_does_not_find_hopeless() -> None:
    asked: list[int] = []

    def first(shown: np.ndarray) -> np.ndarray:
        return shown.mean(axis=(1, 2, 3, 4))[:, None] * 20

    def second(shown: np.ndarray) -> np.ndarray:
        asked.append(len(shown))
        return -first(shown)

    found = ensemble([first, second], VIEW, STEP, (1.0, 1.0, 1.0), [DARK] * BATCH + [BRIGHT] * 3)
    assert asked == [3]
    assert found[:BATCH].max() < HOPELESS
    assert found[BATCH:] == pytest.approx(0.5)  # logits x and -x have the mean 0


def test_what_is_likely_is_judged_by_all_of_its_mirror_images() -> None:
    asked: list[int] = []

    def steep(shown: np.ndarray) -> np.ndarray:
        """Return a logit that is the higher the more the patch brightens along k, and 1 more."""
        asked.append(len(shown))
        half = shown.shape[2] // 2
        return (
            1
            + 4
            * (shown[:, :, half:].mean(axis=(1, 2, 3, 4)) - shown[:, :, :half].mean(axis=(1, 2, 3, 4)))[
                :, None
            ]
        )

    edge = (14.5, 15.0, 15.0)
    alone = ensemble([steep], VIEW, STEP, (1.0, 1.0, 1.0), [edge])
    assert alone > 0.99
    mirrored = ensemble([steep], VIEW, STEP, (1.0, 1.0, 1.0), [edge, DARK], mirrors=8)
    assert mirrored == pytest.approx(1 / (1 + np.exp(-1.0)))  # a slope and its mirror image cancel out
    assert asked == [1, 2, *[2] * 8]
    unlikely = ensemble([lambda shown: steep(shown) - 3], VIEW, STEP, (1.0, 1.0, 1.0), [DARK], mirrors=8)
    assert unlikely == pytest.approx(1 / (1 + np.exp(2.0))) and unlikely < LIKELY
    assert asked[10:] == [1]


def test_a_surer_point_keeps_weaker_ones_within_its_radius_away() -> None:
    points = [(0, 0, 0), (0, 0, 9), (0, 0, 11), (0, 0, 40)]
    kept = strongest_apart(
        points, [20.0, 20.0, 4.0, 4.0], np.array([0.9, 0.8, 0.7, 0.95]), (1.0, 1.0, 1.0), least_mm=5.0
    )
    assert kept == [3, 0, 2]


def test_view_and_search_are_read_from_a_card() -> None:
    view = DetectorView.of({"shape": [24, 24, 24], "voxels_mm": [1, 2], "window_hu": [-1000, 400]})
    assert view == DetectorView()
    assert view.half_mm == 24.0
    plain = {"diameters_mm": [4, 53], "lowest_response_hu": 120, "lowest_roundness": 0.25, "at_most": 4000}
    assert Search.of(plain) == Search()


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("view", {"shape": [24, 24], "voxels_mm": [1, 2], "window_hu": [-1000, 400]}),
        ("search", {"diameters_mm": 4}),
        ("level", "high"),
        ("mirrors", 9),
    ],
)
def test_a_card_that_cannot_be_understood_is_told_by_what_is_wrong_in_it(key: str, said: object) -> None:
    shipped = open_shipped("nodule_detector")
    detector = LearnedNoduleDetector(model=replace(shipped, card={**shipped.card, key: said}))
    with pytest.raises(BadModel, match=f"'{key}' in the card of nodule_detector"):
        getattr(detector, key)


def test_the_shipped_detector_judges_eight_mirror_images_and_one_of_an_earlier_form_its_own_alone() -> None:
    shipped = open_shipped("nodule_detector")
    assert LearnedNoduleDetector(model=shipped).mirrors == 8
    earlier = {key: said for key, said in shipped.card.items() if key != "mirrors"}
    assert LearnedNoduleDetector(model=replace(shipped, card=earlier)).mirrors == 1
