"""What one cell of a table of measurements says: a number, a date, a word; anything else is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from decimal import ROUND_HALF_UP, Decimal

from plugins.errors import Refused
from store.response.history import Role, Status

MISSING = ("", "na")
"""Cells that hold nothing, in lower case; R writes NA."""
ROLES: Mapping[str, Role] = {
    "target": Role.TARGET,
    "non-target": Role.NON_TARGET,
    "nontarget": Role.NON_TARGET,
    "new": Role.NEW,
    "new-lesion": Role.NEW,
}
WRITTEN = tuple(status for status in Status if status is not Status.COALESCED)
"""What a table may say; of lesions that grew together it tells one."""
STATUSES: Mapping[str, Status] = {
    **{status.value.lower(): status for status in WRITTEN},
    "not-evaluable": Status.NOT_EVALUABLE,
    "not-assessed": Status.NOT_EVALUABLE,
    "toosmall": Status.TOO_SMALL,
    "too-small-to-measure": Status.TOO_SMALL,
}
FLAGS: Mapping[str, bool] = {
    **dict.fromkeys(("1", "1.0", "true", "yes", "y"), True),
    **dict.fromkeys(("0", "0.0", "false", "no", "n"), False),
}
NUMBER = re.compile(r"[0-9]+(?:[.,][0-9]+)?(?:[eE][+-]?[0-9]{1,2})?|[.,][0-9]+")
ISO_DATE = re.compile(r"([0-9]{4})([-/.]?)([0-9]{2})\2([0-9]{2})(?:[T ][0-9:.]+(?:Z|[+-][0-9:]+)?)?")
LARGEST = 10**12
"""A number above that is a slip of the pen."""
LONGEST_MM = 2000
"""A length above that is a slip of the pen."""


class Cell:
    """One cell: its text without blanks around it, and where it stands."""

    def __init__(self, text: str, line: int, column: str) -> None:
        self.text = text.strip()
        self.line = line
        self.column = column

    @property
    def empty(self) -> bool:
        """Return True when nothing is there."""
        return self.text.lower() in MISSING

    def refused(self, code: str, expected: str) -> Refused:
        """Return the error of this cell; `expected` is what to do."""
        found = f"'{self.text[:40]}'" if self.text else "nothing"
        return Refused(code, f"line {self.line}, column {self.column}: found {found}, {expected}")

    def number(self, *, comma: bool = False) -> Decimal | None:
        """Return the number, None where there is none; `comma`: a decimal comma cannot be anything else here.

        Raises Refused (`bad-number`, `negative`).
        """
        if self.empty:
            return None
        text = self.text.replace("\N{MINUS SIGN}", "-")
        if re.fullmatch(rf"-\s*(?:{NUMBER.pattern})", text) and re.search(r"[1-9]", text):
            raise self.refused("negative", "which is below zero; correct the sign or leave the cell empty")
        if not NUMBER.fullmatch(text.lstrip("+")):
            raise self.refused("bad-number", "which is no number; write digits with one decimal point")
        if not comma and re.fullmatch(r"[0-9]{1,3},[0-9]{3}", text):
            raise self.refused("bad-number", "which may be thousands or decimals; write a decimal point")
        value = Decimal(text.replace(",", "."))
        if value > LARGEST:
            raise self.refused("bad-number", "which is too large to be meant; correct it")
        return value

    def tenths_mm(self, *, comma: bool = False) -> tuple[int | None, bool]:
        """Return a length in tenths of a millimetre, half up, and whether it had to be rounded. Refused as `number`."""
        value = self.number(comma=comma)
        if value is None:
            return None, False
        if value > LONGEST_MM:
            raise self.refused("bad-number", f"which is more than {LONGEST_MM} mm; write millimetres")
        tenths = (value * 10).quantize(Decimal(1), ROUND_HALF_UP)
        return int(tenths), tenths != value * 10

    def date(self) -> date | None:
        """Return a day, None where there is none: 2026-01-31 or 20260131, a time after it does not count.

        Raises Refused (`bad-date`).
        """
        if self.empty:
            return None
        found = ISO_DATE.fullmatch(self.text)
        try:
            if found:
                return date(int(found[1]), int(found[3]), int(found[4]))
        except ValueError as error:
            raise self.refused("bad-date", "which is no day of the calendar; correct it") from error
        raise self.refused("bad-date", "which can be read in more than one way or none; write 2026-01-31")

    def role(self) -> Role:
        """Return the role. Raises Refused (`bad-role`)."""
        try:
            return ROLES[self._word()]
        except KeyError as error:
            words = ", ".join(role.value for role in Role)
            raise self.refused("bad-role", f"which is no role; write one of {words}") from error

    def status(self) -> Status | None:
        """Return the status, None where there is none. Raises Refused (`bad-status`)."""
        if self.empty:
            return None
        try:
            return STATUSES[self._word()]
        except KeyError as error:
            words = ", ".join(status.value for status in WRITTEN)
            raise self.refused("bad-status", f"which is no status; write one of {words}") from error

    def flag(self) -> bool | None:
        """Return yes or no, None where there is nothing. Raises Refused (`bad-flag`)."""
        if self.empty:
            return None
        try:
            return FLAGS[self.text.lower()]
        except KeyError as error:
            raise self.refused(
                "bad-flag", "which is neither; write 1 for a lymph node and 0 otherwise"
            ) from error

    def _word(self) -> str:
        return re.sub(r"[\s_-]+", "-", self.text.lower())


__all__ = ["Cell"]
