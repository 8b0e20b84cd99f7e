"""Threads that stay for the next piece of work."""

from __future__ import annotations

import logging
import threading

import pytest
from patience import eventually

from node.crew import MOST_IDLE, Crew


def threads(name: str) -> int:
    return sum(thread.name == name for thread in threading.enumerate())


def test_work_is_done_at_one_time_by_as_many_threads_as_it_needs_and_few_stay() -> None:
    crew, all_here, doing = Crew("crew-many"), threading.Barrier(21), threading.Event()

    def work() -> None:
        all_here.wait(60)
        doing.wait(60)

    for _ in range(20):
        crew.do(work)
    all_here.wait(60)
    assert threads("crew-many") == 20
    doing.set()
    assert eventually(lambda: threads("crew-many") == MOST_IDLE)
    crew.stop()
    assert eventually(lambda: threads("crew-many") == 0)


def test_one_thread_does_one_piece_after_another() -> None:
    crew, done = Crew("crew-one"), []
    for number in range(5):
        crew.do(lambda number=number: done.append((number, threading.get_ident())))  # type: ignore[misc]
        assert eventually(lambda: len(crew._idle) == 1)
    assert [number for number, _ in done] == [0, 1, 2, 3, 4]
    assert len({thread for _, thread in done}) == 1
    crew.stop()
    assert eventually(lambda: threads("crew-one") == 0)


def test_whoever_still_works_when_the_crew_is_stopped_finishes_and_goes() -> None:
    crew, going, done = Crew("crew-late"), threading.Event(), []
    crew.do(lambda: done.append(going.wait(60)))
    crew.stop()
    going.set()
    assert eventually(lambda: threads("crew-late") == 0)
    assert done == [True]


def test_work_that_fails_is_one_record_of_the_log_and_its_thread_goes_on(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    crew, done = Crew("crew-failing"), threading.Event()

    def work() -> None:
        raise ValueError("a fault")

    crew.do(work)
    assert eventually(lambda: len(crew._idle) == 1)
    crew.do(done.set)
    assert done.wait(60)
    crew.stop()
    assert [(r.levelno, r.getMessage()) for r in caplog.records] == [
        (logging.ERROR, "action=thread-failed thread=crew-failing")
    ]
    assert "Exception in thread" not in capfd.readouterr().err
