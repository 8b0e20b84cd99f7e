from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugins.errors import Refused
from training.lidc import lidc_manifest
from training.manifest import Case, DataManifest, patient_key
from training.split import SIDES, SPLIT, Shares, Split, read_earlier, read_split, split, split_of, strata

THIRDS: Shares = (0.7, 0.15, 0.15)


def case(patient: str, size_mm: float, number: int = 0, scanner: str = "A") -> Case:
    return Case(
        case_id=f"{patient}-{number}",
        patient_id=patient,
        files={},
        sha256={},
        fold=0,
        size_mm=size_mm,
        tags={"scanner": scanner},
    )


def manifest_of(cases: list[Case]) -> DataManifest:
    return DataManifest(name="x", cases=tuple(cases))


@st.composite
def data_sets(draw: st.DrawFn, prefix: str = "P") -> list[Case]:
    patients = draw(st.integers(1, 60))
    return [
        case(f"{prefix}{n}", draw(st.floats(2, 90)), number, draw(st.sampled_from("AB")))
        for n in range(patients)
        for number in range(draw(st.integers(1, 2)))
    ]


@st.composite
def shares(draw: st.DrawFn) -> Shares:
    a, b = sorted((draw(st.integers(0, 20)), draw(st.integers(0, 20))))
    return (a / 20, (b - a) / 20, (20 - b) / 20)


@settings(max_examples=30, deadline=None)
@given(data_sets(), shares(), st.integers(0, 5), st.booleans(), st.randoms())
def test_each_side_has_its_share_of_every_stratum_to_within_one_patient_in_any_order(
    cases: list[Case], wanted: Shares, seed: int, by_scanner: bool, random: object
) -> None:
    manifest, by = manifest_of(cases), ("scanner",) if by_scanner else ()
    found = split(manifest, wanted, seed, by=by)
    for members in strata(manifest, by).values():
        counts = Counter(found.side_of(patient) for patient in members)
        for side, share in zip(SIDES, wanted, strict=True):
            assert abs(counts[side] - share * len(members)) < 1
    random.shuffle(cases)  # type: ignore[attr-defined]
    assert split(manifest_of(cases), wanted, seed, by=by).sides == found.sides
    assert len(found.sides) == len({c.patient_id for c in cases})
    sides = [found.cases(manifest, side) for side in SIDES]
    assert sum(map(len, sides)) == len(cases)


@settings(max_examples=25, deadline=None)
@given(data_sets(), data_sets("Q"), shares(), shares(), st.integers(0, 5))
def test_nobody_changes_sides_when_patients_come_or_go_and_a_lesion_grows(
    first: list[Case], more: list[Case], before: Shares, after: Shares, seed: int
) -> None:
    early = split(manifest_of(first), before, 1)
    grown = case(first[0].patient_id, 95.0, 7)
    late = split(manifest_of([*first[1:], grown, *more]), after, seed, earlier=early)
    assert early.sides.items() <= late.sides.items()


def test_a_small_side_is_not_rounded_away_where_strata_are_small() -> None:
    cases = [case(f"P{n}", size) for n, size in enumerate([4.0, 8.0, 15.0, 30.0, 50.0] * 4)]
    found = split(manifest_of(cases), THIRDS)
    counts = Counter(found.sides.values())
    # 20 patients: 14, 3 and 3 are wanted; each stratum of four alone would give the small sides nothing or too much
    assert all(abs(counts[s] - n) <= 1 for s, n in zip(SIDES, (14, 3, 3), strict=True))


def test_new_patients_make_up_for_a_side_that_is_behind() -> None:
    early = Split(
        data="x",
        manifest_sha256="",
        shares=(1.0, 0.0, 0.0),
        seed=0,
        sides={patient_key(f"P{n}"): "train" for n in range(6)},
    )
    late = split(manifest_of([case(f"P{n}", 8.0) for n in range(10)]), (0.6, 0.2, 0.2), earlier=early)
    assert Counter(late.sides.values()) == {"train": 6, "validation": 2, "test": 2}


def test_another_seed_gives_other_sides() -> None:
    cases = manifest_of([case(f"P{n}", 8.0) for n in range(40)])
    assert split(cases, THIRDS, 0).sides != split(cases, THIRDS, 1).sides


@pytest.mark.parametrize("wanted", [(0.7, 0.2, 0.2), (1.2, -0.1, -0.1), (0.5, 0.5)])
def test_shares_that_are_no_parts_of_one_are_refused(wanted: tuple[float, ...]) -> None:
    with pytest.raises(Refused, match="bad-shares"):
        split(manifest_of([case("P", 8.0)]), wanted)  # type: ignore[arg-type]


def test_a_tag_that_no_case_has_is_refused() -> None:
    with pytest.raises(Refused, match="unknown-tag"):
        split(manifest_of([case("P", 8.0)]), THIRDS, by=["reader"])


def test_a_frozen_split_is_read_back_and_refused_when_it_or_its_data_were_changed(tmp_path: Path) -> None:
    cases = [case(f"P{n}", 5.0 + n) for n in range(12)]
    manifest, path = manifest_of(cases), tmp_path / SPLIT
    assert split_of(tmp_path, manifest) is None
    frozen = split(manifest, THIRDS, 3, by=["scanner"])
    frozen.write(path)
    assert read_split(path, manifest) == split_of(tmp_path, manifest) == frozen
    assert "P1" not in path.read_text()
    with pytest.raises(Refused, match="other-data") as told:
        read_split(path, manifest_of(cases[1:]))
    assert "--keep" in told.value.sentence
    plain = json.loads(path.read_text())
    moved = plain["sides"]["train"].pop()
    path.write_text(json.dumps(plain))
    with pytest.raises(Refused, match="changed-split"):
        read_split(path, manifest)
    plain["sides"]["train"].append(moved)
    plain["sides"]["test"].append(moved)
    path.write_text(json.dumps(plain))
    with pytest.raises(Refused, match="patient-on-both-sides"):
        read_earlier(path)
    path.write_text('{"sides": 3}')
    with pytest.raises(Refused, match="bad-split"):
        read_earlier(path)


def test_a_patient_whom_the_split_does_not_know_is_refused() -> None:
    manifest = manifest_of([case("P1", 8.0)])
    forged = Split(data="x", manifest_sha256=manifest.sha256, shares=THIRDS, seed=0, sides={})
    with pytest.raises(Refused, match="patient-without-side"):
        forged.cases(manifest, "train")


def test_real_nodules_are_divided_with_all_sizes_on_each_side(data: Path) -> None:
    manifest = lidc_manifest(data / "lidc_nodules")
    found = split(manifest, THIRDS)
    counts = Counter(found.sides.values())
    assert [counts[side] for side in SIDES] == pytest.approx([471 * s for s in THIRDS], abs=1)
    large = Counter(found.side_of(c.patient_id) for c in manifest.cases if c.size_mm > 20)
    assert [large[side] for side in SIDES] == pytest.approx([40 * s for s in THIRDS], abs=3)
