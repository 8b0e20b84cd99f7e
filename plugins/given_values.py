"""Values that an analysis gives, held to what the contract says of them; numbers of numpy become plain ones."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from numbers import Real
from typing import SupportsIndex

from plugins.code_fault import code_fault
from plugins.errors import OffContract

Point = tuple[float, float, float]


def finite(value: object, what: str) -> float:
    """Return a number, also one of numpy, as a plain float. Raises OffContract when it is none, or not finite."""
    if not isinstance(value, Real):
        raise OffContract(f"{what} is a {type(value).__name__}, not a number")
    if not math.isfinite(value):
        raise OffContract(f"{what} is {float(value)}, not a finite number")
    return float(value)


def whole(value: SupportsIndex, what: str) -> int:
    """Return a number that counts, also one of numpy, as a plain int. Raises OffContract when it is none."""
    try:
        number = operator.index(value)
    except TypeError as error:
        raise OffContract(f"{what} is a {type(value).__name__}, not a whole number") from error
    if number < 0:
        raise OffContract(f"{what} is {number}, not a whole number from 0")
    return number


def share(value: object, what: str) -> float:
    """Return a number from 0 to 1 as a plain float. Raises OffContract when it is none."""
    number = finite(value, what)
    if not 0 <= number <= 1:
        raise OffContract(f"{what} is 0 to 1, not {number}")
    return number


def on_grid(numbers: Iterable[SupportsIndex], what: str) -> tuple[int, int, int]:
    """Return three whole numbers (slice, row, column) as a tuple of plain ints. Raises OffContract else."""
    plain = tuple(whole(n, f"one of {what}") for n in numbers)
    if len(plain) != 3:
        raise OffContract(f"{what} is three numbers: slice, row, column")
    return (plain[0], plain[1], plain[2])


def writable(code: object, what: str) -> None:
    """Raise OffContract when a code can stand in no DICOM object."""
    if fault := code_fault(code):
        raise OffContract(f"{what} {fault}")


def ends(given: Iterable[Iterable[object]], what: str) -> tuple[Point, Point]:
    """Return two points as tuples of plain floats. Raises OffContract when they are none."""
    try:
        first, second = ((x, y, z) for x, y, z in given)
    except (TypeError, ValueError) as error:
        raise OffContract(f"{what} are not two points of three numbers") from error
    one, two = (tuple(finite(x, f"one of {what}") for x in point) for point in (first, second))
    return (one[0], one[1], one[2]), (two[0], two[1], two[2])


__all__ = ["Point", "ends", "finite", "on_grid", "share", "whole", "writable"]
