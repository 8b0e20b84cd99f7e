"""Which verdict of a course is the progression that counts."""

from __future__ import annotations

import pytest

from store.response.event import progression_at


@pytest.mark.parametrize(
    ("verdicts", "place"),
    [
        ("SD PD PR", 1),
        ("SMD PMD", 1),
        ("iUPD iSD iUPD iUPD iCPD", 2),
        ("iUPD NE iCPD", 0),
        ("iUPD ND NE iUPD iCPD iPR", 0),
        ("iSD NE iUPD iCPD", 2),
        ("iSD iCPD", 1),
        ("iUPD iUPD", 0),
        ("iUPD NE iUPD NE", 0),
        ("iUPD", None),
        ("iSD iUPD NE NE", None),
        ("iUPD iPR", None),
        ("iUPD iUPD iSD iUPD", None),
        ("iUPD NON-iCR/NON-iUPD", None),
        ("SD NE", None),
        ("", None),
    ],
)
def test_an_iupd_counts_when_it_is_confirmed_or_told_again_and_never_taken_back(
    verdicts: str, place: int | None
) -> None:
    assert progression_at(verdicts.split()) == place
