"""RECIST 1.1: a replayed study, and what holds for any course."""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import replace
from datetime import date
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from lesion_courses import START, Line, course, new, non_target, target

from store.response.history import History, Role, Seen, Status, Visit
from store.response.recist import judge
from store.response.rules import USUAL, Rules


def overalls(*lines: Line, rules: Rules = USUAL) -> list[str | None]:
    return [point.overall for point in judge(course(*lines), rules).time_points[1:]]


def test_the_replayed_study_has_every_verdict_that_its_readers_gave(data: Path) -> None:
    tables = {
        name: list(csv.DictReader((data / "response" / f"{name}_onco_recist.csv").read_text().splitlines()))
        for name in ("tu", "tr", "rs")
    }
    sites = {(*reader(row, "TU"), row["TULNKID"]): row["TULOC"] for row in tables["tu"]}
    rows: dict[tuple[str, ...], dict[date, dict[str, Seen]]] = defaultdict(lambda: defaultdict(dict))
    for row in tables["tr"]:
        lesion, who, at = row["TRLNKID"], reader(row, "TR"), day(row["TRDTC"])
        seen = rows[who][at].get(lesion) or Seen(
            lesion=lesion,
            role=Role(row["TRGRPID"].lower()),
            status=Status.MEASURED,
            node=sites[*who, lesion] == "LYMPH NODE",
        )
        if row["TRTESTCD"] == "TUMSTATE":
            seen = replace(seen, status=Status(row["TRORRES"].lower()))
        elif row["TRTESTCD"] == "LDIAM":
            seen = replace(seen, long_axis_tenths=round(float(row["TRORRES"]) * 10))
        else:
            seen = replace(seen, short_axis_tenths=round(float(row["TRORRES"]) * 10))
        rows[who][at][lesion] = seen
    verdicts = {}
    for who, visits in rows.items():
        seen_at = tuple(Visit(date=at, seen=tuple(lesions.values())) for at, lesions in visits.items())
        for point in judge(History(patient=who[0], visits=seen_at)).time_points:
            verdicts[who, point.date] = point
    asked = {"OVRLRESP": "overall", "TRGRESP": "target", "NTRGRESP": "non_target"}
    for row in tables["rs"]:
        point = verdicts[reader(row, "RS"), day(row["RSDTC"])]
        assert getattr(point, asked[row["RSTESTCD"]]) == row["RSSTRESC"], row
    assert len(tables["rs"]) >= 33


def reader(row: dict[str, str], of: str) -> tuple[str, ...]:
    return row["USUBJID"], row[f"{of}EVAL"], row[f"{of}EVALID"]


def day(text: str) -> date:
    """Return a date; the first of the month where the day is not known."""
    return date.fromisoformat(text if len(text) == 10 else f"{text}-01")


def by_the_book(history: History) -> list[str]:
    """Return the verdicts as the paper words them, in fractions and without any of the code that is tested."""
    first, *later = history.visits
    targets = {one.lesion: one for one in first.seen if one.role is Role.TARGET}
    others = [one.lesion for one in first.seen if one.role is Role.NON_TARGET]
    sums = [sum((length(one) or Fraction(0) for one in targets.values()), Fraction(0))]
    was_complete = had_new = False
    verdicts = []
    for visit in later:
        here = {one.lesion: one for one in visit.seen}
        sizes = {name: length(here[name]) if name in here else None for name in targets}
        known = [size for size in sizes.values() if size is not None]
        rise = sum(known, Fraction(0)) - min(sums)
        gone = all(
            size is not None and (size < 10 if targets[name].node else size == 0)
            for name, size in sizes.items()
        )
        back = any(
            size is not None and size >= (10 if targets[name].node else Fraction(1, 10))
            for name, size in sizes.items()
        )
        states = [here[name].status if name in here else Status.NOT_EVALUABLE for name in others]
        had_new = had_new or any(
            one.role is Role.NEW and one.status not in (Status.ABSENT, Status.NOT_EVALUABLE)
            for one in visit.seen
        )
        if had_new or Status.PROGRESSED in states or (was_complete and (back or Status.PRESENT in states)):
            verdict = "PD"
        elif gone:
            verdict = "CR" if set(states) <= {Status.ABSENT} else "PR"
        elif rise >= 5 and rise >= Fraction(20, 100) * min(sums):
            verdict = "PD"
        elif len(known) < len(targets):
            verdict = "NE"
        else:
            verdict = "PR" if sum(known) <= Fraction(70, 100) * sums[0] else "SD"
        was_complete = was_complete or verdict == "CR"
        if len(known) == len(targets):
            sums.append(sum(known, Fraction(0)))
        verdicts.append(verdict)
    return verdicts


def length(seen: Seen) -> Fraction | None:
    """Return what a target adds, in millimetres."""
    axis = seen.short_axis_tenths if seen.node else seen.long_axis_tenths
    plain = {
        Status.ABSENT: Fraction(0),
        Status.TOO_SMALL: Fraction(5),
        Status.MEASURED: Fraction(axis or 0, 10),
    }
    return plain.get(seen.status)


SIZES = st.integers(1, 600).map(lambda tenths: tenths / 10)
SEEN = st.one_of(SIZES, st.sampled_from(["absent", "too-small", "NE"]), st.none())
ORDER = {"CR": 0, "PR": 1, "SD": 2, "NON-CR/NON-PD": 2, "PD": 3}


@st.composite
def lines(draw: st.DrawFn) -> list[Line]:
    visits = draw(st.integers(1, 4))
    found = []
    for index in range(draw(st.integers(1, 4))):
        node = draw(st.booleans())
        sizes = [draw(SIZES), *(draw(SEEN) for _ in range(visits))]
        found.append(target(f"T{index}", *sizes, node=node))
    if draw(st.booleans()):
        states = st.sampled_from(["present", "absent", "NE", "unequivocal-progression"])
        found.append(non_target("B", "present", *(draw(states) for _ in range(visits))))
    if draw(st.booleans()):
        found.append(new("X", None, *(draw(SEEN) for _ in range(visits))))
    return found


@settings(max_examples=50)
@given(found=lines(), seed=st.randoms(use_true_random=False))
def test_the_order_of_lesions_and_of_visits_changes_nothing(found: list[Line], seed: Any) -> None:
    history = course(*found)
    visits = [
        replace(visit, seen=tuple(seed.sample(visit.seen, len(visit.seen)))) for visit in history.visits
    ]
    seed.shuffle(visits)
    again, plain = judge(replace(history, visits=tuple(visits))), judge(history)
    assert [p.overall for p in again.time_points] == [p.overall for p in plain.time_points]
    assert [p.sum for p in again.time_points] == [p.sum for p in plain.time_points]
    assert again.best_overall == plain.best_overall


@settings(max_examples=50)
@given(found=lines(), factor=st.sampled_from([2, 3, 10]))
def test_larger_lesions_of_the_same_proportions_respond_alike(found: list[Line], factor: int) -> None:
    # Without nodes and without the 5 mm of lesions too small and of progression, only proportions count.
    plain = [
        replace_line(
            line,
            [100.0 * s if isinstance(s, float) else ("NE" if s == "too-small" else s) for s in line.sizes],
        )
        for line in found
        if not line.node
    ]
    if not plain:
        return
    scaled = [
        replace_line(line, [factor * s if isinstance(s, float) else s for s in line.sizes]) for line in plain
    ]
    assert overalls(*plain) == overalls(*scaled)


def replace_line(line: Line, sizes: list[Any]) -> Line:
    return replace(line, sizes=sizes)


@settings(max_examples=60)
@given(found=lines(), more=SIZES, pick=st.integers(0, 3))
def test_a_target_that_is_larger_at_the_last_visit_never_betters_its_verdict(
    found: list[Line], more: float, pick: int
) -> None:
    index = pick % sum(line.role is Role.TARGET for line in found)
    sizes = list(found[index].sizes)
    if not isinstance(sizes[-1], float):
        return
    sizes[-1] += more
    grown = [replace_line(line, sizes) if n == index else line for n, line in enumerate(found)]
    was, now = overalls(*found)[-1], overalls(*grown)[-1]
    if "NE" in (was, now):
        assert now in (was, "PD")
    else:
        assert was is not None and now is not None and ORDER[now] >= ORDER[was]


@settings(max_examples=250)
@given(found=lines())
def test_random_courses_are_judged_as_the_paper_words_it(found: list[Line]) -> None:
    certain = [line for line in found if not (line.role is Role.NEW and "NE" in line.sizes)]
    history = course(*certain)
    assert [point.overall for point in judge(history).time_points[1:]] == by_the_book(history)


@settings(max_examples=40)
@given(found=lines())
def test_a_new_lesion_that_is_absent_changes_nothing_and_one_that_is_there_is_progression(
    found: list[Line],
) -> None:
    visits = max(len(line.sizes) for line in found)
    assert overalls(*found, new("Z", None, *["absent"] * (visits - 1))) == overalls(*found)
    assert set(overalls(*found, new("Z", None, *["present"] * (visits - 1)))) == {"PD"}


@settings(max_examples=40)
@given(found=lines())
def test_the_nadir_never_rises_and_is_no_more_than_the_baseline(found: list[Line]) -> None:
    points = judge(course(*found)).time_points
    nadirs = [point.nadir for point in points[1:]]
    assert all(
        later is not None and earlier is not None and later <= earlier for earlier, later in pairwise(nadirs)
    )
    assert nadirs[0] == points[0].sum
    assert points[0].date == START
