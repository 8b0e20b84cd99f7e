"""Which lesions of a baseline are proposed as targets, against the rules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugins.errors import Refused
from store.response.history import Role
from store.response.organs import organ
from store.response.rules import Rules
from store.response.selection import Candidate, Proposed, propose


def lesion(name: str, size_mm: float, site: str = "lung", **more: Any) -> Candidate:
    axis = "short_axis_tenths" if more.get("node") else "long_axis_tenths"
    return Candidate(lesion=name, site=site, **{axis: round(size_mm * 10)}, **more)


def roles(proposal: tuple[Proposed, ...]) -> dict[str, Role | None]:
    return {proposed.lesion: proposed.role for proposed in proposal}


def targets(proposal: tuple[Proposed, ...]) -> set[str]:
    return {name for name, role in roles(proposal).items() if role is Role.TARGET}


@pytest.mark.parametrize(
    ("candidate", "role", "because"),
    [
        (lesion("a", 10), Role.TARGET, "Long axis 10.0 mm: measurable, one of the largest of lung."),
        (lesion("a", 9.9), Role.NON_TARGET, "Long axis 9.9 mm: not measurable below 10.0 mm."),
        (
            lesion("a", 13.9, slice_mm=7),
            Role.NON_TARGET,
            "not measurable below twice the 7 mm between its slices.",
        ),
        (lesion("a", 14, slice_mm=7), Role.TARGET, "measurable"),
        (lesion("a", 10, slice_mm=5), Role.TARGET, "measurable"),
        (
            lesion("a", 15, node=True),
            Role.TARGET,
            "Short axis 15.0 mm: measurable, one of the largest of lymph nodes.",
        ),
        (lesion("a", 14.9, node=True), Role.NON_TARGET, "Short axis 14.9 mm: not measurable below 15.0 mm."),
        (lesion("a", 10, node=True), Role.NON_TARGET, "not measurable"),
        (lesion("a", 9.9, node=True), None, "Short axis 9.9 mm: below 10 mm a node is normal."),
        (lesion("a", 15, node=True, slice_mm=7.5), Role.TARGET, "measurable"),
        (lesion("a", 50, measurable=False), Role.NON_TARGET, "Not measurable by its kind."),
        (Candidate(lesion="a", site="lung"), Role.NON_TARGET, "It has no long axis."),
        (Candidate(lesion="a", node=True, long_axis_tenths=300), Role.NON_TARGET, "It has no short axis."),
    ],
)
def test_what_is_measurable_is_a_target_and_the_reason_is_told(
    candidate: Candidate, role: Role | None, because: str
) -> None:
    (proposed,) = propose([candidate])
    assert proposed.role is role
    assert because in proposed.because


def test_every_organ_is_represented_before_any_has_a_second_target() -> None:
    found = propose(
        [
            lesion("L1", 60),
            lesion("L2", 50),
            lesion("L3", 40),
            lesion("H1", 12, "liver"),
            lesion("H2", 11, "liver"),
            lesion("N1", 15, node=True),
        ]
    )
    assert targets(found) == {"L1", "L2", "H1", "H2", "N1"}
    assert roles(found)["L3"] is Role.NON_TARGET
    assert found[2].because == "Long axis 40.0 mm: measurable, but lung has its 2 targets."


def test_lesions_whose_organ_is_not_known_do_not_push_one_another_out() -> None:
    found = propose([lesion(f"U{n}", 20 + n, site="") for n in range(6)])
    assert targets(found) == {"U1", "U2", "U3", "U4", "U5"}
    assert found[5].because == "Long axis 25.0 mm: measurable, its organ is not known."
    assert found[0].because.endswith("but there are 5 targets of other organs or larger ones.")
    known = [lesion("L1", 60), lesion("L2", 50), lesion("L3", 40)]
    assert targets(propose([*known, lesion("U1", 12, site=""), lesion("U2", 11, site="")])) == {
        "L1", "L2", "U1", "U2"
    }  # fmt: skip


def test_there_are_five_targets_at_most_and_the_sixth_organ_goes_without() -> None:
    organs = ["lung", "liver", "adrenal", "kidney", "spleen", "breast"]
    found = propose([lesion(f"{name}", 20 + 10 * n, name) for n, name in enumerate(organs)])
    assert targets(found) == set(organs[1:])
    assert found[0].because == (
        "Long axis 20.0 mm: measurable, but there are 5 targets of other organs or larger ones."
    )
    fewer = propose([lesion(name, 20, name) for name in organs], Rules(most_targets=3))
    assert len(targets(fewer)) == 3


@pytest.mark.parametrize(
    ("site", "node", "name"),
    [
        ("Left lung", False, "lung"),
        ("Lungs", False, "lung"),
        ("Upper lobe of right lung", False, "lung"),
        ("Lung structure", False, "lung"),
        ("right kidney", False, "kidney"),
        ("Kidneys, bilateral", False, "kidney"),
        ("Adrenal gland, left", False, "adrenal gland"),
        ("Liver segment VII", False, "liver"),
        ("Segment 4 of liver", False, "liver"),
        ("Liver, segments IVa/IVb and 5", False, "liver"),
        ("Right hepatic lobe", False, "liver"),
        ("Hepatic flexure of colon", False, "hepatic flexure colon"),
        ("Head and neck", False, "head and neck"),
        ("Apical segment of left lung", False, "apical lung"),
        ("Segment 4", False, "segment 4"),
        ("pancreas", False, "pancreas"),
        ("Pelvis", False, "pelvis"),
        ("Left", False, "left"),
        ("", False, "an unknown organ"),
        ("mediastinum", True, "lymph nodes"),
        ("mediastinum", False, "mediastinum"),
    ],
)
def test_sides_and_parts_make_no_other_organ_and_nodes_are_one(site: str, node: bool, name: str) -> None:
    assert organ(site, node) == name


def test_nodes_of_several_stations_are_one_organ_unless_the_protocol_says_otherwise() -> None:
    nodes = [
        lesion(f"N{n}", 20 + n, station, node=True) for n, station in enumerate(("neck", "groin", "hilum"))
    ]
    assert targets(propose(nodes)) == {"N1", "N2"}
    assert targets(propose(nodes, Rules(nodes_are_one_organ=False))) == {"N0", "N1", "N2"}


def test_what_a_person_said_is_kept_and_counted() -> None:
    found = propose(
        [
            lesion("L1", 60, said=Role.NON_TARGET),
            lesion("L2", 8, said=Role.TARGET),
            lesion("L3", 40),
            lesion("L4", 30),
        ]
    )
    assert targets(found) == {"L2", "L3"}
    assert found[0].because == "A person said non-target."


def test_a_lesion_that_is_named_twice_is_refused_and_none_is_no_fault() -> None:
    with pytest.raises(Refused, match="lesion-twice"):
        propose([lesion("L1", 20), lesion("L1", 30)])
    assert propose([]) == ()


BASELINES = st.lists(
    st.builds(
        lesion,
        name=st.uuids().map(str),
        size_mm=st.integers(8, 60),
        site=st.sampled_from(["lung", "liver", "bone"]),
    ),
    max_size=8,
)


@settings(max_examples=60)
@given(baseline=BASELINES, seed=st.randoms(use_true_random=False), most=st.integers(1, 5), said=st.booleans())
def test_the_targets_are_admissible_whatever_the_order_and_hold_every_organ_that_there_is_room_for(
    baseline: list[Candidate], seed: Any, most: int, said: bool
) -> None:
    if said and baseline:
        baseline = [replace(baseline[0], said=Role.TARGET), *baseline[1:]]
    rules = Rules(most_targets=most)
    chosen = targets(propose(baseline, rules))
    assert targets(propose(seed.sample(baseline, len(baseline)), rules)) == chosen
    fixed = {one.lesion for one in baseline if one.said}
    able = [one for one in baseline if one.lesion in fixed or (one.long_axis_tenths or 0) >= 100]
    assert fixed <= chosen <= {one.lesion for one in able}
    sites = [one.site for one in able if one.lesion in chosen]
    assert len(set(sites)) == min(most, len({one.site for one in able}))
    room = sum(min(2, [one.site for one in able].count(site)) for site in ("lung", "liver", "bone"))
    assert len(sites) == min(most, room) and all(sites.count(site) <= 2 for site in sites)
