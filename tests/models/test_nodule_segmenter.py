from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from tiny_segmenter import CARD, bright_segmenter, pack
from tube_phantom import FAT, LUNG, TISSUE, grid_mm, tube

from models.files import BadModel
from models.nodule_segmenter import NAME, LearnedNoduleSegmenter, _Look, _surest
from models.segmenter import LesionSegmenter
from models.shipped import VOUCHED, WEIGHTS, open_shipped
from models.surroundings import is_deep

SPACING = (1.5, 0.8, 0.8)
WHOLE = (slice(0, 40), slice(0, 29), slice(0, 45))


def ball(
    radius_mm: float, centre: tuple[float, float, float] = (30, 60, 60), lung_hu: float = -850
) -> tuple[np.ndarray, np.ndarray]:
    at = (np.indices((60, 120, 120)).reshape(3, -1).T - centre) * SPACING
    inside = (np.linalg.norm(at, axis=1) <= radius_mm).reshape(60, 120, 120)
    return np.where(inside, 40.0, lung_hu).astype(np.float32), inside


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))


@pytest.mark.parametrize("radius_mm", [3.0, 9.0, 28.0])
def test_a_ball_is_drawn_where_the_point_is_though_it_be_larger_than_the_patch(radius_mm: float) -> None:
    image, truth = ball(radius_mm)
    segmenter = bright_segmenter()
    assert isinstance(segmenter, LesionSegmenter)
    assert dice(segmenter.segment(image, SPACING, (31, 61, 59)), truth) > 0.93
    answer = segmenter.answer(image, SPACING, (31, 61, 59))
    assert answer.fits
    assert answer.aerated > 0.95
    assert answer.probability.shape == answer.mask.shape
    assert answer.uncertainty.entropy < 0.2


def cut_ball() -> tuple[np.ndarray, np.ndarray]:
    """Return a noisy crop at whose lowest row and first column a ball is cut, and where the ball is."""
    image, truth = ball(9.0)
    noisy = image + np.random.default_rng(0).normal(0, 20, image.shape).astype(np.float32)
    box = np.s_[10:50, 40:69, 55:100]
    return noisy[box], truth[box]


@pytest.mark.parametrize(
    "fill",
    [{"mode": "edge"}, *({"constant_values": hu} for hu in (-2000, -1000, 0, 40))],
    ids=lambda fill: str(next(iter(fill.values()))),
)
def test_nothing_is_drawn_in_what_was_put_around_an_image_and_nothing_else_inside(fill: dict) -> None:
    image, truth = cut_ball()
    around = ((6, 9), (25, 25), (70, 0))
    inner = tuple(slice(low, low + n) for (low, _), n in zip(around, image.shape, strict=True))
    segmenter = bright_segmenter()
    alone = segmenter.answer(image, SPACING, (20, 20, 5))
    found = segmenter.answer(np.pad(image, around, **fill), SPACING, (26, 45, 75))
    assert dice(alone.mask, truth[alone.box]) > 0.93
    assert found.box == inner and alone.box == WHOLE
    assert found.measured == (inner[0], inner[1], slice(70, 115))
    assert (found.mask == alone.mask).all() and (found.probability == alone.probability).all()
    assert (found.fits, found.aerated, found.uncertainty) == (alone.fits, alone.aerated, alone.uncertainty)


def test_at_a_point_in_what_was_put_around_an_image_there_is_nothing() -> None:
    image, _ = cut_ball()
    large = np.pad(image, 20, mode="edge")
    segmenter = bright_segmenter()
    assert segmenter.answer(large, SPACING, (40, 40, 19)).mask.any()
    for point in ((40, 40, 5), (0, 0, 0), (40, 40, 84), (79, 68, 84)):
        assert not segmenter.answer(large, SPACING, point).mask.any()


def look(size: int, expected_dice: float, fits: bool = True, aerated: float = 0.5) -> _Look:
    nothing: dict = {"box": None, "measured": None, "here": None, "drawn": None, "level": 0.5}
    return _Look(**nothing, fits=fits, size=size, expected_dice=expected_dice, aerated=aerated)


@pytest.mark.parametrize(
    ("looks", "chosen"),
    [
        pytest.param(
            [(3, 0.65), (200, 0.9), (310, 0.93), (5000, 0.85)], 2, id="a-part-and-a-leak-are-less-sure"
        ),
        pytest.param([(300, 0.89), (310, 0.9), (325, 0.91)], 0, id="the-narrowest-of-the-same-size"),
        pytest.param([(300, 0.95, False), (500, 0.85)], 1, id="what-the-patch-cuts-is-not-whole"),
        pytest.param([(300, 0.95, False), (320, 0.85)], 0, id="unless-one-that-it-does-not-cut-is-as-large"),
        pytest.param([(300, 0.95, False, 0.4), (320, 0.85)], 1, id="and-has-no-more-lung-around-it"),
        pytest.param([(0, 0.7), (0, 0.6), (700, 0.5)], 2, id="nothing-is-no-drawing"),
        pytest.param([(0, 0.0), (0, 0.0)], 0, id="nothing-anywhere"),
    ],
)
def test_of_several_views_that_counts_which_is_surest(looks: list[tuple], chosen: int) -> None:
    best = _surest([look(*one) for one in looks])
    assert (best.size, best.expected_dice) == looks[chosen][:2]
    assert best.fits


def test_what_every_view_cuts_is_told_to_be_cut() -> None:
    assert not _surest([look(300, 0.9, fits=False), look(900, 0.8, fits=False)]).fits


def test_a_point_is_deep_when_no_lung_is_within_a_centimetre() -> None:
    image, _ = ball(18.0)
    assert is_deep(image, SPACING, (30, 60, 60))
    assert not is_deep(image, SPACING, (30, 60, 77))
    image[29:32, 56:65, 56:65] = -900.0
    image[30, 60, 60] = 40.0
    assert is_deep(image, SPACING, (30, 60, 60))  # 0.2 ml of air


def test_a_point_in_lung_alone_draws_nothing_and_one_outside_is_an_error() -> None:
    image, _ = ball(4.0)
    segmenter = bright_segmenter()
    empty = segmenter.answer(image, SPACING, (10, 20, 20))
    assert not empty.mask.any()
    assert empty.uncertainty.entropy == 1.0
    with pytest.raises(ValueError, match="outside"):
        segmenter.answer(image, SPACING, (10, 20, 120))


@pytest.mark.parametrize(("hu", "is_seen"), [(-320.0, False), (-280.0, True)])
def test_what_is_less_probable_than_the_level_is_no_lesion(hu: float, is_seen: bool) -> None:
    image, truth = ball(5.0)
    answer = bright_segmenter().answer(np.where(truth, np.float32(hu), image), SPACING, (30, 60, 60))
    assert 0.3 < answer.probability.max() < 0.7
    assert answer.mask.any() == is_seen


def test_only_the_piece_at_the_point_is_drawn_and_only_within_the_region_that_is_given() -> None:
    image, truth = ball(5.0)
    other, _ = ball(4.0, (30, 60, 85))
    both = np.maximum(image, other)
    segmenter = bright_segmenter()
    assert dice(segmenter.segment(both, SPACING, (30, 60, 60)), truth) > 0.9
    within = np.zeros(image.shape, dtype=bool)
    within[:30] = True
    assert not segmenter.segment(both, SPACING, (30, 60, 60), within)[30:].any()


def test_the_level_goes_with_the_voxel_size() -> None:
    segmenter = bright_segmenter(levels=[0.4, 0.5, 0.6])
    assert [segmenter._level(mm) for mm in (0.65, 0.95, 1.4, 2.1)] == [0.4, 0.5, 0.6, 0.6]


def test_doubt_grows_with_the_quantile_and_the_probability_is_tempered() -> None:
    image, _ = ball(5.0)
    segmenter = bright_segmenter()
    answer = segmenter.answer(image, SPACING, (30, 60, 60))
    low, high = segmenter.doubt.volume_interval_mm3(500.0, 0.3)
    assert (low, high) == pytest.approx((500 / math.exp(0.25), 500 * math.exp(0.25)))
    middle = answer.probability[
        tuple(30 - s.start if a == 0 else 60 - s.start for a, s in enumerate(answer.box))
    ]
    logit = 20 * ((40 + 1000) / 700 - 1)
    assert middle == pytest.approx(1 / (1 + math.exp(-logit / 2)), abs=1e-3)


def test_a_card_that_lacks_something_is_refused_by_name() -> None:
    with pytest.raises(BadModel, match="doubt"):
        _ = bright_segmenter(doubt={}).doubt


@pytest.mark.parametrize(
    ("key", "said"),
    [
        *(("view", said) for said in (None, "x", math.nan, {}, {**CARD["view"], "first": 9})),
        ("view", {**CARD["view"], "voxels_mm": [0.6]}),
        ("view", {**CARD["view"], "point_sigma_mm": math.nan}),
        ("view", {**CARD["view"], "windows_hu": [[400, -1000]]}),
        *(("levels", said) for said in (None, "x", math.nan, [], [0.5, 0.5], [math.nan], [2.0])),
        *(("mirrors", said) for said in (None, "x", math.nan, math.inf, 0, 9, [1])),
    ],
)
def test_a_card_whose_view_levels_or_mirrors_cannot_be_used_is_refused_by_name(
    key: str, said: object
) -> None:
    segmenter = bright_segmenter(**{key: said})
    with pytest.raises(BadModel, match=f"bad-card: '{key}' in the card of nodule_segmenter"):
        segmenter.answer(ball(5.0)[0], SPACING, (30, 60, 60))


def test_a_shipped_model_draws_and_a_changed_one_is_not_opened(tmp_path: Path) -> None:
    vouched = pack(tmp_path)
    model = open_shipped(NAME, weights=tmp_path, vouched=vouched)
    segmenter = LearnedNoduleSegmenter(model=model)
    assert segmenter.card.weights_sha256 == vouched[NAME]
    assert segmenter.card.kind == "learned"
    image, _ = ball(5.0)
    assert segmenter.answer(image[20:40, 40:80, 40:80], SPACING, (10, 20, 20)).mask.ndim == 3
    with pytest.raises(BadModel, match="not-shipped"):
        open_shipped(NAME, weights=tmp_path, vouched={})
    with pytest.raises(BadModel, match="not-trusted"):
        open_shipped(NAME, weights=tmp_path, vouched={NAME: "1" * 64})
    card = tmp_path / NAME / "card.json"
    card.write_text(card.read_text().replace("0.5", "0.4"))
    with pytest.raises(BadModel, match="changed-file"):
        open_shipped(NAME, weights=tmp_path, vouched=vouched)


@pytest.mark.skipif(not (WEIGHTS / NAME).is_dir(), reason="the nodule segmenter is not shipped yet")
def test_the_shipped_segmenter_draws_a_ball_in_lung() -> None:
    assert NAME in VOUCHED
    noise = np.random.default_rng(0).normal(0, 20, (60, 120, 120)).astype(np.float32)
    image, truth = ball(7.0)
    segmenter = LearnedNoduleSegmenter(model=open_shipped(NAME), folds=(0,), mirrors=1)
    assert dice(segmenter.segment(image + noise, SPACING, (30, 61, 59)), truth) > 0.85


@pytest.mark.skipif(not (WEIGHTS / NAME).is_dir(), reason="the nodule segmenter is not shipped yet")
@pytest.mark.parametrize("where", ["free", "at the wall"])
def test_the_shipped_segmenter_draws_a_mass_of_eight_centimetres_whole(where: str) -> None:
    rng, spacing = np.random.default_rng(0), (3.0, 2.0, 2.0)
    at = (np.indices((50, 75, 75)).reshape(3, -1).T - (25, 37, 37)) * spacing
    wall = (at[:, 2] > (200.0 if where == "free" else 25.0)).reshape(50, 75, 75)
    truth = (np.linalg.norm(at, axis=1) <= 40.0).reshape(50, 75, 75) & ~wall
    image = np.where(truth | wall, 40.0, -850.0) + rng.normal(0, 25, wall.shape)
    segmenter = LearnedNoduleSegmenter(model=open_shipped(NAME), folds=(0,), mirrors=1)
    answer = segmenter.answer(image.astype(np.float32), spacing, (27, 34, 30))
    drawn = np.zeros(truth.shape, dtype=bool)
    drawn[answer.box] = answer.mask
    assert dice(drawn, truth) > 0.92
    assert answer.fits
    assert answer.voxel_mm > segmenter.view.voxels_mm[-1]


@pytest.mark.skipif(not (WEIGHTS / NAME).is_dir(), reason="the nodule segmenter is not shipped yet")
def test_the_shipped_segmenter_draws_a_mass_at_the_mediastinum_without_the_aorta() -> None:
    rng, spacing, shape = np.random.default_rng(0), (3.0, 1.5, 1.5), (60, 100, 100)
    at = grid_mm(shape, spacing) - np.array([90.0, 75.0, 60.0])
    aorta = tube(shape, spacing, middle=(54.0, 62.0), radius_mm=13.0)
    mass = (np.linalg.norm(at * (1.0, 1.0, 1.3), axis=-1) <= 30.0) & ~aorta
    image = np.where(at[..., 2] > 12.0, FAT, LUNG)
    image[mass | aorta] = TISSUE
    image = ndimage.gaussian_filter(image, 0.5) + rng.normal(0, 15, shape)
    segmenter = LearnedNoduleSegmenter(model=open_shipped(NAME), folds=(0,), mirrors=1)
    answer = segmenter.answer(image.astype(np.float32), spacing, (30, 50, 33))
    drawn = np.zeros(shape, dtype=np.bool_)
    drawn[answer.box] = answer.mask
    assert answer.voxel_mm > segmenter.view.voxels_mm[-1]
    assert dice(drawn, mass) > 0.96
    assert not (drawn & aorta)[:, 54, 62].any()
