"""How quickly a tumour grows or shrinks: doubling time of two volumes, growth and decay rates of a whole course.

Doubling time: dt ln 2 / ln(V2 / V1) (Schwartz 1961). Rates: the regression-growth models of Stein and Fojo
(Oncologist 2008; 13:1046), fitted by least squares to sizes over the first size, chosen as in the R package tumgr.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from plugins.errors import Refused
from store.response.verdict import Response

Array = npt.NDArray[np.float64]

#: Two-sided 95 % of a normal distribution, in standard deviations.
Z_95: Final = 1.959964
#: Smallest scatter a fit may claim, as a fraction of the first size: rounding of the arithmetic is no measurement.
_LEAST_SCATTER: Final = 1e-6
#: Largest rate, per day: as published.
_LARGEST_RATE: Final = 1.0
#: Largest growth over a whole course, as exponent: beyond it no tumour is, and no arithmetic.
_LARGEST_EXPONENT: Final = 50.0
#: Worst condition of the scaled normal equations; beyond it the points do not tell the parameters apart.
_WORST_CONDITION: Final = 1e12


@dataclass(frozen=True, kw_only=True)
class Doubling:
    """How long a volume takes to double."""

    days: float
    """Doubling time; negative: days to half; infinite: no change."""
    rate_per_day: float
    """ln(V2 / V1) / dt."""
    rate_interval: tuple[float, float] | None
    """95 % interval of the rate; None when a standard deviation is not known."""
    because: str
    """The same in words."""


def doubling_time(
    earlier_mm3: float,
    later_mm3: float,
    days: float,
    *,
    earlier_sd_mm3: float | None = None,
    later_sd_mm3: float | None = None,
) -> Doubling:
    """Volume doubling time of a lesion between two measurements `days` apart.

    The interval is that of ln(V2 / V1) with the relative standard deviations added in quadrature (first order), and is
    told as a rate, because the doubling time itself runs through infinity where growth turns into shrinking.
    Raises Refused (`growth`) for volumes or times that are not positive and finite.
    """
    if not all(math.isfinite(value) and value > 0 for value in (earlier_mm3, later_mm3, days)):
        raise Refused(
            "growth",
            f"a doubling time needs two volumes above zero and a later second date; these are {earlier_mm3:g} mm3, "
            f"{later_mm3:g} mm3 and {days:g} days",
        )
    log_ratio = math.log(later_mm3) - math.log(earlier_mm3)
    rate = log_ratio / days
    doubling = math.log(2) / rate if rate else math.inf
    interval = None
    if earlier_sd_mm3 is not None and later_sd_mm3 is not None:
        half = Z_95 * math.hypot(earlier_sd_mm3 / earlier_mm3, later_sd_mm3 / later_mm3) / days
        interval = (rate - half, rate + half)
    return Doubling(
        days=doubling, rate_per_day=rate, rate_interval=interval, because=_doubling_words(doubling, interval)
    )


def _doubling_words(doubling: float, interval: tuple[float, float] | None) -> str:
    if math.isinf(doubling):
        words = "volume unchanged: no doubling time"
    else:
        words = f"volume {'doubles' if doubling > 0 else 'halves'} in {in_days(abs(doubling))}"
    if interval is None:
        return words
    low, high = (math.log(2) / rate if rate else math.inf for rate in interval)
    if interval[0] <= 0 <= interval[1]:
        told = f"from halving in {_number(abs(low))} to doubling in {in_days(high)}"
        return f"{words} (95 %: {told}, so perhaps unchanged)"
    near, far = sorted((abs(low), abs(high)))
    return f"{words} (95 %: {in_days(far) if far < 1 else f'{_number(near)} to {in_days(far)}'})"


def in_days(days: float) -> str:
    """Return a time for people: whole days, below ten with one decimal, below one only that it is less."""
    number = _number(days)
    return "less than a day" if days < 1 else "1 day" if number == "1.0" else f"{number} days"


def _number(days: float) -> str:
    return "less than 1" if days < 1 else f"{days:.1f}" if days < 9.95 else f"{days:.0f}"


def _gd(t: Array, x: Array) -> tuple[Array, Array]:
    grown, left = np.exp(x[0] * t), np.exp(-x[1] * t)
    return left + grown - 1, np.stack([t * grown, -t * left], axis=-1)


def _gx(t: Array, x: Array) -> tuple[Array, Array]:
    grown = np.exp(x[0] * t)
    return grown, (t * grown)[..., None]


def _dx(t: Array, x: Array) -> tuple[Array, Array]:
    left = np.exp(-x[0] * t)
    return left, (-t * left)[..., None]


def _gdphi(t: Array, x: Array) -> tuple[Array, Array]:
    grown, left = np.exp(x[0] * t), np.exp(-x[1] * t)
    phi = x[2]
    return (1 - phi) * grown + phi * left, np.stack(
        [(1 - phi) * t * grown, -phi * t * left, left - grown], axis=1
    )


_Model = Callable[[Array, Array], tuple[Array, Array]]
#: Name, what it gives with its derivatives, and its parameters; one with fewer parameters wins a tie.
MODELS: Final[dict[str, tuple[_Model, tuple[str, ...]]]] = {
    "dx": (_dx, ("d",)),
    "gx": (_gx, ("g",)),
    "gd": (_gd, ("g", "d")),
    "gdphi": (_gdphi, ("g", "d", "phi")),
}


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A parameter of a fit."""

    value: float
    """`g` and `d` per day, `phi` a fraction."""
    standard_error: float | None
    """From the covariance of the fit; None with two points."""
    p_value: float | None
    """Two-sided, of being zero (Student's t); None with two points."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """One model fitted to one course."""

    model: str
    """`gd`: exp(-d t) + exp(g t) - 1; `gx`: exp(g t); `dx`: exp(-d t); `gdphi`: (1 - phi) exp(g t) + phi exp(-d t)."""
    estimates: Mapping[str, Estimate]
    """By name: `g`, `d`, `phi`."""
    covariance: tuple[tuple[float, ...], ...] | None
    """Of the parameters, in the order of `estimates`; None with two points."""
    scatter: float | None
    """Standard deviation of the residuals, as a fraction of the first size; None with two points."""
    aic: float | None
    """Akaike's information criterion; smaller is better; None with two points."""
    sizes: tuple[float, ...]
    """What the model says at the days that were measured, in the unit of the sizes."""


@dataclass(frozen=True, kw_only=True)
class Growth:
    """What is known of growth and decay of a course."""

    points: int
    """Measurements that were used."""
    chosen: Fit | None
    """The model with the least AIC among those whose every parameter differs from zero; None when there is none."""
    candidates: tuple[Fit, ...]
    """Every model that could be fitted."""
    because: str
    """Why this model, or why none."""


def growth(
    days: Sequence[float], sizes: Sequence[float], *, p_value: float = 0.1, first_day: float = 1.0
) -> Growth:
    """Growth rate g, decay rate d and sensitive fraction phi of sizes (diameters, volumes, a marker) over days.

    Sizes are divided by the first. Times count from the first measurement, which is day `first_day`: 1 as published
    by tumgr, 0 where a course is exactly one of the models. A model needs more points than it has parameters. Of two
    points the rate is ln(S2 / S1) / dt, without errors. A course of one point, of two that differ by less than 20 % or
    end at zero, or that never changes is not fitted, and `because` says so.
    For `gdphi` the g here is that of the model; tumgr's summary tells g sqrt(1 - phi) there.
    Raises Refused (`growth`) for days that repeat and for numbers that are not finite or below zero.
    """
    t, size = _course(days, sizes)
    reason = _too_little(size)
    if reason:
        return Growth(points=len(size), chosen=None, candidates=(), because=reason)
    if len(size) == 2:
        return _of_two(t, size)
    fits = tuple(fit for model in MODELS if (fit := _fit(model, t - t[0] + first_day, size)) is not None)
    usable = [fit for fit in fits if all(_is_below(one.p_value, p_value) for one in fit.estimates.values())]
    if not usable:
        because = (
            f"not fitted: no model has every parameter apart from zero (p < {p_value:g}); {len(size)} points"
        )
        return Growth(points=len(size), chosen=None, candidates=fits, because=because)
    chosen = min(usable, key=lambda fit: math.inf if fit.aic is None else fit.aic)
    rates = ", ".join(_estimate_words(name, one) for name, one in chosen.estimates.items())
    scatter = "" if chosen.scatter is None else f"; scatter {100 * chosen.scatter:.1f} % of the first size"
    because = (
        f"model {chosen.model} on {len(size)} points: least AIC of {len(usable)} with every parameter apart from zero "
        f"(p < {p_value:g}); {rates}{scatter}"
    )
    return Growth(points=len(size), chosen=chosen, candidates=fits, because=because)


def growth_of(response: Response, *, p_value: float = 0.1, first_day: float = 1.0) -> Growth:
    """Growth of the sums of a response: of diameters, volumes or uptake, whatever its criteria add up.

    Visits whose sum is not complete are left out, and `because` tells how many.
    """
    complete = [
        (point.date.toordinal(), point.sum) for point in response.time_points if point.sum is not None
    ]
    found = growth(
        [day for day, _ in complete], [size for _, size in complete], p_value=p_value, first_day=first_day
    )
    left_out = len(response.time_points) - len(complete)
    if not left_out:
        return found
    return replace(
        found,
        because=f"{found.because}; {_counted(left_out, 'visit')} without a complete {response.quantity} left out",
    )


def _course(days: Sequence[float], sizes: Sequence[float]) -> tuple[Array, Array]:
    t, size = np.asarray(days, np.float64), np.asarray(sizes, np.float64)
    if t.shape != size.shape or t.ndim != 1:
        raise Refused("growth", f"each size needs its day; these are {t.size} days and {size.size} sizes")
    if not (np.isfinite(t).all() and np.isfinite(size).all() and (size >= 0).all()):
        raise Refused("growth", "days must be finite, sizes finite and not below zero")
    if len(np.unique(t)) != len(t):
        raise Refused("growth", "two sizes on one day: give their sum, or the one that counts")
    order = np.argsort(t)
    return t[order], size[order]


def _too_little(size: Array) -> str | None:
    """Why a course is not fitted at all, as in tumgr; None when it may be tried."""
    if len(size) < 2:
        return f"not fitted: {_counted(len(size), 'point')}; a rate needs two that differ by 20 %, or three"
    if size[0] == 0:
        return "not fitted: the first size is zero, and sizes are told as fractions of it"
    if len(size) == 2 and 0.8 < size[1] / size[0] < 1.2:
        return f"not fitted: two points that differ by less than 20 % ({size[0]:g} and {size[1]:g})"
    if len(size) == 2 and size[1] == 0:
        return "not fitted: the second of two sizes is zero, which no rate comes to"
    if (size == size[0]).all():
        return f"not fitted: {len(size)} points of the same size"
    return None


def _of_two(t: Array, size: Array) -> Growth:
    """Return the rate between two sizes, which leave nothing over to tell its uncertainty by."""
    rate = (math.log(size[1]) - math.log(size[0])) / float(t[1] - t[0])
    model, name, doing = ("gx", "g", "doubles") if rate > 0 else ("dx", "d", "halves")
    estimate = Estimate(value=abs(rate), standard_error=None, p_value=None)
    fit = Fit(
        model=model,
        estimates={name: estimate},
        covariance=None,
        scatter=None,
        aic=None,
        sizes=(float(size[0]), float(size[1])),
    )
    because = (
        f"model {model} on 2 points: {_estimate_words(name, estimate)}, {doing} in {in_days(math.log(2) / abs(rate))}; "
        "two points: no uncertainty can be told"
    )
    return Growth(points=2, chosen=fit, candidates=(fit,), because=because)


def _fit(model: str, t: Array, size: Array) -> Fit | None:
    """Least squares within the bounds; None where the points do not determine the parameters."""
    from scipy.optimize import least_squares
    from scipy.stats import t as student

    curve, names = MODELS[model]
    freedom = len(t) - len(names)
    if freedom < 1:
        return None
    f, longest = size / size[0], float(t[-1])
    upper = [min(_LARGEST_RATE, _LARGEST_EXPONENT / longest) if name == "g" else 1.0 for name in names]
    best = least_squares(
        lambda x: curve(t, x)[0] - f,
        np.minimum(_start(model, t, f), np.multiply(upper, 0.9)),
        jac=lambda x: curve(t, x)[1],
        bounds=(np.zeros(len(names)), upper),
        x_scale="jac",
        xtol=1e-12,
        ftol=1e-12,
        gtol=1e-12,
        max_nfev=1000,
    )
    slopes = curve(t, best.x)[1]
    information = slopes.T @ slopes
    scale = np.sqrt(np.diag(information))
    if not scale.all() or np.linalg.cond(information / np.outer(scale, scale)) > _WORST_CONDITION:
        return None
    residual = max(2 * float(best.cost), len(t) * _LEAST_SCATTER**2)
    covariance = (
        np.linalg.inv(information / np.outer(scale, scale)) / np.outer(scale, scale) * residual / freedom
    )
    errors = np.sqrt(np.diag(covariance))
    return Fit(
        model=model,
        estimates={
            name: Estimate(
                value=float(value),
                standard_error=float(error),
                p_value=2 * float(student.sf(value / error, freedom)),
            )
            for name, value, error in zip(names, best.x, errors, strict=True)
        },
        covariance=tuple(tuple(float(one) for one in row) for row in covariance),
        scatter=math.sqrt(residual / freedom),
        aic=len(t) * (math.log(2 * math.pi * residual / len(t)) + 1) + 2 * len(names),
        sizes=tuple(float(one) for one in size[0] * curve(t, best.x)[0]),
    )


def _start(model: str, t: Array, f: Array) -> Array:
    """Return the best of a grid of parameters, from rates that hardly change anything over the course to steep ones."""
    curve, names = MODELS[model]
    rates, fractions = np.geomspace(0.03, 30, 13) / t[-1], np.array([0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
    grid = np.meshgrid(*(fractions if name == "phi" else rates for name in names), indexing="ij")
    points = np.stack([axis.ravel() for axis in grid])
    cost = ((curve(t, points[..., None])[0] - f) ** 2).sum(axis=1)
    return np.asarray(points[:, cost.argmin()], np.float64)


def _is_below(p_value: float | None, limit: float) -> bool:
    return p_value is not None and p_value < limit


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _estimate_words(name: str, one: Estimate) -> str:
    unit = "" if name == "phi" else " a day"
    error = "" if one.standard_error is None else f" (standard error {one.standard_error:.6f})"
    return f"{name} = {one.value:.6f}{error}{unit}"


__all__ = [
    "MODELS",
    "Doubling",
    "Estimate",
    "Fit",
    "Growth",
    "doubling_time",
    "growth",
    "growth_of",
    "in_days",
]
