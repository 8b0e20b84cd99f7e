from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from store.candidates import Candidate, Candidates, Traits
from training.teaching import BY_LOT, Taught, rank, scored

SOFT = Traits(scanner="ACME One", kernel="B30f", slice_distance_mm=1.0, unit="[hnsf'U]", histogram=(0.5, 0.5))
DRAWN = (SOFT,) * 5


def finding(number: int, doubt: float = 0.0, person: str = "", **changes: object) -> Candidate:
    """Return a finding of a person of his own, as unsure as told."""
    one = Candidate(
        patient_id=person or f"P{number}",
        person=person or f"P{number}",
        study_instance_uid=f"1.2.{number}",
        study_date=date(2026, 1, 1),
        plugin="lung_nodule",
        model_sha256="m",
        label=f"Nodule {number}",
        tracking_uid=f"2.25.{number}",
        long_axis_mm=10.0,
        site="Lung",
        uncertainties={"entropy": doubt, "dice_deficit": doubt, "disagreement": doubt},
        traits=SOFT,
    )
    return replace(one, **changes)  # type: ignore[arg-type]


def seen(number: int) -> Candidate:
    return finding(number, is_labelled=True, is_reviewed=True)


def ranked(*found: Candidate, at_most: int | None = None) -> tuple[Taught, ...]:
    return rank(Candidates(found=(*(seen(n) for n in range(900, 905)), *found), labelled=DRAWN), at_most)


def labels(taught: tuple[Taught, ...]) -> list[str]:
    return [one.candidate.label for one in taught]


def test_the_most_doubted_comes_first_and_why_says_the_numbers() -> None:
    first, *_, last = ranked(*(finding(n, n / 100) for n in range(1, 21)))
    assert (first.candidate.label, last.candidate.label) == ("Nodule 20", "Nodule 1")
    assert first.why.startswith("the networks are unsure: entropy 0.20, more than 96% of 25 findings; ")
    assert first.why.endswith("the networks disagree: 0.20, more than 96% of 25 findings")
    assert last.why == "nothing about it stands out"


def test_what_a_person_looked_at_is_not_asked_for_again() -> None:
    assert labels(ranked(finding(1), finding(2, is_reviewed=True))) == ["Nodule 1"]


def test_what_no_model_drew_and_whose_patient_nobody_knows_teach_nothing() -> None:
    assert ranked(finding(1, model_sha256=""), finding(2, patient_id="")) == ()


def test_a_kernel_that_was_never_drawn_on_is_new_and_one_that_often_was_is_not() -> None:
    new, usual = ranked(finding(1), finding(2, traits=replace(SOFT, kernel="B70f")))
    assert (new.candidate.label, usual.novelty) == ("Nodule 2", 0.0)
    assert new.novelty == 0.5
    assert new.why == "kernel 'B70f' was never outlined (5 masks)"


def test_size_site_spacing_and_voxel_values_that_were_never_drawn_on_are_new() -> None:
    thick = replace(SOFT, slice_distance_mm=5.0, histogram=(0.1, 0.9))
    (one,) = ranked(finding(1, long_axis_mm=42.0, site="Liver", traits=thick))
    assert "a slice distance of 5 mm was never outlined" in one.why
    assert "40% of its voxels have other values than in any series that was drawn on" in one.why
    assert "a long axis of about 42 mm was never outlined" in one.why
    assert "site 'Liver' was never outlined" in one.why
    assert one.novelty == 1 - 0.7 * 0.5 * 0.7 * 0.7


def test_while_nothing_was_drawn_nothing_is_new() -> None:
    (one,) = rank(Candidates(found=(finding(1),), labelled=()))
    assert (one.novelty, one.why) == (0.0, "nothing about it stands out")


def test_where_the_networks_see_nothing_they_disagree_with_the_classical_procedure() -> None:
    one, other = ranked(finding(1, 0.5), finding(2, uncertainties={}, is_unseen=True))
    assert labels((one, other)) == ["Nodule 1", "Nodule 2"]
    assert (other.uncertainty, other.disagreement, other.score) == (None, 1.0, 0.25)
    assert other.why == "the networks see nothing where the classical procedure drew it"


def test_five_alike_of_one_patient_do_not_take_the_first_places() -> None:
    of_one = [finding(n, 0.9 + n / 100, person="P") for n in range(5)]
    others = [finding(n, n / 100) for n in range(10, 15)]
    people = [one.candidate.person for one in ranked(*of_one, *others)]
    assert people[:2] == ["P", "P"]
    assert "P" not in people[2:7]
    assert people[7:] == ["P", "P", "P"]


def test_no_scanner_takes_more_than_half_of_the_list_while_there_are_others() -> None:
    many = [finding(n, 0.5 + n / 100) for n in range(10)]
    other = replace(SOFT, scanner="Other Two", kernel="B30f")
    few = [finding(n, n / 1000, traits=other) for n in range(10, 14)]
    taken = [one.candidate.traits for one in ranked(*many, *few, at_most=8)]
    assert [traits == other for traits in taken].count(True) == 4


def test_who_is_judged_on_is_marked_and_drawn_by_lot() -> None:
    learn = [finding(n, n / 100) for n in range(20)]
    judge = [finding(n, n / 100, side="judge") for n in range(20, 40)]
    nobody = finding(50, 0.99, side="neither")
    taught = ranked(*learn, *judge, nobody, at_most=10)
    assert [one.use for one in taught] == ["learn"] * 7 + ["judge"] * 3
    assert {(one.why, one.score) for one in taught[7:]} == {(BY_LOT, None)}
    doubts = [one.candidate.uncertainties["entropy"] for one in taught[7:]]
    assert doubts != sorted(doubts, reverse=True)


def test_a_study_in_which_nothing_was_found_may_teach_what_is_missed() -> None:
    empty = finding(1, label="", tracking_uid="", uncertainties={}, traits=replace(SOFT, kernel="B70f"))
    (one,) = ranked(empty)
    assert one.why == "nothing was found in it; kernel 'B70f' was never outlined (5 masks)"


@given(st.permutations(list(range(12))))
def test_the_order_of_the_rows_changes_nothing(order: list[int]) -> None:
    found = [finding(n, (n % 4) / 10, person=f"P{n % 3}") for n in range(12)]
    assert ranked(*(found[n] for n in order), at_most=6) == ranked(*found, at_most=6)


def test_where_doubt_goes_with_error_the_first_fifth_holds_many_of_the_worst() -> None:
    random = np.random.default_rng(0)
    wrong = random.random(200)
    found = tuple(finding(n, float(w + random.normal(0, 0.3))) for n, w in enumerate(wrong))
    parts = scored(found, Candidates(found=found, labelled=()))
    first = np.argsort([-p.score for p in parts])[:40]
    assert len({*first.tolist()} & {*np.argsort(-wrong)[:40].tolist()}) >= 14
