from __future__ import annotations

import numpy as np
import pytest

from training.evaluate.froc import ceiling, curve, hits, level_at, operating_points, sensitivity_at
from training.evaluate.judged import Candidate, Lesion, SearchedCase
from training.evaluate.sections import searched_part


def scan(name: str, lesions: list[Lesion], candidates: list[Candidate]) -> SearchedCase:
    return SearchedCase(case_id=name, patient_id=name, lesions=tuple(lesions), candidates=tuple(candidates))


def lesion(x: float, radius: float = 5.0, counts: bool = True) -> Lesion:
    return Lesion(centre_mm=(0.0, 0.0, x), radius_mm=radius, counts=counts)


def candidate(x: float, score: float) -> Candidate:
    return Candidate(at_mm=(0.0, 0.0, x), score=score)


# Two scans, three lesions that count. By falling score: hit (.9), false (.8), hit (.7), false (.6), false (.5).
SCANS = [
    scan(
        "A",
        [lesion(0), lesion(100)],
        [candidate(4, 0.9), candidate(50, 0.8), candidate(2, 0.3), candidate(60, 0.5)],
    ),
    scan(
        "B",
        [lesion(0), lesion(40, counts=False)],
        [candidate(-5, 0.7), candidate(41, 0.95), candidate(5.1, 0.6)],
    ),
]


def test_the_curve_is_the_one_counted_by_hand() -> None:
    rate, sensitivity = curve([hits(s) for s in SCANS])
    expected = {0.0: 1 / 3, 0.5: 2 / 3, 1.0: 2 / 3, 1.5: 2 / 3}
    assert {float(at): float(sensitivity[rate == at].max()) for at in np.unique(rate)} == pytest.approx(
        expected
    )


@pytest.mark.parametrize(("rate", "sensitivity"), [(0.0, 1 / 3), (0.4, 1 / 3), (0.5, 2 / 3), (8.0, 2 / 3)])
def test_sensitivity_is_the_best_at_no_more_than_the_rate(rate: float, sensitivity: float) -> None:
    assert sensitivity_at([hits(s) for s in SCANS], rate) == pytest.approx(sensitivity)


def test_a_second_candidate_in_a_lesion_and_one_in_what_does_not_count_are_nothing() -> None:
    first, second = (hits(s) for s in SCANS)
    assert first.found.tolist() == [0.9, -np.inf]
    assert sorted(first.false) == [0.5, 0.8]
    assert second.found.tolist() == [0.7]
    assert second.false.tolist() == [0.6]


def test_operating_points_are_of_patients_and_end_where_nothing_more_is_found() -> None:
    points = operating_points(SCANS * 5, resamples=100)
    assert list(points) == [1.0, 2.0, 4.0, 8.0]
    found = points[8.0]
    assert found is not None and found.value == pytest.approx(2 / 3) and found.patients == 2
    assert found.low == pytest.approx(0.5) and found.high == pytest.approx(1.0)


def test_scans_without_lesions_have_no_sensitivity() -> None:
    healthy = scan("C", [], [candidate(0, 0.4)])
    assert np.isnan(sensitivity_at([hits(healthy)], 1.0))
    assert operating_points([healthy], resamples=100)[1.0] is None


def test_the_curve_agrees_with_monai() -> None:
    from monai.metrics.froc import compute_froc_curve_data

    random = np.random.default_rng(0)
    scans = [
        scan(
            str(n),
            [lesion(100.0 * i) for i in range(3)],
            [
                candidate(float(x), float(s))
                for x, s in zip(random.uniform(-50, 250, 12), random.random(12), strict=True)
            ],
        )
        for n in range(4)
    ]
    events = [hits(s) for s in scans]
    false = np.concatenate([e.false for e in events])
    found = np.concatenate([e.found[np.isfinite(e.found)] for e in events])
    theirs_rate, theirs = compute_froc_curve_data(false, found, 12, 4)
    rate, sensitivity = curve(events)
    for at in (0.5, 1.0, 2.0, 5.0):
        assert sensitivity[rate <= at].max() == pytest.approx(theirs[theirs_rate <= at].max())


def test_the_ceiling_counts_lesions_with_any_candidate_and_a_level_keeps_its_rate() -> None:
    scans = [hits(s) for s in SCANS]
    assert ceiling(scans) == pytest.approx(2 / 3)
    assert level_at(scans, 2.0) == -np.inf
    for rate, kept in ((0.0, 0), (0.5, 1), (1.0, 2)):
        level = level_at(scans, rate)
        assert sum(int((s.false >= level).sum()) for s in scans) == kept


def test_each_scan_tells_what_was_found_in_it_and_what_was_false_at_each_rate() -> None:
    a, b = searched_part(SCANS, resamples=100)[2]["cases"]
    assert (a["lesions"], a["found_at"]["1"], a["false_at"]["1"], a["false_at"]["8"]) == (2, 1, 1, 2)
    assert (b["lesions"], b["found_at"]["1"], b["false_at"]["1"], b["false_at"]["8"]) == (1, 1, 1, 1)
