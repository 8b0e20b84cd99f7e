from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judged_rows import plus, rows_of, with_figures
from scipy import stats

from plugins.errors import Refused
from training.evaluate.bootstrap import summary
from training.evaluate.drawn import Row
from training.evaluate.paired import difference, holm
from training.gate import Margins, Outcome, Seconds, Verdict, judge
from training.gate_power import Truth, caught, proposed
from training.verdict import read_verdict

QUICK = Margins(resamples=200)


def check(verdict: Verdict, name: str, title: str = "") -> Outcome:
    found = [one for one in verdict.checks if one.name == name and one.title.startswith(title)]
    assert len(found) == 1, [(one.name, one.title) for one in verdict.checks]
    return found[0].outcome


def better(rows: Sequence[Row], gain: float = 0.03) -> list[Row]:
    return [plus(row, gain) for row in rows]


def test_a_challenger_that_is_better_and_worse_in_nothing_is_proposed() -> None:
    rows = rows_of(patients=30)
    verdict = judge(rows, better(rows), QUICK)
    assert verdict.is_proposed
    assert verdict.because.startswith("Proposed. Mean Dice: 0.8")
    assert "difference +0.030 [+0.030 to +0.030] on 45 cases of 30 patients" in verdict.because
    assert {one.outcome for one in verdict.checks if one.name == "group_dice"} == {Outcome.PASSED}
    assert (verdict.cases, verdict.patients) == (45, 30)


def test_a_champion_against_itself_is_refused() -> None:
    rows = rows_of(patients=30)
    verdict = judge(rows, rows, QUICK)
    assert not verdict.is_proposed
    assert verdict.because.startswith("Refused. No figure of any case differs")
    assert check(verdict, "dice_gain") is Outcome.FAILED


def test_a_challenger_that_is_worse_everywhere_is_refused() -> None:
    rows = rows_of(patients=30)
    verdict = judge(rows, better(rows, -0.03), QUICK)
    assert not verdict.is_proposed
    assert check(verdict, "dice_gain") is Outcome.FAILED
    assert check(verdict, "group_dice", "scanner A") is Outcome.FAILED


def test_a_gain_that_chance_explains_is_refused() -> None:
    rows = rows_of(patients=30)
    signs = [0.1 if row.patient_id[-1] in "02467" else -0.05 for row in rows]
    now = [plus(row, c) for row, c in zip(rows, signs, strict=True)]
    verdict = judge(rows, now, QUICK)
    found = next(one for one in verdict.checks if one.name == "dice_gain")
    assert found.difference is not None and found.difference.value > QUICK.dice_gain
    assert found.outcome is Outcome.FAILED and not verdict.is_proposed


@pytest.mark.parametrize("by", ["scanner", "kernel", "texture", "origin", "size_mm", "slice_thickness_mm"])
def test_a_challenger_that_is_worse_in_one_group_only_is_refused_and_the_group_is_named(by: str) -> None:
    rows = rows_of(patients=40)
    value = rows[0].known[by]
    now = [plus(r, (-0.03 if r.known[by] == value else 0.1)) for r in rows]
    verdict = judge(rows, now, QUICK)
    assert check(verdict, "dice_gain") is Outcome.PASSED
    assert not verdict.is_proposed
    failed = [one for one in verdict.checks if one.outcome is Outcome.FAILED]
    assert len(failed) == 1 and failed[0].name == "group_dice"
    assert failed[0].difference is not None and failed[0].difference.value == pytest.approx(-0.03)
    assert "worse beyond the margin of 0.020 and beyond chance" in verdict.because


def test_a_sure_loss_smaller_than_the_margin_is_refused_in_a_group() -> None:
    rows = rows_of(patients=40)
    now = [plus(r, (-0.01 if r.known["scanner"] == "A" else 0.06)) for r in rows]
    verdict = judge(rows, now, QUICK)
    assert [one.title for one in verdict.checks if one.outcome is Outcome.FAILED] == ["scanner A: mean Dice"]
    assert "worse beyond chance." in verdict.because


def test_a_group_in_which_lengths_become_worse_is_refused_though_its_dice_rises() -> None:
    rows = rows_of(patients=40)
    now = [
        with_figures(r, long_axis_error_mm=3.2 if r.known["scanner"] == "A" else -1.0) for r in better(rows)
    ]
    verdict = judge([with_figures(row, long_axis_error_mm=-2.0) for row in rows], now, QUICK)
    assert [one.title for one in verdict.checks if one.outcome is Outcome.FAILED] == [
        "scanner A: mean absolute error of the long axis, mm"
    ]


def test_groups_of_few_patients_are_told_and_not_judged() -> None:
    rows = rows_of(patients=30, scanners={"rare": 4})
    verdict = judge(rows, better(rows), QUICK)
    found = next(one for one in verdict.checks if one.title == "scanner rare")
    assert verdict.is_proposed and found.outcome is Outcome.NOT_JUDGED
    assert "4 patients are too few to be judged (8 are needed)" in found.sentence
    assert "mean Dice +0.030, 0 of the 4 became worse" in found.sentence


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ([-0.3] * 6 + [0.001], Outcome.FAILED),
        ([-0.3] * 5 + [0.01] * 2, Outcome.FAILED),
        ([-0.3] * 3 + [0.01], Outcome.FAILED),
        ([-0.3] * 4 + [0.01] * 3, Outcome.NOT_JUDGED),
        ([-0.3] * 2 + [0.01], Outcome.NOT_JUDGED),
        ([-0.01] * 6 + [0.1], Outcome.NOT_JUDGED),
    ],
)
def test_a_small_group_most_of_whose_patients_become_worse_beyond_the_margin_is_refused(
    changes: list[float], outcome: Outcome
) -> None:
    rows = rows_of(patients=60, scanners={"rare": len(changes)})
    by = {f"P{number:03d}": change for number, change in enumerate(changes)}
    verdict = judge(rows, [plus(row, by.get(row.patient_id, 0.1)) for row in rows], QUICK)
    found = next(one for one in verdict.checks if one.title == "scanner rare")
    assert found.outcome is outcome
    assert verdict.is_proposed is (outcome is Outcome.NOT_JUDGED)
    if verdict.is_proposed:
        assert verdict.because.endswith(
            "became worse beyond its margin. Not judged: scanner rare, Seconds a case."
        )


def test_a_small_group_all_of_whose_patients_become_worse_is_refused_from_three_patients_on() -> None:
    for few, outcome in ((2, Outcome.NOT_JUDGED), (3, Outcome.FAILED)):
        rows = rows_of(patients=40, scanners={"rare": few})
        now = [plus(r, (-0.1 if r.known["scanner"] == "rare" else 0.05)) for r in rows]
        verdict = judge(rows, now, QUICK)
        found = next(one for one in verdict.checks if one.title == "scanner rare")
        assert found.outcome is outcome
        assert f", {few} of the {few} became worse" in found.sentence


def test_many_scanners_are_groups_and_what_differs_for_every_patient_is_none() -> None:
    rows = [
        replace(
            row, known={**row.known, "scanner": f"S{int(row.patient_id[1:]) // 2}", "name": row.patient_id}
        )
        for row in rows_of(patients=40)
    ]
    titles = [one.title for one in judge(rows, better(rows), QUICK).checks]
    assert sum(title.startswith("scanner S") for title in titles) == 20
    assert not any(title.startswith("name") for title in titles)


def test_another_setting_is_held_against_the_margin_of_a_group() -> None:
    given = rows_of(patients=30)
    off = [replace(row, setting="point 3 mm off") for row in given]
    now = [*better(given), *better(off, -0.05)]
    verdict = judge([*given, *off], now, QUICK)
    assert verdict.setting == "the crop alone" and verdict.cases == 45
    assert [one.title for one in verdict.checks if one.outcome is Outcome.FAILED] == [
        "asked: point 3 mm off: mean Dice"
    ]


def test_what_is_drawn_outside_the_crop_counts_in_the_settings_that_have_an_outside() -> None:
    given = rows_of(patients=30)
    lung = [with_figures(replace(row, setting="in aerated lung"), open_dice=0.8) for row in given]
    now = [*better(given), *(with_figures(row, open_dice=0.5) for row in lung)]
    verdict = judge([*given, *lung], now, QUICK)
    assert check(verdict, "group_dice", "asked: in aerated lung") is Outcome.FAILED


def test_a_lesion_that_the_champion_met_and_the_challenger_misses_is_refused_by_name() -> None:
    rows = rows_of(patients=30)
    now = better(rows)
    now[3] = with_figures(now[3], dice=0.0)
    verdict = judge(rows, now, QUICK)
    assert not verdict.is_proposed
    lost = next(one for one in verdict.checks if one.name == "lesions_lost")
    assert lost.cases == (rows[3].case_id,) and rows[3].case_id in lost.sentence
    allowed = judge(rows, better(now, 0.0), replace(QUICK, lesions_lost=1, group_dice=0.9, dice_gain=0.0))
    assert check(allowed, "lesions_lost") is Outcome.PASSED


def approved(rows: Sequence[Row], within: float = 1.0, length_off_mm: float = 0.0) -> list[Row]:
    """Return the rows as those of lesions that were approved as they were drawn, of which so much is within 2 mm."""
    return [
        with_figures(
            replace(row, case_id=f"{row.case_id} approved", known={**row.known, "origin": "approved"}),
            dice=0.5 + within / 2,
            surface_dice_2mm=within,
            long_axis_error_mm=length_off_mm,
        )
        for row in rows
    ]


def test_what_was_approved_as_it_was_drawn_keeps_no_better_model_out() -> None:
    rows = rows_of(patients=30)
    was, now = [*rows, *approved(rows)], [*better(rows), *approved(rows, 0.98, 1.0)]
    verdict = judge(was, now, QUICK)
    assert verdict.is_proposed, verdict.because
    assert (verdict.cases, verdict.patients) == (45, 30)
    assert check(verdict, "approved_border") is Outcome.PASSED
    assert check(verdict, "group_approved", "approved, scanner A") is Outcome.PASSED


def test_what_was_approved_and_is_now_drawn_otherwise_refuses_also_in_one_group_only() -> None:
    rows = rows_of(patients=30)
    was = [*rows, *approved(rows)]
    for now, name in (
        (approved(rows, 0.9), "approved_border"),
        (approved(rows, 1.0, 2.0), "approved_long_axis_mm"),
    ):
        verdict = judge(was, [*better(rows), *now], QUICK)
        assert check(verdict, name) is Outcome.FAILED and not verdict.is_proposed
    one = [
        *approved([row for row in rows if row.known["scanner"] == "A"], 0.9),
        *approved([row for row in rows if row.known["scanner"] == "B"]),
    ]
    verdict = judge(was, [*better(rows), *one], QUICK)
    assert check(verdict, "approved_border") is Outcome.PASSED
    assert check(verdict, "group_approved", "approved, scanner A") is Outcome.FAILED


def test_a_hold_out_of_approved_lesions_alone_cannot_be_judged() -> None:
    rows = approved(rows_of(patients=30))
    verdict = judge(rows, [with_figures(row, dice=1.0) for row in rows], QUICK)
    assert verdict.because.startswith("Cannot be judged. 0 patients with lesions that people drew")


@pytest.mark.parametrize(
    ("name", "figures"),
    [
        ("long_axis_mm", {"long_axis_error_mm": -3.0}),
        ("volume_bias", {"volume_error": -0.5}),
        ("hd95_mm", {"hd95_mm": 9.0}),
        ("coverage", {"volume_covered": 0.0}),
    ],
)
def test_each_figure_of_the_whole_can_refuse(name: str, figures: dict[str, float]) -> None:
    rows = rows_of(patients=30)
    verdict = judge(rows, [with_figures(row, **figures) for row in better(rows)], QUICK)
    title = "Intervals of the volume" if name == "coverage" else ""
    assert check(verdict, name, title) is Outcome.FAILED and not verdict.is_proposed


def test_probabilities_that_mean_less_are_refused_and_so_are_none_at_all() -> None:
    rows = rows_of(patients=30)
    assert check(judge(rows, better(rows), QUICK), "ece") is Outcome.PASSED
    for now in ([replace(r, reliability=rows_of(patients=1, said=0.99)[0].reliability) for r in better(rows)],
                [replace(r, reliability=None) for r in better(rows)]):  # fmt: skip
        verdict = judge(rows, now, QUICK)
        assert check(verdict, "ece") is Outcome.FAILED and not verdict.is_proposed
    silent = [replace(r, reliability=None) for r in rows]
    assert check(judge(silent, better(silent), QUICK), "ece") is Outcome.NOT_JUDGED


def test_an_interval_that_the_champion_alone_gives_is_missed() -> None:
    rows, title = rows_of(patients=30), "Intervals of the volume"
    now = better(rows)
    none = [with_figures(row, volume_covered=None) for row in now]
    for said, outcome in (
        (now, Outcome.PASSED),
        ([none[0], *now[1:]], Outcome.PASSED),
        (none, Outcome.FAILED),
    ):
        assert check(judge(rows, said, QUICK), "coverage", title) is outcome
    half = [*now[: len(now) // 2], *none[len(now) // 2 :]]
    verdict = judge(rows, half, QUICK)
    assert check(verdict, "coverage", title) is Outcome.FAILED
    (said,) = [one for one in verdict.checks if one.name == "coverage" and one.title.startswith(title)]
    assert said.challenger == pytest.approx(
        sum(row.figures["volume_covered"] or 0 for row in half) / len(half)
    )
    assert check(judge(none, now, QUICK), "coverage", title) is Outcome.NOT_JUDGED


def test_a_challenger_that_takes_longer_is_refused() -> None:
    rows = rows_of(patients=30)
    for factor, outcome in ((1.2, Outcome.PASSED), (1.3, Outcome.FAILED)):
        took = Seconds(champion=(1.0, 2.0, 9.0), challenger=(1.0 * factor, 2.0 * factor, 1.0))
        assert check(judge(rows, better(rows), QUICK, seconds=took), "latency_ratio") is outcome


def test_too_few_patients_cannot_be_judged() -> None:
    rows = rows_of(patients=19)
    verdict = judge(rows, better(rows), QUICK)
    assert not verdict.is_proposed
    assert verdict.because.startswith("Cannot be judged. 19 patients with lesions that people drew are")
    alone = rows_of(patients=1)
    assert not judge(alone, better(alone), replace(QUICK, fewest_patients=1, fewest_cases=1)).is_proposed


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda rows: rows[1:], "unequal-holdout"),
        (lambda rows: [*rows, rows[0]], "unequal-holdout"),
        (lambda rows: [replace(rows[0], patient_id="X"), *rows[1:]], "unequal-holdout"),
        (lambda rows: [with_figures(rows[0], truth_ml=7.0), *rows[1:]], "unequal-truth"),
    ],
)
def test_rows_of_another_holdout_are_refused(spoil: Callable[[list[Row]], list[Row]], code: str) -> None:
    rows = rows_of(patients=3)
    with pytest.raises(Refused) as refused:
        judge(rows, spoil(rows), QUICK)
    assert refused.value.code == code
    with pytest.raises(Refused, match="no cases"):
        judge([], [], QUICK)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), spread=st.floats(0.0, 0.08))
def test_the_order_of_the_cases_changes_nothing(seed: int, spread: float) -> None:
    random = np.random.default_rng(seed)
    rows = rows_of(patients=25)
    now = [plus(row, random.normal(0.01, spread)) for row in rows]
    was_mixed, now_mixed = ([side[i] for i in random.permutation(len(rows))] for side in (rows, now))
    assert judge(rows, now, QUICK) == judge(was_mixed, now_mixed, QUICK)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    level=st.floats(-0.02, 0.05),
    gain=st.floats(1e-6, 0.1),
)
def test_a_gain_in_every_case_never_turns_a_proposal_into_a_refusal(
    seed: int, level: float, gain: float
) -> None:
    random = np.random.default_rng(seed)
    rows = rows_of(patients=25)
    now = [plus(row, random.normal(level, 0.02)) for row in rows]
    first, second = judge(rows, now, QUICK), judge(rows, better(now, gain), QUICK)
    assert second.is_proposed or not first.is_proposed
    failed = {one.title for one in second.checks if one.outcome is Outcome.FAILED}
    assert failed <= {one.title for one in first.checks if one.outcome is Outcome.FAILED}


def test_other_seeds_give_other_draws_and_the_same_answer() -> None:
    rows = rows_of(patients=30)
    random = np.random.default_rng(1)
    now = [plus(row, random.normal(0.03, 0.02)) for row in rows]
    found = [judge(rows, now, Margins(), seed=seed) for seed in (0, 1)]
    lows = [next(c for c in one.checks if c.name == "dice_gain").difference for one in found]
    assert lows[0] is not None and lows[1] is not None and lows[0].low is not None
    assert lows[0].low != lows[1].low and lows[0].low == pytest.approx(lows[1].low, abs=0.002)
    assert [one.is_proposed for one in found] == [True, True]


def test_a_verdict_is_read_back_from_json() -> None:
    rows = rows_of(patients=25)
    verdict = judge(rows, better(rows, -0.01), QUICK)
    assert read_verdict(json.loads(json.dumps(verdict.plain(), allow_nan=False))) == verdict
    with pytest.raises(Refused, match="no verdict"):
        read_verdict({"checks": [{}]})


def test_the_interval_of_a_difference_of_means_is_that_of_the_mean_difference() -> None:
    random = np.random.default_rng(3)
    was, now = random.normal(0.8, 0.1, 60), random.normal(0.82, 0.1, 60)
    patients = [f"P{n % 17}" for n in range(60)]
    found, told = difference(was, now, patients, seed=4), summary(now - was, patients, seed=4)
    assert found is not None and told is not None
    assert found.interval.value == pytest.approx(told.value)
    assert found.interval.low == pytest.approx(told.low) and found.interval.high == pytest.approx(told.high)


def test_the_p_of_a_fall_is_that_of_a_t_test_of_the_patients() -> None:
    was = np.random.default_rng(3).normal(0.8, 0.1, 25)
    now = was + np.random.default_rng(4).normal(-0.02, 0.05, 25)
    found = difference(was, now, [str(n) for n in range(25)], resamples=20000)
    assert found is not None
    assert found.p_fell == pytest.approx(stats.ttest_rel(now, was, alternative="less").pvalue, rel=0.1)


def test_holm_rejects_in_steps() -> None:
    # Holm 1979: 0.01 <= 0.05 / 4, 0.02 > 0.05 / 3, so what follows stands too
    assert holm([0.04, 0.01, 0.03, 0.02], 0.05) == (False, True, False, False)
    assert holm([0.005, 0.01, 0.03, 0.04], 0.05) == (True, True, False, False)
    assert holm([], 0.05) == ()


@pytest.mark.parametrize(
    "bad",
    [{"level": 1.0}, {"group_dice": -0.1}, {"fewest_cases": 2.5}, {"ece": float("nan")}, {"resamples": 5}],
)
def test_what_no_limit_can_be_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        Margins(**bad)  # type: ignore[arg-type]


@pytest.mark.long
@pytest.mark.parametrize(
    ("truth", "least", "most"),
    [
        (Truth(patients=40, gain=-0.02), 0.0, 0.0),
        (Truth(patients=40, gain=0.0), 0.0, 0.1),
        (Truth(patients=40, gain=0.03), 0.85, 1.0),
        (Truth(patients=80, gain=0.02), 0.85, 1.0),
    ],
)
def test_a_true_gain_is_proposed_and_a_loss_or_nothing_is_not(
    truth: Truth, least: float, most: float
) -> None:
    assert least <= proposed(truth, 60) <= most


@pytest.mark.long
@pytest.mark.parametrize(
    ("harmed", "loss", "least"), [(5, 0.1, 0.8), (8, 0.05, 0.75), (12, 0.03, 0.7), (20, 0.05, 0.95)]
)
def test_a_true_loss_in_one_group_is_caught_and_named(harmed: int, loss: float, least: float) -> None:
    assert caught(Truth(patients=80, gain=0.03, harmed=harmed, loss=loss), 60) >= least
