"""The loop: it works on while there is work, rests, wakes, and outlives errors."""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from node.loop import Loop
from plugins.errors import Unavailable


def clock() -> datetime:
    return datetime(2025, 1, 1, tzinfo=UTC)


def test_it_goes_on_at_once_while_there_is_more_and_then_rests_until_woken() -> None:
    rounds: list[datetime] = []
    rested = threading.Event()

    def tick(now: datetime) -> bool:
        rounds.append(now)
        if len(rounds) == 5:
            rested.set()
        return len(rounds) < 5

    loop = Loop("test", tick, clock, 60.0)
    loop.start()
    assert rested.wait(60)
    time.sleep(0.1)
    assert rounds == [clock()] * 5
    rested.clear()
    loop.wake()
    deadline = time.monotonic() + 60
    while len(rounds) < 6:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert loop.stop(60)


def test_it_outlives_an_outage_in_one_line_and_a_fault_with_its_place(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failures = [Unavailable("no answer"), ValueError("a fault")]
    done = threading.Event()

    def tick(now: datetime) -> bool:
        if failures:
            raise failures.pop(0)
        done.set()
        return False

    loop = Loop("test", tick, clock, 0.01)
    with caplog.at_level(logging.WARNING):
        loop.start()
        assert done.wait(60)
        assert loop.stop(60)
    outage, fault = caplog.records
    assert "no answer" in outage.getMessage() and outage.exc_info is None
    assert fault.exc_info is not None


def test_an_outage_is_told_at_once_and_once_a_minute_and_so_is_its_end(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter(range(0, 10_000, 5))
    monkeypatch.setattr("node.outage.time", SimpleNamespace(monotonic=lambda: float(next(seconds))))
    failures, done = [Unavailable("no answer")] * 30, threading.Event()

    def tick(now: datetime) -> bool:
        if failures:
            raise failures.pop()
        done.set()
        return False

    loop = Loop("sender", tick, clock, 0.001)
    with caplog.at_level(logging.INFO):
        loop.start()
        assert done.wait(60)
        assert loop.stop(60)
    assert caplog.messages == [
        'action=round-failed loop=sender failures=1 error="no answer"',
        'action=round-failed loop=sender failures=13 error="no answer"',
        'action=round-failed loop=sender failures=25 error="no answer"',
        "action=rounds-work loop=sender failures=30",
    ]
    assert loop.failed_rounds == 30


def test_stopping_lets_the_present_round_end_and_tells_when_it_does_not() -> None:
    gate, began = threading.Event(), threading.Event()

    def tick(now: datetime) -> bool:
        began.set()
        return gate.wait(60)

    loop = Loop("test", tick, clock, 60.0)
    loop.start()
    assert began.wait(60)
    assert not loop.stop(0.1)
    gate.set()
    assert loop.stop(60)
    assert Loop("never started", tick, clock, 1.0).stop()
