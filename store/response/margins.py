"""How far one number alone would have to move for the verdict of a time point to be another one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from store.response.verdict import Margin


@dataclass(frozen=True, kw_only=True)
class Number:
    """One measurement as the criteria compare it: a whole number of steps."""

    lesion: str
    """The lesion."""
    quantity: str
    """`long_axis`, `short_axis`, `volume`, `suv_peak`."""
    steps: int
    """The value: how many steps (198 for 19.8 mm in tenths)."""
    steps_per_unit: int
    """Steps in one `unit`: 10 for tenths of a millimetre."""
    unit: str
    """UCUM unit."""
    most: int
    """The largest value that is asked for, in steps; 0 is the smallest."""
    standard_deviation: float | None = None
    """Of the value, in `unit`; None when it is not known."""


def margins(numbers: Sequence[Number], verdict: Callable[[tuple[int, ...]], str]) -> tuple[Margin, ...]:
    """Return the smallest changes of single numbers that give another verdict, nearest first.

    `verdict` judges the time point again from all values in steps, in the order of `numbers`. Each number is
    moved alone, upwards and downwards, so it has two margins, one or none. A bisection finds the change: it is
    the smallest one when the verdict gets only worse (or only better) as one number grows, as in all criteria
    here. The change is exact to one step: one step less gives the verdict as it is.
    """
    values = tuple(number.steps for number in numbers)
    now = verdict(values)
    found = []
    for index, number in enumerate(numbers):
        for end in (0, number.most):
            moved = _moved(values, index, end, now, verdict)
            if moved is not None:
                found.append(_margin(number, *moved))
    return tuple(sorted(found, key=lambda margin: (abs(margin.change), margin.lesion, margin.change)))


def _moved(
    values: tuple[int, ...], index: int, end: int, now: str, verdict: Callable[[tuple[int, ...]], str]
) -> tuple[int, str] | None:
    def at(value: int) -> str:
        return verdict((*values[:index], value, *values[index + 1 :]))

    same, other = values[index], end
    word = at(end)
    if word == now:
        return None
    while abs(other - same) > 1:
        middle = (same + other) // 2
        seen = at(middle)
        if seen == now:
            same = middle
        else:
            other, word = middle, seen
    return other, word


def _margin(number: Number, steps: int, verdict: str) -> Margin:
    change = (steps - number.steps) / number.steps_per_unit
    sd = number.standard_deviation
    return Margin(
        lesion=number.lesion,
        quantity=number.quantity,
        value=number.steps / number.steps_per_unit,
        change=change,
        unit=number.unit,
        verdict=verdict,
        standard_deviations=abs(change) / sd if sd else None,
    )


__all__ = ["Number", "margins"]
