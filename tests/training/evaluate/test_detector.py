"""The detector is judged on nodules of every patient that the weights which search the scan have not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from ball_nodules import ball_nodule
from numpy.typing import NDArray

from models.nodule_detector import Search
from plugins.errors import Refused
from training.evaluate import detector
from training.evaluate.data import Data
from training.evaluate.judged import SearchedCase
from training.evaluate.judging import judge_model
from training.evaluate.subject import Subject
from training.lidc import Nodule
from training.manifest import Case, DataManifest
from training.scans import Scan

NOON = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
SEARCH = Search(diameters_mm=(4.0, 12.0), lowest_response_hu=100.0, lowest_roundness=0.0, at_most=40)
HELD_OUT = {"S0": 0, "S1": 1, "P0": 0, "P1": 0, "P2": 1, "P3": 2}


def lung(name: str, _: Path) -> Scan:
    inside = np.zeros((60, 120, 120), dtype=np.bool_)
    inside[2:58, 4:116, 4:116] = True
    hu = np.where(inside, -850, 40).astype(np.float32)
    return Scan(name=name, hu=hu, inside=inside, spacing_mm=(2.0, 1.0, 1.0), known=())


@pytest.fixture(scope="module")
def nodules() -> dict[str, Nodule]:
    """A nodule each of patients whom fold 0 has not seen, of one that it has learned from, and of two that are new."""
    made = {}
    for n, patient in enumerate(("P0", "P1", "P3", "new1", "new2")):
        one = ball_nodule(8.0, (1.25, 0.7, 0.7), seed=n, patient=patient, fold=0)
        made[one.case.case_id] = replace(one, case=replace(one.case, files={"mask": "mask"}, sha256={}))
    return made


@pytest.fixture
def asked(nodules: dict[str, Nodule], monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[int, ...]]]:
    """Return the scans that are searched, with the folds that search them."""
    found: list[tuple[str, tuple[int, ...]]] = []

    def scored(_: object, points: Sequence[Sequence[float]]) -> NDArray[np.float64]:
        return np.ones(len(points))

    def opened(_: object, folds: tuple[int, ...], scan: Scan) -> tuple[Search, object]:
        found.append((scan.name, folds))
        return SEARCH, scored

    monkeypatch.setattr(detector, "load_scan", lung)
    monkeypatch.setattr(detector, "load_nodule", lambda case, _: nodules[case.case_id])
    monkeypatch.setattr(detector, "_opened", opened)
    return found


def scan_case(name: str, fold: int = 0) -> Case:
    return Case(case_id=name, patient_id=name, files={}, sha256={}, fold=fold, size_mm=0.0)


def data_of(*cases: Case) -> Data:
    return Data(manifest=DataManifest(name="own", cases=cases), root=Path())


def subject() -> Subject:
    return Subject(
        name="m", version="1", family="nodule_detector", sha256="0", folds=(0, 1, 2), held_out=HELD_OUT
    )


def donors(case: SearchedCase) -> set[str]:
    return set(case.made_of.values()) - {case.patient_id}


def test_nodules_that_no_fold_has_seen_are_set_into_a_scan_that_one_fold_has_not(
    nodules: dict[str, Nodule], asked: list[tuple[str, tuple[int, ...]]]
) -> None:
    data = data_of(*(one.case for one in nodules.values()), scan_case("S0"))
    (case,) = detector.searched(subject(), data)
    assert asked == [("S0", (0,))] and case.fold == 0
    assert donors(case) == {"P0", "P1", "new1", "new2"}
    assert sum(lesion.counts for lesion in case.lesions) == 4


def test_a_scan_that_no_fold_has_seen_is_searched_by_all_for_nodules_that_none_has_seen(
    nodules: dict[str, Nodule], asked: list[tuple[str, tuple[int, ...]]]
) -> None:
    data = data_of(*(one.case for one in nodules.values()), scan_case("new scan"))
    (case,) = detector.searched(subject(), data)
    assert asked == [("new scan", (0, 1, 2))] and case.fold is None
    assert donors(case) == {"new1", "new2"}


def test_the_report_counts_what_was_judged_and_says_what_was_given(
    nodules: dict[str, Nodule], asked: list[tuple[str, tuple[int, ...]]]
) -> None:
    data = data_of(*(one.case for one in nodules.values()), scan_case("S0"))
    found = judge_model(subject(), data, made_at=NOON, resamples=50)
    assert (found.data["cases"], found.data["patients"]) == ("5", "5")
    assert found.data["given"] == "6 cases of 6 patients"
    assert found.made["judged_by"] == "5 patients by the weights of the fold that had not seen them"
    assert found.limits[-2] == "Scans of one patient: no interval can be had."
    assert asked


def test_scans_without_a_nodule_to_set_in_are_not_read(
    nodules: dict[str, Nodule], asked: list[tuple[str, tuple[int, ...]]]
) -> None:
    (learned,) = [one.case for one in nodules.values() if one.case.patient_id == "P3"]
    with pytest.raises(
        Refused, match=r"nothing-to-judge: of the 2 cases of own .* for the scan have not learned"
    ):
        judge_model(subject(), data_of(learned, scan_case("S0")), made_at=NOON)
    assert asked == []
