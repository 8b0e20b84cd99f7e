from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
import pytest

from plugins.contract import Mask
from store.tracking.link import Kind
from store.tracking.motion import Motion
from store.tracking.registration import register
from training.body_motion import BodyMotion, Unrest, body_motion
from training.evaluate.tracking import (
    claims,
    earlier_lesions,
    linked,
    place_errors_mm,
    present_lesions,
    tally,
)
from training.lesion_families import draw_family
from training.pairs import Ground, PlacedLesion, ScanPair, phantom_ground, scan_pair
from training.phantom import Grid

SEEDS = range(2)


@pytest.fixture(scope="module")
def ground() -> Ground:
    return phantom_ground(grid=Grid(shape=(60, 100, 100), spacing_mm=(4.6, 4.0, 4.0)))


@pytest.fixture(scope="module")
def pairs(ground: Ground) -> list[ScanPair]:
    return [scan_pair(ground, seed, coarser=1.6) for seed in SEEDS]


def still() -> BodyMotion:
    lungs = np.zeros((20, 20, 20), dtype=np.bool_)
    lungs[4:16, 4:16, 4:16] = True
    nothing = Unrest(turn_deg=0.0, shift_mm=10.0, breath_mm=0.0, sway_mm=0.0)
    return body_motion(lungs, (4.0, 4.0, 4.0), np.zeros(3), np.random.default_rng(1), nothing)


def test_a_motion_without_turn_and_breath_is_a_shift() -> None:
    motion, points = still(), np.array([[10.0, 20.0, 30.0], [40.0, 41.0, 42.0]])
    assert motion.to_earlier(points) == pytest.approx(points + motion.shift_mm)
    assert motion.to_new(points) == pytest.approx(points - motion.shift_mm)


def test_there_and_back_is_where_it_was(pairs: list[ScanPair]) -> None:
    for pair in pairs:
        points = np.random.default_rng(0).uniform(-100, 100, (50, 3))
        assert np.abs(pair.motion.to_earlier(pair.motion.to_new(points)) - points).max() < 0.01


def test_lungs_move_more_below_than_above_and_the_ribs_stay_behind() -> None:
    lungs = np.zeros((60, 40, 40), dtype=np.bool_)
    lungs[5:55, 10:30, 10:30] = True
    unrest = Unrest(turn_deg=0.0, shift_mm=0.0, breath_mm=20.0, sway_mm=0.0)
    motion = body_motion(lungs, (4.0, 4.0, 4.0), np.zeros(3), np.random.default_rng(0), unrest)
    places = np.array([[80.0, 80.0, 40.0], [80.0, 80.0, 200.0], [80.0, 8.0, 40.0]])
    low, high, rib = np.linalg.norm(motion.to_earlier(places) - places, axis=1)
    assert low > 4 * high
    assert low > 4 * rib


def test_both_images_show_the_same_body(pairs: list[ScanPair]) -> None:
    """Where lungs were there are lungs, by the motion: the median HU of air and of tissue is what it was."""
    for pair in pairs:
        at = np.stack(
            [np.random.default_rng(1).integers(5, n - 5, 4000) for n in pair.new.array.shape], axis=1
        )
        old = np.rint(
            pair.earlier.to_index(pair.motion.to_earlier(pair.new.to_mm(at.astype(np.float64))))
        ).astype(int)
        inside = np.all((old >= 0) & (old < pair.earlier.array.shape), axis=1)
        new_hu, old_hu = pair.new.array[tuple(at[inside].T)], pair.earlier.array[tuple(old[inside].T)]
        assert np.corrcoef(new_hu, old_hu)[0, 1] > 0.9


def test_lesions_lie_where_the_truth_says_and_are_denser_than_lung(pairs: list[ScanPair]) -> None:
    for pair in pairs:
        assert pair.before
        for volume, lesions in ((pair.earlier, pair.before), (pair.new, pair.now)):
            bounds = volume.to_mm(np.array([(0, 0, 0), volume.array.shape], dtype=np.float64))
            for lesion in lesions:
                assert lesion.mask.count >= 4
                assert np.median(volume.array[lesion.mask.box][lesion.mask.voxels]) > -700
                if (np.array(lesion.centre_mm) > bounds[0] + 15).all() and (
                    lesion.centre_mm < bounds[1] - 15
                ).all():
                    assert (
                        np.linalg.norm(np.subtract(volume.centroid_mm(lesion.mask), lesion.centre_mm)) < 3.0
                    )


def test_masks_of_one_examination_do_not_overlap(pairs: list[ScanPair]) -> None:
    for pair in pairs:
        for volume, lesions in ((pair.earlier, pair.before), (pair.new, pair.now)):
            times = np.zeros(volume.array.shape, dtype=np.int64)
            for lesion in lesions:
                times[lesion.mask.box] += lesion.mask.voxels
            assert times.max() <= 1


def test_a_lesion_that_stayed_is_where_the_motion_takes_it_and_one_out_of_view_is_beyond_the_image(
    pairs: list[ScanPair],
) -> None:
    for pair in pairs:
        centres = {lesion.name: lesion.centre_mm for lesion in (*pair.before, *pair.now)}
        depth = pair.new.array.shape[0] * pair.new.spacing_mm[0]
        low = float(pair.new.to_mm((0.0, 0.0, 0.0))[2])
        for lesion in pair.before:
            taken = pair.motion.to_new(np.array([lesion.centre_mm]))[0]
            assert (lesion.name in pair.unseen) == (not low - 2 <= taken[2] <= low + depth - 1)
            for before, now in pair.links:
                if before == lesion.name and pair.fate(before) is Kind.SAME:
                    assert np.linalg.norm(taken - centres[now]) < 12.0


def test_the_same_seed_gives_the_same_pair_and_another_one_another(
    ground: Ground, pairs: list[ScanPair]
) -> None:
    again = scan_pair(ground, SEEDS[0], coarser=1.6)
    assert np.array_equal(again.new.array, pairs[0].new.array)
    assert again.links == pairs[0].links
    assert not np.array_equal(pairs[1].earlier.array[:20], again.earlier.array[:20])


def test_families_hold_what_they_say_and_every_kind_comes() -> None:
    rng = np.random.default_rng(3)
    families = [draw_family(rng) for _ in range(300)]
    kinds = {family.kind for family in families}
    crowds = {f"crowd: {what}" for what in ("both", "one goes", "one comes", "one for another")}
    assert kinds == {"one", "vanish", "appear", "part", "fuse"} | crowds
    for family in families:
        if family.kind == "crowd: both":
            (one,), (other,) = family.before
            assert 12 <= np.linalg.norm(np.subtract(one.centre_mm, other.centre_mm)) <= 20
        if family.kind == "part":
            assert family.links == ((0, 0), (0, 1))
            assert sum(n.volume_ml for parts in family.now for n in parts) < family.before[0][0].volume_ml
        assert all(0 <= i < len(family.before) and 0 <= j < len(family.now) for i, j in family.links)


def cube(name: str, at: int) -> PlacedLesion:
    mask = np.zeros((4, 4, 20), dtype=np.bool_)
    mask[1:3, 1:3, at : at + 2] = True
    return PlacedLesion(name=name, mask=Mask.from_full(mask), centre_mm=(0.0, 0.0, 0.0))


def test_kinds_follow_from_links(pairs: list[ScanPair]) -> None:
    pair = ScanPair(
        name="made",
        earlier=pairs[0].earlier,
        new=pairs[0].new,
        motion=pairs[0].motion,
        before=tuple(cube(n, 0) for n in "ABCDEF"),
        now=tuple(cube(n, 0) for n in "abcde"),
        links=frozenset({("A", "a"), ("B", "b"), ("B", "c"), ("C", "d"), ("D", "d")}),
        unseen=frozenset({"F"}),
    )
    fates = [Kind.SAME, Kind.SPLIT, Kind.MERGED, Kind.MERGED, Kind.GONE, Kind.OUT_OF_VIEW]
    assert [pair.fate(n) for n in "ABCDEF"] == fates
    assert [pair.origin(n) for n in "abcde"] == [Kind.SAME, Kind.SPLIT, Kind.SPLIT, Kind.MERGED, Kind.NEW]


def test_with_the_true_motion_and_the_true_masks_every_lesion_is_followed(pairs: list[ScanPair]) -> None:
    for pair in pairs:
        earlier = earlier_lesions(pair, cast(Motion, pair.motion), 3.0)
        links = linked(pair, earlier, present_lesions(pair))
        figures = tally(pair, links).figures()
        assert figures["matching_f1"] == 1.0
        assert figures["identity_switches"] == 0.0
        assert max(place_errors_mm(pair, earlier), default=0.0) < 1.5
        assert all(claim.right for claim in claims(pair, links))


@pytest.mark.long
def test_with_registration_the_places_are_found_and_the_lesions_followed(pairs: list[ScanPair]) -> None:
    pair = max(pairs, key=lambda one: len(one.links))
    earlier = earlier_lesions(pair, register(pair.new, pair.earlier), 3.0)
    figures = tally(pair, linked(pair, earlier, present_lesions(pair))).figures()
    assert np.median(place_errors_mm(pair, earlier)) < 3.0
    assert figures["matching_f1"] >= 0.97
    assert figures["identity_switches"] == 0.0


def test_a_link_to_the_wrong_lesion_counts_as_a_switch_and_a_missing_one_as_a_false_new_lesion(
    pairs: list[ScanPair],
) -> None:
    pair = max(pairs, key=lambda one: len(one.links))
    named = [(before, now) for before, now in sorted(pair.links) if pair.fate(before) is Kind.SAME]
    (_, now), (other, _) = named[0], named[1]
    links = list(linked(pair, earlier_lesions(pair, cast(Motion, pair.motion), 3.0), present_lesions(pair)))
    at = next(n for n, link in enumerate(links) if link.finding == now)
    right = tally(pair, links)
    links[at] = replace(links[at], tracking_uid=other, earlier=(other,))
    assert tally(pair, links).switched == 1
    links[at] = replace(links[at], kind=Kind.NEW, tracking_uid="own", earlier=())
    wrong = tally(pair, links)
    assert (wrong.switched, wrong.new_told) == (0, right.new_told + 1)
    assert (wrong.links_right, wrong.new_right) == (right.links_right - 1, right.new_right)
