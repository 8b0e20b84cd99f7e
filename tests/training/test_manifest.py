from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugins.errors import Refused
from training.lidc import lidc_manifest, load_nodule
from training.manifest import Case, DataManifest, folds, part_of, read_manifest, require_patients_apart


def case(name: str, patient: str, fold: int) -> Case:
    return Case(case_id=name, patient_id=patient, files={}, sha256={}, fold=fold, size_mm=8.0)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=6), st.floats(3, 40), min_size=5, max_size=60))
def test_folds_depend_on_the_patients_and_not_on_their_order(sizes: dict[str, float]) -> None:
    found = folds(sizes)
    assert found == folds(dict(reversed(sizes.items())))
    counts = [list(found.values()).count(n) for n in range(5)]
    assert max(counts) - min(counts) <= 1


def test_every_fold_holds_its_part_of_the_large_lesions() -> None:
    found = folds({f"p{n}": float(n) for n in range(100)})
    large = [found[f"p{n}"] for n in range(50, 100)]
    assert [large.count(n) for n in range(5)] == [10] * 5


def test_no_patient_is_on_two_sides_of_a_split() -> None:
    with pytest.raises(Refused, match="patient-on-both-sides"):
        DataManifest(name="x", cases=(case("a", "P1", 0), case("b", "P1", 1)))
    with pytest.raises(Refused, match="P2"):
        require_patients_apart([case("a", "P2", 0)], [case("b", "P2", 0)])


def test_a_case_is_in_a_manifest_once() -> None:
    with pytest.raises(Refused, match="case-twice: case b is 2 times in x"):
        DataManifest(name="x", cases=(case("a", "P1", 0), case("b", "P2", 1), case("b", "P2", 1)))
    assert DataManifest(name="x", cases=()).cases == ()


def test_a_smaller_part_of_the_patients_lies_in_a_larger_one_and_takes_all_cases_of_each() -> None:
    cases = [case(f"{n}{side}", f"P{n}", n % 5) for n in range(40) for side in "ab"]
    quarter, half = part_of(cases, 0.25), part_of(cases, 0.5)
    assert (len(quarter), len(half), len(part_of(cases, 1.0))) == (20, 40, 80)
    assert {c.case_id for c in quarter} < {c.case_id for c in half}


def test_a_manifest_is_read_back_and_a_changed_one_is_refused(tmp_path: Path) -> None:
    manifest = DataManifest(name="x", cases=(case("a", "P1", 0), case("b", "P2", 1)))
    path = tmp_path / "data.json"
    manifest.write(path)
    assert read_manifest(path) == manifest
    path.write_text(path.read_text().replace('"P2"', '"P3"'))
    with pytest.raises(Refused, match="changed-manifest"):
        read_manifest(path)


def test_the_nodule_crops_are_in_folds_by_patient_with_all_sizes_in_each(data: Path) -> None:
    manifest = lidc_manifest(data / "lidc_nodules")
    assert len(manifest.cases) == 856
    for number in range(5):
        held = manifest.fold(number)
        assert {c.patient_id for c in held}.isdisjoint({c.patient_id for c in manifest.others(number)})
        assert sum(c.size_mm > 20 for c in held) == 8
    nodule = load_nodule(manifest.cases[0], data / "lidc_nodules")
    assert nodule.image.shape == nodule.mask.shape == (11, 64, 53)
    assert nodule.spacing_mm == pytest.approx((2.5, 0.703125, 0.703125))
    assert int(nodule.mask.sum()) == 6547


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"files": {"image": "../../etc/passwd"}}, "not in the folder"),
        ({"files": {"image": "/etc/passwd"}}, "not in the folder"),
        ({"files": {"image": "a\0b"}}, "not in the folder"),
        ({"files": None}, "no table"),
        ({"tags": [1]}, "no table"),
        ({"tags": {"scanner": {}}}, "neither a number nor a word"),
        ({"sha256": {}}, "lacks"),
        ({"patient_id": None}, "lacks"),
        ({"size_mm": "large"}, "no number"),
        ({"size_mm": math.nan}, "is nan"),
        ({"fold": 1.5}, "no number"),
    ],
)
def test_a_case_that_is_none_is_refused_also_when_the_hash_agrees(
    tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    whole = replace(case("a", "P1", 0), files={"image": "a.nii.gz"}, sha256={"image": "0" * 64})
    path = tmp_path / "data.json"
    DataManifest(name="x", cases=(replace(whole, **changes),)).write(path)
    with pytest.raises(Refused, match=f"bad-manifest.*{why}"):
        read_manifest(path)


def test_json_nested_without_end_is_no_manifest(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text("[" * 100_000)
    with pytest.raises(Refused, match="bad-manifest"):
        read_manifest(path)
