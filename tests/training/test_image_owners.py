"""The same images under two patients: one of the two is left out, and told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from label_crops import RECIPE, write_labels

from plugins.errors import Refused
from store.patient_key import patient_key
from training.frozen import Gathered, freeze
from training.image_owners import VOXELS, one_patient_each
from training.manifest import Case, DataManifest

END = "their images are, byte for byte, those of another patient; let them be one"


def gathered(folder: Path, learners: tuple[str, ...], judges: tuple[str, ...], first: int) -> Gathered:
    """Return labels; the first learner's images are those of the first judge when `first` is 0."""
    return Gathered(
        learn=write_labels(folder / "learn", "labels", learners),
        judge=write_labels(folder / "judge", "hold-out", judges, first),
    )


def people(manifest: DataManifest | None) -> list[str]:
    return [case.patient_id for case in manifest.cases] if manifest else []


def keys(*names: str) -> list[str]:
    return [patient_key(name) for name in names]


def cut_elsewhere(case: Case, name: str) -> Case:
    """Return a case of another crop of a series whose voxels have a hash."""
    return replace(case, tags={**case.tags, VOXELS: name})


def test_nobody_is_learned_from_on_images_of_the_hold_out(tmp_path: Path) -> None:
    found = one_patient_each(gathered(tmp_path, ("L0", "L1", "L2"), ("J0", "J1"), 0), ())
    assert (people(found.learn), people(found.judge)) == (keys("L2"), keys("J0", "J1"))
    assert found.told == (f"2 masks are not learned from: {END}",)
    none = one_patient_each(gathered(tmp_path, ("L0",), ("J0",), 0), ())
    assert (none.learn, people(none.judge)) == (None, keys("J0"))


def test_an_image_is_known_by_its_series_whatever_was_cut_out_of_it(tmp_path: Path) -> None:
    made = gathered(tmp_path, ("L0", "L1"), ("J0",), 20)
    assert made.learn is not None and made.judge is not None
    assert one_patient_each(made, ()) == made
    learn = replace(made.learn, cases=(cut_elsewhere(made.learn.cases[0], "a"), made.learn.cases[1]))
    judge = replace(made.judge, cases=(cut_elsewhere(made.judge.cases[0], "a"),))
    found = one_patient_each(replace(made, learn=learn, judge=judge), ())
    assert (people(found.learn), people(found.judge)) == (keys("L1"), keys("J0"))


def test_images_of_two_patients_on_one_side_count_once(tmp_path: Path) -> None:
    made = gathered(tmp_path, ("L0", "L1"), ("J0", "J1"), 20)
    again = gathered(tmp_path, ("L8",), ("J8",), 20)
    assert made.learn and made.judge and again.learn and again.judge
    twice = Gathered(
        learn=replace(made.learn, cases=(*made.learn.cases, *again.learn.cases)),
        judge=replace(made.judge, cases=(*made.judge.cases, *again.judge.cases)),
    )
    found = one_patient_each(twice, ())
    assert (found.learn, found.judge) == (made.learn, made.judge)
    assert found.told == (f"1 masks are not learned from: {END}", f"1 masks are not judged on: {END}")


def test_nobody_is_judged_on_images_that_earlier_runs_learned_from(tmp_path: Path) -> None:
    before = write_labels(tmp_path / "before", "labels", ("L7", "L0"), 19)  # L0 had the images of J0
    assert before is not None
    made = gathered(tmp_path, ("L0", "L1"), ("J0", "J1"), 20)
    found = one_patient_each(made, before.cases)
    assert (people(found.learn), people(found.judge)) == (keys("L0", "L1"), keys("J1"))
    assert found.told == (f"1 masks are not judged on: {END}",)


def test_no_run_is_frozen_with_an_image_on_both_sides(tmp_path: Path) -> None:
    with pytest.raises(
        Refused, match=r"is also one of patient .* on the hold-out; retrain, which"
    ) as refused:
        freeze(tmp_path, gathered(tmp_path, ("L0", "L1"), ("J0",), 0), RECIPE, "c" * 64, {})
    assert refused.value.code == "image-of-two-patients"


def test_curated_cases_with_images_of_another_patient_are_not_replayed(tmp_path: Path) -> None:
    curated = write_labels(tmp_path / "curated", "curated", ("P0", "P1", "P2", "P3"))
    assert curated is not None
    curated.write(tmp_path / "curated" / "manifest.json")
    made = gathered(tmp_path / "run", ("L0",), ("J1",), 1)  # L0 has the images of P0, and J1 those of P1
    recipe = replace(RECIPE, replay=(tmp_path / "curated",))
    frozen = freeze(tmp_path / "run", made, recipe, "c" * 64, {})
    assert {case.patient_id for case in frozen.replayed} == set(keys("P2", "P3"))
