from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from store.commit import Backlog, GroupCommit


class Bench:
    """Work that stands still until it may go on, and remembers its groups."""

    def __init__(self, largest: int = 64) -> None:
        self.groups: list[list[int]] = []
        self.begun, self.gate = threading.Event(), threading.Event()
        self.commit: GroupCommit[int, str] = GroupCommit(self._work, largest=largest)
        self.answers: dict[int, str | BaseException] = {}
        self.threads: list[threading.Thread] = []

    def _work(self, items: Sequence[int]) -> Sequence[str | Exception]:
        self.groups.append(list(items))
        self.begun.set()
        assert self.gate.wait(60)
        if 13 in items:
            raise OSError("unlucky")
        return [ValueError(str(item)) if item < 0 else f"did {item}" for item in items]

    def send(self, *items: int) -> None:
        for item in items:
            thread = threading.Thread(target=self._send, args=(item,))
            self.threads.append(thread)
            thread.start()
            while not self.groups and not self.begun.wait(60):
                pass

    def _send(self, item: int) -> None:
        try:
            self.answers[item] = self.commit.do(item)
        except BaseException as error:
            self.answers[item] = error

    def finish(self) -> None:
        waiting = len(self.threads) - len(self.groups[0])
        while self.commit._waiting.qsize() < waiting:
            pass
        self.gate.set()
        for thread in self.threads:
            thread.join(60)


def test_who_is_alone_waits_for_nobody() -> None:
    bench = Bench()
    bench.gate.set()
    assert [bench.commit.do(1), bench.commit.do(2)] == ["did 1", "did 2"]
    assert bench.groups == [[1], [2]]


def test_what_comes_while_a_group_is_done_is_the_next_group() -> None:
    bench = Bench()
    bench.send(1, 2, 3, 4)
    bench.finish()
    assert bench.groups[0] == [1]
    assert [sorted(group) for group in bench.groups[1:]] == [[2, 3, 4]]
    assert bench.answers == {number: f"did {number}" for number in (1, 2, 3, 4)}
    assert bench.commit.do(5) == "did 5"


def test_one_that_fails_fails_alone_and_a_group_that_fails_fails_whole() -> None:
    bench = Bench()
    bench.send(1, -2, 3)
    bench.finish()
    assert (bench.answers[1], bench.answers[3]) == ("did 1", "did 3")
    assert isinstance(bench.answers[-2], ValueError)

    unlucky = Bench()
    unlucky.send(1, 13, 14)
    unlucky.finish()
    assert unlucky.answers[1] == "did 1"
    assert isinstance(unlucky.answers[13], OSError)
    assert isinstance(unlucky.answers[14], OSError)
    assert unlucky.commit.do(15) == "did 15"


def test_a_group_has_a_bound_and_the_rest_is_done_after_it() -> None:
    bench = Bench(largest=3)
    bench.send(*range(1, 9))
    bench.finish()
    assert [len(group) for group in bench.groups] == [1, 3, 3, 1]
    assert sorted(bench.answers) == list(range(1, 9))


@pytest.mark.parametrize("threads", [8])
def test_every_item_is_done_once_whatever_the_threads_do(threads: int) -> None:
    done: list[int] = []

    def work(items: Sequence[int]) -> Sequence[int | Exception]:
        done.extend(items)
        return list(items)

    commit: GroupCommit[int, int] = GroupCommit(work, largest=3)
    wrong: list[int] = []

    def run(first: int) -> None:
        wrong.extend(item for item in range(first, first + 500) if commit.do(item) != item)

    crew = [threading.Thread(target=run, args=(1 + 500 * number,)) for number in range(threads)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join(60)
    assert wrong == []
    assert sorted(done) == list(range(1, 1 + 500 * threads))


def test_a_backlog_does_everything_in_order_and_nobody_waits_for_it() -> None:
    groups: list[list[int]] = []
    gate = threading.Event()

    def work(items: Sequence[int]) -> None:
        assert gate.wait(60)
        groups.append(list(items))

    backlog: Backlog[int] = Backlog(work, largest=4)
    for number in range(10):
        backlog.put(number)
    assert groups == []
    gate.set()
    backlog.finish()
    assert [number for group in groups for number in group] == list(range(10))
    assert max(map(len, groups)) <= 4
    backlog.put(10)
    backlog.finish()
    assert groups[-1] == [10]


def test_a_backlog_that_got_no_thread_gets_one_for_the_next_item(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    done: list[int] = []
    backlog: Backlog[int] = Backlog(done.extend)
    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(threading.Thread, "start", fail)
        backlog.put(1)
    backlog.put(2)
    backlog.finish()
    assert done == [2]


def test_who_finds_nobody_at_work_does_it_himself_and_wakes_no_other_thread() -> None:
    seen: list[int] = []

    def work(items: Sequence[int]) -> Sequence[str | Exception]:
        seen.append(threading.get_ident())
        return ["done"] * len(items)

    before = threading.active_count()
    commit: GroupCommit[int, str] = GroupCommit(work)
    assert commit.do(1) == "done"
    assert seen == [threading.get_ident()]
    assert threading.active_count() == before


def test_who_is_interrupted_at_work_leaves_nobody_waiting() -> None:
    bench = Bench()
    real = bench.commit._work

    def interrupted(items: Sequence[int]) -> Sequence[str | Exception]:
        answers = real(items)
        if 1 in items:
            raise KeyboardInterrupt
        return answers

    bench.commit._work = interrupted
    bench.send(1, 2, 3)
    bench.finish()
    assert isinstance(bench.answers[1], KeyboardInterrupt)
    assert (bench.answers[2], bench.answers[3]) == ("did 2", "did 3")
    assert bench.commit.do(4) == "did 4"
