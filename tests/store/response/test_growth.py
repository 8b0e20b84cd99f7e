"""Doubling times in closed form; growth rates of courses that are exactly a model, and of a published sample."""

from __future__ import annotations

import csv
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from seen_courses import UNKNOWN, history, lesion

from plugins.errors import Refused
from store.response.growth import MODELS, Estimate, doubling_time, growth, growth_of
from store.response.volumetric import judge

DAYS = tuple(42.0 * at for at in range(9))


def made(model: str, days: Sequence[float], **values: float) -> list[float]:
    curve, names = MODELS[model]
    size, _ = curve(np.asarray(days), np.array([values[name] for name in names]))
    return [float(one) for one in 53.7 * size]


def test_a_volume_that_doubles_has_that_doubling_time() -> None:
    assert doubling_time(100, 200, 90).days == pytest.approx(90)
    assert doubling_time(100, 800, 90).days == pytest.approx(30)
    assert doubling_time(200, 100, 90).days == pytest.approx(-90)
    assert "halves in 90 days" in doubling_time(200, 100, 90).because
    assert doubling_time(100, 125, 365).days == pytest.approx(365 * math.log(2) / math.log(1.25))


def test_an_unchanged_volume_never_doubles() -> None:
    same = doubling_time(100, 100, 90)
    assert math.isinf(same.days)
    assert same.rate_per_day == 0
    assert "unchanged" in same.because


def test_the_interval_is_that_of_the_rate() -> None:
    found = doubling_time(100, 200, 100, earlier_sd_mm3=3, later_sd_mm3=8)
    half = 1.959964 * 0.05 / 100
    assert found.rate_interval == pytest.approx((math.log(2) / 100 - half, math.log(2) / 100 + half))
    assert found.because == "volume doubles in 100 days (95 %: 88 to 116 days)"
    unsure = doubling_time(100, 103, 100, earlier_sd_mm3=5, later_sd_mm3=5)
    assert "perhaps unchanged" in unsure.because
    assert doubling_time(100, 200, 100, earlier_sd_mm3=3).rate_interval is None


@pytest.mark.parametrize(
    ("volumes", "days", "told"),
    [
        ((30.0**3, 0.1**3), 1, "volume halves in less than a day"),
        ((200, 100), 1, "volume halves in 1 day"),
        ((100, 200), 1.4, "volume doubles in 1.4 days"),
        ((200, 100), 9.97, "volume halves in 10 days"),
    ],
)
def test_a_short_doubling_time_is_told_with_a_decimal_and_never_as_no_days(
    volumes: tuple[float, float], days: float, told: str
) -> None:
    assert doubling_time(*volumes, days).because == told


def test_a_short_interval_is_told_with_a_decimal_and_never_as_no_days() -> None:
    found = [doubling_time(100, 200, days, earlier_sd_mm3=3, later_sd_mm3=8) for days in (0.3, 1, 3)]
    assert [one.because.partition(" (")[2] for one in found] == [
        "95 %: less than a day)", "95 %: less than 1 to 1.2 days)", "95 %: 2.6 to 3.5 days)",
    ]  # fmt: skip
    unsure = doubling_time(100, 103, 1, earlier_sd_mm3=5, later_sd_mm3=5)
    assert unsure.because.endswith(
        "(95 %: from halving in 6.5 to doubling in 4.2 days, so perhaps unchanged)"
    )


@pytest.mark.parametrize(
    "wrong", [(0, 1, 1), (1, 0, 1), (1, 1, 0), (1, 1, -3), (math.nan, 1, 1), (1, math.inf, 1)]
)
def test_a_doubling_time_asks_for_volumes_and_days_above_zero(wrong: tuple[float, float, float]) -> None:
    with pytest.raises(Refused, match="doubling time"):
        doubling_time(*wrong)


@given(st.floats(1, 1e5), st.floats(1.1, 100), st.floats(1, 2000), st.floats(0.01, 100))
def test_doubling_knows_no_unit_and_back_is_the_negative(
    volume: float, ratio: float, days: float, unit: float
) -> None:
    there = doubling_time(volume, volume * ratio, days)
    assert doubling_time(volume * unit, volume * ratio * unit, days).days == pytest.approx(
        there.days, rel=1e-9
    )
    assert doubling_time(volume * ratio, volume, days).days == pytest.approx(-there.days, rel=1e-9)
    assert volume * 2 ** (days / there.days) == pytest.approx(volume * ratio, rel=1e-9)


@pytest.mark.parametrize(
    ("model", "values"),
    [
        ("gd", {"g": 0.0021, "d": 0.0173}),
        ("gd", {"g": 0.0145, "d": 0.0052}),
        ("gx", {"g": 0.0034}),
        ("dx", {"d": 0.0081}),
        ("gdphi", {"g": 0.0028, "d": 0.0312, "phi": 0.85}),
        ("gdphi", {"g": 0.0011, "d": 0.0094, "phi": 0.4}),
    ],
)
def test_a_course_that_is_exactly_a_model_gives_its_rates_back(model: str, values: dict[str, float]) -> None:
    sizes = made(model, DAYS, **values)
    found = growth(DAYS, sizes, first_day=0)
    assert found.chosen is not None
    assert found.chosen.model == model
    assert {name: one.value for name, one in found.chosen.estimates.items()} == pytest.approx(
        values, rel=1e-9
    )
    assert found.chosen.sizes == pytest.approx(sizes, rel=1e-9)


def test_noise_of_measurement_stays_within_the_standard_errors() -> None:
    rng = np.random.default_rng(4)
    truth = {"g": 0.003, "d": 0.02}
    clean = np.array(made("gd", DAYS, **truth))
    apart = []
    for _ in range(40):
        noisy = clean * (1 + 0.03 * rng.standard_normal(len(clean)))
        noisy[0] = clean[0]
        fit = next(one for one in growth(DAYS, noisy.tolist(), first_day=0).candidates if one.model == "gd")
        apart += [
            (fit.estimates[name].value - truth[name]) / fit.estimates[name].standard_error for name in truth
        ]
    assert abs(statistics.fmean(apart)) < 0.5
    assert 0.6 < statistics.stdev(apart) < 1.8


def test_standard_errors_are_those_of_the_covariance_and_agree_with_scipy() -> None:
    from scipy.optimize import curve_fit

    sizes = np.array([40.0, 33.0, 30.5, 31.0, 33.5, 38.0, 44.0])
    days = np.arange(7) * 40.0
    fit = next(
        one for one in growth(days.tolist(), sizes.tolist(), first_day=0).candidates if one.model == "gd"
    )
    values, covariance = curve_fit(
        lambda t, g, d: np.exp(-d * t) + np.exp(g * t) - 1,
        days,
        sizes / sizes[0],
        p0=(0.002, 0.005),
        xtol=1e-13,
    )
    assert [one.value for one in fit.estimates.values()] == pytest.approx(list(values), rel=1e-6)
    assert np.array(fit.covariance) == pytest.approx(covariance, rel=1e-4)
    assert fit.estimates["g"].standard_error == pytest.approx(math.sqrt(fit.covariance[0][0]))


@pytest.mark.parametrize(
    ("days", "sizes", "words"),
    [
        ((), (), "0 points"),
        ((0,), (5,), "1 point;"),
        ((0, 30), (5, 5.9), "differ by less than 20 %"),
        ((0, 30), (5, 4.1), "differ by less than 20 %"),
        ((0, 30), (5, 0), "second of two sizes is zero"),
        ((0, 30, 60), (5, 5, 5), "3 points of the same size"),
        ((0, 30, 60), (0, 5, 6), "first size is zero"),
        ((0, 30, 60, 90, 120), (1, 6, 0.2, 7, 0.1), "no model"),
    ],
)
def test_a_course_that_cannot_be_fitted_says_why(
    days: tuple[float, ...], sizes: tuple[float, ...], words: str
) -> None:
    found = growth(days, sizes)
    assert found.chosen is None
    assert words in found.because


@pytest.mark.parametrize("sizes", [(5, 6), (5, 4), (5, 2.5, 1.2), (5, 9, 17)])
def test_few_points_are_fitted_with_one_rate(sizes: tuple[float, ...]) -> None:
    found = growth(range(0, 30 * len(sizes), 30), sizes)
    assert found.chosen is not None
    assert found.chosen.model == ("gx" if sizes[-1] > 5 else "dx")


@pytest.mark.parametrize(
    ("days", "sizes", "name", "rate", "said"),
    [
        ((0, 91), (34.4, 45.2), "g", math.log(45.2 / 34.4) / 91, "g = 0.003000 a day, doubles in 231 days"),
        ((20, 0), (5.0, 50.0), "d", math.log(10) / 20, "d = 0.115129 a day, halves in 6.0 days"),
    ],
)
def test_two_points_tell_a_rate_and_no_uncertainty(
    days: tuple[float, ...], sizes: tuple[float, ...], name: str, rate: float, said: str
) -> None:
    found = growth(days, sizes)
    fit = found.chosen
    assert fit is not None and found.candidates == (fit,)
    assert fit.estimates == {name: Estimate(value=pytest.approx(rate), standard_error=None, p_value=None)}
    assert (fit.covariance, fit.scatter, fit.aic) == (None, None, None)
    assert sorted(fit.sizes) == sorted(sizes)
    assert found.because == f"model {name}x on 2 points: {said}; two points: no uncertainty can be told"


def test_order_does_not_matter_and_faults_are_refused() -> None:
    sizes = made("gd", DAYS, g=0.003, d=0.02)
    assert growth(DAYS[::-1], sizes[::-1]) == growth(DAYS, sizes)
    for days, wrong in [
        ((0, 0, 1), (1, 2, 3)),
        ((0, 1), (1, 2, 3)),
        ((0, 1), (1, -2)),
        ((0, 1), (1, math.nan)),
    ]:
        with pytest.raises(Refused, match="growth"):
            growth(days, wrong)


def test_the_sums_of_a_response_are_a_course() -> None:
    volumes = made("dx", DAYS, d=0.01)
    course = history(
        *((lesion("A", volume_mm3=one),) for one in volumes[:4]), (lesion("A", status=UNKNOWN),), days=42
    )
    found = growth_of(judge(course), first_day=0)
    assert found.chosen is not None
    assert found.chosen.estimates["d"].value == pytest.approx(0.01, rel=1e-4)
    assert "1 visit without a complete sum of volumes left out" in found.because


def test_every_patient_of_the_published_sample_is_fitted_or_told_why_not(data: Path) -> None:
    courses: dict[str, list[tuple[float, float]]] = defaultdict(list)
    with (data / "response" / "tgi_sample.csv").open() as table:
        for row in csv.DictReader(table):
            courses[row["name"]].append((float(row["date"]), float(row["size"])))
    found = {name: growth(*zip(*points, strict=True)) for name, points in courses.items()}
    assert len(found) == 68
    chosen = [one.chosen for one in found.values() if one.chosen is not None]
    assert Counter(one.model for one in chosen) == {"gd": 25, "dx": 22, "gdphi": 6, "gx": 4}
    left = Counter(one.because.split(";")[0] for one in found.values() if one.chosen is None)
    assert sorted(left.values()) == [1, 5, 5]
    rates = {
        name: [one.estimates[name].value for one in chosen if name in one.estimates] for name in ("d", "phi")
    }
    # The package's own page tells these medians; its g of a gdphi course is g sqrt(1 - phi).
    told = [
        one.estimates["g"].value
        * math.sqrt(1 - (one.estimates["phi"].value if "phi" in one.estimates else 0))
        for one in chosen
        if "g" in one.estimates
    ]
    assert (len(told), len(rates["d"])) == (35, 53)
    assert statistics.median(told) == pytest.approx(0.001414, abs=5e-7)
    assert statistics.median(rates["d"]) == pytest.approx(0.020427, abs=5e-7)
    assert statistics.median(rates["phi"]) == pytest.approx(0.987381, abs=5e-7)
