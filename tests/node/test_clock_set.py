"""A clock that is set while a study is received settles no half of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from dicom_series import make_series
from small_node import SmallNode
from whole_node import ANALYSIS

from node.intake import Intake
from node.settle import Settler
from plugins.errors import Unavailable
from store.instances import OpenAssociation, beat, close_association, open_association

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class Jumping:
    """A study that an association sends, two settlers as two processes have, and a clock that is set."""

    def __init__(self, small: SmallNode, images: list[Path]) -> None:
        self.small, self.images, self.passed, self.ahead = small, images, 0.0, 0.0
        self.intake = Intake(small.database, small.objects, clock=self.now)
        self.settlers = [
            Settler(
                small.database,
                (ANALYSIS,),
                quiet_seconds=20,
                hard_cap_seconds=600,
                passed=lambda: self.passed,
            )
            for _ in range(2)
        ]
        with small.database.transaction() as session:
            self.association = open_association(session, "CT", "127.0.0.1", self.now())

    def now(self) -> datetime:
        return T0 + timedelta(seconds=self.passed + self.ahead)

    def arrive(self) -> None:
        """Let the next image come."""
        temporary = self.small.objects.temporary()
        temporary.write_bytes(self.images.pop().read_bytes())
        self.intake.take(temporary, source="x", association=OpenAssociation(pk=self.association))

    def close(self) -> None:
        with self.small.database.transaction() as session:
            close_association(session, self.association, self.now())

    def go_on(self, seconds: int, *, beats: bool) -> list[tuple[float, bool]]:
        """Let seconds pass; return when, by the time that passed, a study settled, and whether it was forced."""
        found: list[tuple[float, bool]] = []
        for _ in range(seconds):
            self.passed += 1
            if beats and self.passed % 15 == 0:
                with self.small.database.transaction() as session:
                    beat(session, self.association, self.now())
            found += [(self.passed, one.forced) for s in self.settlers for one in s.tick(self.now())]
        return found


@pytest.fixture
def jumping(tmp_path: Path) -> Iterator[Jumping]:
    small = SmallNode.make(tmp_path / "node")
    made = Jumping(small, make_series(tmp_path / "in", np.zeros((2, 8, 8))))
    made.arrive()
    assert made.go_on(14, beats=True) == []
    yield made
    small.database.dispose()


@pytest.mark.parametrize("step", [-30 * 86400, -3600, -45, -10, 10, 45, 3600, 30 * 86400])
def test_an_association_that_beats_holds_its_study_whatever_the_clock_does(
    jumping: Jumping, step: int, caplog: pytest.LogCaptureFixture
) -> None:
    jumping.ahead = step
    assert jumping.go_on(100, beats=True) == []
    jumping.arrive()
    assert jumping.go_on(100, beats=True) == []
    jumping.close()
    assert jumping.go_on(2, beats=False) == [(215, False)]
    said = [message for message in caplog.messages if message.startswith("action=clock-set")]
    assert said == [f"action=clock-set seconds={step} studies=1"] * (2 if abs(step) > 30 else 0)


@pytest.mark.parametrize("step", [-3600, 3600])
def test_the_hard_cap_counts_anew_after_the_clock_was_set(jumping: Jumping, step: int) -> None:
    jumping.ahead = step
    assert jumping.go_on(1000, beats=True) == [(615, True)]


@pytest.mark.parametrize("step", [-3600, 3600])
def test_an_association_that_fell_silent_as_the_clock_was_set_holds_nothing_for_long(
    jumping: Jumping, step: int
) -> None:
    jumping.ahead = step
    assert jumping.go_on(200, beats=False) == [(75, False)]


def test_a_study_whose_images_come_each_on_an_association_of_its_own_waits_anew_after_a_jump(
    jumping: Jumping,
) -> None:
    jumping.close()
    jumping.ahead = 3600
    assert jumping.go_on(100, beats=False) == [(35, False)]


def test_a_jump_that_could_not_be_written_is_met_at_the_next_turn(
    jumping: Jumping, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise Unavailable("no")

    jumping.ahead = 3600
    monkeypatch.setattr("node.settle.wait_anew", fail)
    with pytest.raises(Unavailable):
        jumping.go_on(1, beats=True)
    monkeypatch.undo()
    assert jumping.go_on(100, beats=True) == []
