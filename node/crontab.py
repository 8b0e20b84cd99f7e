"""Times in the five fields of crontab(5): minute, hour, day of the month, month, weekday (0 and 7 are Sunday)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import tzinfo
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apscheduler.triggers.cron import CronTrigger

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
"""Days of each month."""
FIELDS = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, MONTHS),
    ("day of the week", 0, 7, DAYS),
)
ITEM = re.compile(r"(?P<first>\*|\w+)(-(?P<last>\w+))?(/(?P<step>\d+))?", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Crontab:
    """A time that comes again and again."""

    expression: str
    """As it was written."""
    fields: tuple[str, ...]
    """The five fields with every number in them, or `*`."""

    @classmethod
    def of(cls, expression: str) -> Crontab:
        """Return what an expression says. Raises ValueError for one that cannot be read.

        Day of the month and day of the week together are refused: cron takes them for either, most readers for both.
        """
        words = expression.lower().split()
        if len(words) != len(FIELDS):
            raise ValueError(
                f"'{expression}' has {len(words)} fields; minute, hour, day, month and weekday are five"
            )
        read = tuple(_numbers(word, *field) for word, field in zip(words, FIELDS, strict=True))
        if read[2] != "*" and read[4] != "*":
            raise ValueError(f"'{expression}' names days of the month and of the week; one of the two is *")
        months = range(1, 13) if read[3] == "*" else map(int, read[3].split(","))
        if read[2] != "*" and int(read[2].split(",")[0]) > max(LONGEST[month - 1] for month in months):
            raise ValueError(f"'{expression}' names a day that no such month has")
        return cls(expression=expression, fields=read)

    def trigger(self, zone: tzinfo) -> CronTrigger:
        """Return it as APScheduler knows it, whose weeks begin with 0 on Monday."""
        from apscheduler.triggers.cron import CronTrigger

        minute, hour, day, month, weekday = self.fields
        if weekday != "*":
            weekday = ",".join(DAYS[int(number) % 7] for number in weekday.split(","))
        return CronTrigger(minute=minute, hour=hour, day=day, month=month, day_of_week=weekday, timezone=zone)


def _numbers(word: str, what: str, low: int, high: int, names: tuple[str, ...]) -> str:
    """Return the numbers of one field with commas between; `*` when it is all of them."""
    found: set[int] = set()
    for item in word.split(","):
        match = ITEM.fullmatch(item)
        if match is None or (match["first"] == "*" and match["last"]):
            raise ValueError(f"'{item}' is no {what}")
        step = int(match["step"] or 1)
        first = low if match["first"] == "*" else _number(match["first"], what, low, names)
        last = high if match["first"] == "*" or (match["step"] and not match["last"]) else first
        last = _number(match["last"], what, low, names) if match["last"] else last
        if not (low <= first <= last <= high and step):
            raise ValueError(f"'{item}' is no {what}: {low} to {high}")
        found |= set(range(first, last + 1, step))
    return "*" if word == "*" else ",".join(map(str, sorted(found)))


def _number(word: str, what: str, low: int, names: tuple[str, ...]) -> int:
    if word in names:
        return names.index(word) + low
    if not word.isdecimal():
        raise ValueError(f"'{word}' is no {what}")
    return int(word)


__all__ = ["Crontab"]
