from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import highdicom
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugins import codes
from plugins.contract import Mask
from store.tracking import confidence
from store.tracking.lesion import EarlierLesion, PresentLesion
from store.tracking.link import Kind, Link
from store.tracking.matching import match
from store.tracking.pairing import may_be

SHAPE = (40, 60, 60)
STEP_MM = 2.0
Place = tuple[float, float, float]


def grid(shape: tuple[int, int, int] = SHAPE, turned: bool = False) -> highdicom.VolumeGeometry:
    """Return a grid of 2 mm; `turned`: its slices are sagittal, and its rows run to the feet."""
    axes = [[0, 0, 1], [0, 1, 0], [1, 0, 0]] if not turned else [[1, 0, 0], [0, 0, 1], [0, -1, 0]]
    affine = np.eye(4)
    affine[:3, :3] = STEP_MM * np.array(axes, dtype=float)
    return highdicom.VolumeGeometry(affine=affine, spatial_shape=shape, coordinate_system="PATIENT")


GRID = grid()


def ball(at_mm: Place, diameter_mm: float, geometry: highdicom.VolumeGeometry = GRID) -> Mask:
    """Return the voxels in a ball that does not reach the edge of the grid; at least the one nearest its middle."""
    axes, origin = geometry.affine[:3, :3], geometry.affine[:3, 3]
    middle = np.linalg.solve(axes, np.subtract(at_mm, origin))
    reach = int(diameter_mm / 2 / STEP_MM) + 1
    low = np.rint(middle).astype(int) - reach
    box = (2 * reach + 1,) * 3
    away = np.linalg.norm((np.indices(box).reshape(3, -1).T + low - middle) @ axes.T, axis=1).reshape(box)
    inside = Mask.from_full(away <= max(diameter_mm / 2, away.min()))
    k, r, c = (int(o + n) for o, n in zip(inside.origin, low, strict=True))
    return Mask(shape=geometry.spatial_shape, origin=(k, r, c), voxels=inside.voxels)


def earlier(
    uid: str, at_mm: Place, diameter_mm: float, geometry: highdicom.VolumeGeometry = GRID
) -> EarlierLesion:
    return EarlierLesion(
        tracking_uid=uid,
        tracking_identifier=f"Lesion {uid}",
        study_instance_uid="1.2.3",
        expected_mm=at_mm,
        expected_mask=ball(at_mm, diameter_mm, geometry),
        volume_mm3=np.pi / 6 * diameter_mm**3,
        in_view=1.0,
    )


def present(
    key: str, at_mm: Place, diameter_mm: float, geometry: highdicom.VolumeGeometry = GRID
) -> PresentLesion:
    return PresentLesion(
        key=key,
        label=f"Nodule {key}",
        centroid_mm=at_mm,
        mask=ball(at_mm, diameter_mm, geometry),
        volume_mm3=np.pi / 6 * diameter_mm**3,
    )


def matched(
    before: Sequence[EarlierLesion],
    now: Sequence[PresentLesion],
    geometry: highdicom.VolumeGeometry = GRID,
) -> dict[str, Link]:
    """Return the links by finding, or by Tracking UID where there is none."""
    links = match(before, now, geometry=geometry, new_identity=lambda lesion: (f"new {lesion.key}", "New"))
    return {link.finding or link.tracking_uid: link for link in links}


def told(links: dict[str, Link]) -> dict[str, tuple[str, str, tuple[str, ...]]]:
    return {name: (link.kind.value, link.tracking_uid, link.earlier) for name, link in links.items()}


def test_a_lesion_that_moved_and_grew_a_little_is_the_same_and_the_reason_tells_the_numbers() -> None:
    link = matched([earlier("A", (40, 40, 40), 12)], [present("a", (43, 40, 36), 14)])["a"]
    assert (link.kind, link.tracking_uid, link.tracking_identifier) == (Kind.SAME, "A", "Lesion A")
    assert link.earlier == ("A",)
    assert link.study_instance_uid == "1.2.3"
    assert link.expected_mm == (40, 40, 40)
    assert link.reason.startswith("5.0 mm from where it was expected, overlap 0.")
    assert link.reason.endswith("volume 1.6 times")
    assert 0.95 < link.confidence <= 0.99


@pytest.mark.parametrize(
    ("apart_mm", "kind"), [(4, Kind.SAME), (9, Kind.SAME), (20, Kind.NEW), (50, Kind.NEW)]
)
def test_a_small_lesion_is_the_same_when_it_is_near_and_new_when_it_is_far(apart_mm: int, kind: Kind) -> None:
    links = matched([earlier("A", (30, 40, 40), 8)], [present("a", (30 + apart_mm, 40, 40), 8)])
    assert links["a"].kind is kind
    assert ("A" in links) == (kind is Kind.NEW)


def test_a_registration_that_is_known_to_be_poor_widens_the_gate() -> None:
    before, now = earlier("A", (30, 40, 40), 8), present("a", (46, 40, 40), 8)
    assert matched([before], [now])["a"].kind is Kind.NEW
    poor = replace(before, expected_sd_mm=8.0)
    far, near = (matched([e], [now])["a"] for e in (poor, earlier("A", (44, 40, 40), 8)))
    assert far.kind is Kind.SAME
    assert far.confidence < 0.96 < 0.98 < near.confidence


def test_neighbours_that_are_all_off_by_the_same_way_are_the_same_lesions() -> None:
    """12 mm off, in a row 13 mm apart: each one lies beside the place of the next, and the last one beyond."""
    before = [earlier(name, (20 + 13 * n, 40, 40), 6) for n, name in enumerate("ABCD")]
    far = [earlier("E", (40, 90, 20), 10), earlier("F", (70, 90, 60), 10), earlier("G", (40, 15, 60), 10)]
    now = [
        present(e.tracking_uid.lower(), (e.expected_mm[0], e.expected_mm[1] + 10, e.expected_mm[2]), 6)
        for e in (*before, *far)
    ]
    links = matched([*before, *far], now)
    assert {name: link.earlier for name, link in links.items()} == {c.lower(): (c,) for c in "ABCDEFG"}


def test_two_crowded_neighbours_keep_their_identities() -> None:
    before = [earlier("A", (40, 40, 40), 8), earlier("B", (54, 40, 40), 8)]
    now = [present("a", (45, 40, 40), 8), present("b", (59, 42, 40), 9)]
    assert told(matched(before, now)) == {"a": ("same", "A", ("A",)), "b": ("same", "B", ("B",))}


def test_when_one_of_two_neighbours_is_gone_the_other_keeps_its_own_identity() -> None:
    links = matched(
        [earlier("A", (40, 40, 40), 8), earlier("B", (54, 40, 40), 8)], [present("b", (53, 40, 40), 8)]
    )
    assert told(links) == {"b": ("same", "B", ("B",)), "A": ("disappeared", "A", ("A",))}


def test_parts_of_a_lesion_share_their_origin_and_only_the_largest_keeps_the_identity() -> None:
    links = matched(
        [earlier("A", (50, 50, 40), 36)],
        [present("a", (41, 50, 40), 10), present("b", (59, 50, 40), 14), present("c", (50, 62, 40), 8)],
    )
    assert told(links) == {
        "a": ("split", "new a", ("A",)),
        "b": ("split", "A", ("A",)),
        "c": ("split", "new c", ("A",)),
    }
    assert "one of 3 lesions where one was, 100% of it inside" in links["a"].reason


def test_a_second_lesion_beside_one_that_grew_is_new_and_no_part_of_it() -> None:
    links = matched(
        [earlier("A", (40, 40, 40), 10)], [present("a", (40, 40, 40), 14), present("b", (51, 40, 40), 6)]
    )
    assert told(links) == {"a": ("same", "A", ("A",)), "b": ("new", "new b", ())}


def test_a_lesion_drawn_over_the_place_of_an_earlier_one_that_has_its_partner_is_not_surely_new() -> None:
    links = matched(
        [earlier("A", (50, 60, 40), 16)], [present("a", (44, 60, 40), 12), present("b", (66, 60, 40), 32)]
    )
    assert links["a"].earlier == ("A",)
    assert links["b"].kind is Kind.NEW
    assert links["b"].confidence == confidence.OVERRUN
    assert "reaches over the place of 'Lesion A'" in links["b"].reason
    beside = matched(
        [earlier("A", (50, 60, 40), 16)], [present("a", (44, 60, 40), 12), present("b", (76, 60, 40), 24)]
    )
    assert beside["b"].confidence > confidence.OVERRUN
    assert "reaches over" not in beside["b"].reason


def test_lesions_that_became_one_hand_on_the_identity_of_the_largest() -> None:
    links = matched(
        [earlier("A", (42, 40, 40), 8), earlier("B", (54, 40, 40), 12)], [present("a", (49, 40, 40), 24)]
    )
    assert told(links) == {"a": ("merged", "B", ("A", "B"))}


@pytest.mark.parametrize(
    ("in_view", "visible", "kind"),
    [
        (1.0, None, Kind.GONE),
        (1.0, 0.1, Kind.GONE),
        (1.0, 0.9, Kind.NOT_SEGMENTED),
        (0.7, None, Kind.OUT_OF_VIEW),
        (0.0, 0.9, Kind.OUT_OF_VIEW),
    ],
)
def test_a_lesion_without_finding_is_gone_only_where_it_could_have_been_seen(
    in_view: float, visible: float | None, kind: Kind
) -> None:
    before = replace(earlier("A", (40, 40, 40), 10), in_view=in_view, visible=visible)
    link = matched([before], [])["A"]
    assert (link.kind, link.tracking_uid, link.finding) == (kind, "A", None)
    assert link.earlier == ("A",)


def test_a_lesion_that_nobody_looked_for_is_less_surely_gone() -> None:
    before = earlier("A", (40, 40, 40), 10)
    unlooked, looked = (matched([replace(before, visible=v)], [])["A"].confidence for v in (None, 0.02))
    assert unlooked < looked


def test_another_organ_forbids_a_link_and_a_region_that_holds_it_does_not() -> None:
    before, now = earlier("A", (40, 40, 40), 10), present("a", (40, 40, 40), 10)
    liver = replace(before, site=codes.LIVER.value)
    assert matched([liver], [replace(now, site=codes.LUNG.value)])["a"].kind is Kind.NEW
    assert matched([liver], [now])["a"].kind is Kind.SAME
    assert may_be(codes.CHEST.value, codes.LUNG.value)
    assert may_be(codes.LUNG.value, codes.CHEST.value)
    assert not may_be(codes.CHEST.value, codes.BRAIN.value)


def test_a_drawing_that_carries_the_identity_of_a_lesion_is_that_lesion_wherever_it_lies() -> None:
    before = [earlier("A", (40, 40, 40), 10), earlier("B", (90, 90, 60), 10)]
    now = [
        replace(present("a", (88, 90, 60), 10), tracking_uid="A", site=codes.LIVER.value),
        present("b", (40, 40, 40), 9),
    ]
    links = matched([replace(e, site=codes.LUNG.value) for e in before], now)
    assert links["a"].tracking_uid == "A"
    assert links["a"].kind is Kind.SAME
    assert links["a"].confidence == 1.0
    assert links["a"].reason.startswith("the drawing carries its Tracking UID")
    assert links["b"].kind is Kind.NEW
    assert links["B"].kind is Kind.GONE


def test_a_drawing_that_a_person_linked_from_afar_moves_no_other_lesion() -> None:
    before = [earlier(name, (x, 60, 40), 8) for name, x in zip("ABCD", (20, 45, 70, 95), strict=True)]
    now = [present(e.tracking_uid.lower(), e.expected_mm, 8) for e in before[:2]]
    far = [replace(present(n, (60, y, 60), 8), tracking_uid=n.upper()) for n, y in (("c", 10), ("d", 110))]
    links = matched(before, [*now, *far])
    assert {name: link.earlier for name, link in links.items()} == {c: (c.upper(),) for c in "abcd"}
    assert links["a"].expected_mm == before[0].expected_mm


def test_of_two_drawings_with_one_identity_the_larger_has_it() -> None:
    now = [replace(present(k, (x, 40, 40), d), tracking_uid="A") for k, x, d in (("a", 20, 8), ("b", 90, 12))]
    links = matched([earlier("A", (60, 80, 40), 10)], now)
    assert told(links) == {"a": ("new", "new a", ()), "b": ("same", "A", ("A",))}


def test_a_new_lesion_keeps_the_identity_that_its_drawing_brought() -> None:
    now = replace(present("a", (40, 40, 40), 10), tracking_uid="1.2.9", tracking_identifier="Mine")
    link = matched([], [now])["a"]
    assert (link.kind, link.tracking_uid, link.tracking_identifier) == (Kind.NEW, "1.2.9", "Mine")
    assert link.reason == "no earlier lesion is known"


def test_a_lesion_of_which_only_the_place_is_known_is_matched_by_it() -> None:
    before = replace(earlier("A", (40, 40, 40), 10), expected_mask=None)
    assert matched([before], [present("a", (44, 40, 40), 10)])["a"].kind is Kind.SAME
    assert matched([replace(before, volume_mm3=0.0)], [present("a", (42, 40, 40), 10)])["a"].kind is Kind.SAME


def test_the_neighbours_shift_is_known_on_a_grid_that_lies_otherwise() -> None:
    sagittal = grid((60, 40, 60), turned=True)
    places: list[Place] = [(30, 40, -20), (60, 90, -40), (90, 40, -60), (60, 20, -30)]
    before = [earlier(f"{n}", place, 8, sagittal) for n, place in enumerate(places)]
    now = [present(f"p{n}", (x, y, z - 8), 8, sagittal) for n, (x, y, z) in enumerate(places)]
    links = matched(before, now, sagittal)
    assert {name: link.earlier for name, link in links.items()} == {f"p{n}": (f"{n}",) for n in range(4)}
    for n, (x, y, z) in enumerate(places):
        link = links[f"p{n}"]
        assert link.expected_mm == pytest.approx((x, y, z - 8))
        assert link.reason.startswith("0.0 mm from where it was expected, overlap 1.00")


def test_an_identity_that_is_taken_and_lesions_that_share_one_are_told() -> None:
    one = earlier("A", (40, 40, 40), 10)
    with pytest.raises(ValueError, match="must differ"):
        matched([one, one], [])
    with pytest.raises(ValueError, match="belongs to another lesion"):
        match([one], [present("a", (90, 90, 40), 8)], geometry=GRID, new_identity=lambda _: ("A", ""))


spots = st.tuples(st.integers(10, 49), st.integers(10, 49), st.integers(10, 29))
sizes = st.sampled_from([6.0, 10.0, 16.0, 24.0])
crowds = st.lists(st.tuples(spots, sizes), max_size=5)


def _lesions(
    old: list[tuple[tuple[int, int, int], float]],
    new: list[tuple[tuple[int, int, int], float]],
    shift: int = 0,
) -> tuple[list[EarlierLesion], list[PresentLesion]]:
    def at(spot: tuple[int, int, int]) -> Place:
        x, y, z = (STEP_MM * (v + shift) for v in spot)
        return (x, y, z)

    return (
        [earlier(f"E{n}", at(spot), size) for n, (spot, size) in enumerate(old)],
        [present(f"P{n}", at(spot), size) for n, (spot, size) in enumerate(new)],
    )


@settings(max_examples=60, deadline=None)
@given(
    old=crowds, new=crowds, own=st.lists(st.sampled_from([None, "E0", "E1", "own"]), min_size=5, max_size=5)
)
def test_every_earlier_lesion_has_one_fate_every_present_one_one_origin_and_no_identity_is_given_twice(
    old: list[tuple[tuple[int, int, int], float]],
    new: list[tuple[tuple[int, int, int], float]],
    own: list[str | None],
) -> None:
    before, drawn = _lesions(old, new)
    now = [replace(p, tracking_uid=uid) for p, uid in zip(drawn, own, strict=False)]
    links = match(before, now, geometry=GRID, new_identity=lambda lesion: (f"new {lesion.key}", ""))
    assert sorted(link.finding for link in links if link.finding) == sorted(p.key for p in now)
    assert len({link.tracking_uid for link in links}) == len(links)
    for lesion in before:
        kinds = {link.kind for link in links if lesion.tracking_uid in link.earlier}
        assert len(kinds) == 1
        if kinds != {Kind.SPLIT}:
            assert sum(lesion.tracking_uid in link.earlier for link in links) == 1
    assert all(0.0 <= link.confidence <= 1.0 and link.reason for link in links)
    assert all((link.kind is Kind.NEW) == (not link.earlier) for link in links)
    backwards = match(
        before[::-1], now[::-1], geometry=GRID, new_identity=lambda lesion: (f"new {lesion.key}", "")
    )
    assert backwards == links


@settings(max_examples=20, deadline=None)
@given(old=crowds, new=crowds, shift=st.integers(-3, 3))
def test_what_is_moved_together_is_matched_alike(
    old: list[tuple[tuple[int, int, int], float]], new: list[tuple[tuple[int, int, int], float]], shift: int
) -> None:
    here, there = (matched(*_lesions(old, new, way)) for way in (0, shift))
    assert told(here) == told(there)
