"""The challenge: every case of a frozen hold-out put to the champion and to the challenger, and what the gate says.

Both are asked in turn, case by case, the one after the other and then the other way round, so that a busy machine is as
slow for one as for the other. Of a case only its row is kept, and the pictures of the few that changed most.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from plugins.errors import Refused
from store.patient_key import fold_of_patient
from training.evaluate.data import Data
from training.evaluate.drawn import Row
from training.evaluate.drawn import judge as row_of
from training.evaluate.families import FAMILIES
from training.evaluate.judged import Case, DrawnCase
from training.evaluate.overlays import Plane, picture, planes
from training.evaluate.section import Picture, number
from training.evaluate.subject import Subject
from training.gate import Seconds, judge
from training.margins import Margins
from training.plan.modification import require_within
from training.verdict import Verdict, read_verdict

SHOWN_EACH = 3
"""Cases shown of those that gained most and of those that lost most."""
CHALLENGE, ROWS = "challenge.json", "rows.json"
KEY = "Blue, solid: the label. Pink, dotted: the champion. Orange, dashed: the challenger."


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A case that gained or lost, with its picture."""

    case_id: str
    """Which case."""
    change: float
    """Dice, challenger minus champion."""
    picture: Picture
    """The label and both outlines in three planes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Challenge:
    """What came of it."""

    champion: tuple[Row, ...]
    """What was measured of the champion."""
    challenger: tuple[Row, ...]
    """What was measured of the challenger."""
    seconds: Seconds
    """How long each answer took."""
    verdict: Verdict
    """What the gate says."""
    shown: tuple[Shown, ...]
    """Cases that lost most, then those that gained most."""

    def write(self, folder: Path) -> None:
        """Write what documents need (`challenge.json`, pictures) and every row (`rows.json`) into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        shown = []
        for place, one in enumerate(self.shown):
            name = f"changed{place}.png"
            (folder / name).write_bytes(one.picture.png)
            shown.append(
                {
                    "case_id": one.case_id,
                    "change": one.change,
                    "caption": one.picture.caption,
                    "picture": name,
                }
            )
        plain = {"verdict": self.verdict.plain(), "seconds": asdict(self.seconds), "shown": shown}
        rows = {
            side: [row.plain() for row in of]
            for side, of in (("champion", self.champion), ("challenger", self.challenger))
        }
        for name, content in ((ROWS, rows), (CHALLENGE, plain)):
            (folder / name).write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_challenge(folder: Path) -> tuple[Verdict, tuple[Shown, ...]]:
    """Return the verdict and the pictures that `Challenge.write` left in a folder. Refuses `no-challenge`."""
    try:
        plain: Mapping[str, Any] = json.loads((folder / CHALLENGE).read_text())
        shown = tuple(
            Shown(
                case_id=one["case_id"],
                change=one["change"],
                picture=Picture(
                    png=(folder / Path(one["picture"]).name).read_bytes(), caption=one["caption"]
                ),
            )
            for one in plain["shown"]
        )
        return read_verdict(plain["verdict"]), shown
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Refused("no-challenge", f"{folder} holds no judgement of two models ({error!r})") from error


def challenge(
    champion: Subject,
    challenger: Subject,
    hold_out: Data,
    margins: Margins,
    *,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Challenge:
    """Return what the gate says of a challenger on a hold-out; `progress` is told each case as it is taken up.

    Refuses `other-family`, `outside-plan` (`training.plan.modification.require_within`), `learned-from` (a patient of
    the hold-out was learned from by one of the two: by whichever fold, because calibration learned from all of them),
    `not-drawn` (a family that draws nothing), and what `training.gate.judge` does.
    """
    if champion.family != challenger.family:
        raise Refused("other-family", f"a {challenger.family} is not judged against a {champion.family}")
    require_within(champion.card, challenger.card)
    subjects = [one.on(hold_out.manifest) for one in (champion, challenger)]
    for subject in subjects:
        _require_unseen(subject, hold_out)
    family = FAMILIES[champion.family]
    rows: tuple[list[Row], list[Row]] = ([], [])
    seconds: tuple[list[float], list[float]] = ([], [])
    changed = _Changed()
    with _one_thread():
        asked = [_drawn(family.cases(subject, hold_out, False)) for subject in subjects]
        for both, took in _in_turn(asked[0], asked[1], clock):
            progress(both[0].case_id)
            for side in (0, 1):
                rows[side].append(row_of(both[side]))
                seconds[side].append(took[side])
            if both[0].setting == rows[0][0].setting:
                changed.take(both[0], both[1], rows[0][-1], rows[1][-1])
    if not rows[0]:
        raise Refused("not-drawn", f"a {champion.family} draws nothing, and the gate compares what is drawn")
    times = Seconds(champion=tuple(seconds[0]), challenger=tuple(seconds[1]))
    return Challenge(
        champion=tuple(rows[0]),
        challenger=tuple(rows[1]),
        seconds=times,
        verdict=judge(rows[0], rows[1], margins, seconds=times, seed=seed),
        shown=changed.shown(family.window),
    )


def _require_unseen(subject: Subject, hold_out: Data) -> None:
    """Refuse a hold-out with a patient that a model has learned from."""
    for case in hold_out.cases:
        if fold_of_patient(case.patient_id, subject.held_out) is not None:
            raise Refused(
                "learned-from",
                f"{subject.name} {subject.version} has learned from patient {case.patient_id} of the hold-out: "
                "nothing can be judged on him",
            )


def _drawn(cases: Iterator[Case]) -> Iterator[DrawnCase]:
    return (case for case in cases if isinstance(case, DrawnCase))


def _in_turn(
    champion: Iterator[DrawnCase], challenger: Iterator[DrawnCase], clock: Callable[[], float]
) -> Iterator[tuple[tuple[DrawnCase, DrawnCase], tuple[float, float]]]:
    """Yield the answers of both to each question, with the seconds that each took; either begins every other time."""
    asked, turn = (champion, challenger), 0
    while True:
        said: dict[int, DrawnCase | None] = {}
        took: dict[int, float] = {}
        for side in (turn, 1 - turn):
            begun = clock()
            said[side] = next(asked[side], None)
            took[side] = clock() - begun
        was, now = said[0], said[1]
        if was is None and now is None:
            return
        if was is None or now is None:
            raise Refused("unequal-holdout", "one of the two models answers fewer questions than the other")
        yield (was, now), (took[0], took[1])
        turn = 1 - turn


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch compute on one thread, as it does where several analyses share a machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Changed:
    """The cases that gained or lost most so far."""

    def __init__(self) -> None:
        self._lost: list[tuple[float, str, str, tuple[Plane, Plane, Plane]]] = []
        self._gained: list[tuple[float, str, str, tuple[Plane, Plane, Plane]]] = []

    def take(self, was: DrawnCase, now: DrawnCase, was_row: Row, now_row: Row) -> None:
        """Keep a case if it is among them."""
        first, second = was_row.figures, now_row.figures
        change = (second["dice"] or 0.0) - (first["dice"] or 0.0)
        cuts = planes(now, was.drawn) if change else None
        if cuts is None:
            return
        caption = (
            f"{was.case_id}: Dice {number(first['dice'])} to {number(second['dice'])}; long axis of the label "
            f"{number(first['truth_long_axis_mm'], 1)} mm, champion {number(first['drawn_long_axis_mm'], 1)}, "
            f"challenger {number(second['drawn_long_axis_mm'], 1)}"
        )
        kept = self._gained if change > 0 else self._lost
        kept.append((abs(change), was.case_id, caption, cuts))
        kept.sort(key=lambda one: (-one[0], one[1]))
        del kept[SHOWN_EACH:]

    def shown(self, window: tuple[float, float]) -> tuple[Shown, ...]:
        """Return them with their pictures; `window` are the values shown black and white."""
        signed = [(-1, one) for one in self._lost] + [(1, one) for one in self._gained]
        return tuple(
            Shown(
                case_id=case_id,
                change=sign * change,
                picture=Picture(png=picture(cuts, window), caption=caption),
            )
            for sign, (change, case_id, caption, cuts) in signed
        )


__all__ = ["KEY", "Challenge", "Shown", "challenge", "read_challenge"]
