from __future__ import annotations

import threading
import time

from node.desk import Peer
from node.pace import CREDIT_SECONDS, SLOWEST_BYTES_PER_SECOND, Pace
from node.seats import PATIENCE_SECONDS, Seats


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Sitter:
    """An association that is so far behind, and leaves when it is told to."""

    def __init__(self, seats: Seats[Sitter], behind_seconds: float = 0.0) -> None:
        self.behind_seconds = behind_seconds
        self.was_told = False
        self._seats = seats

    def give_up(self) -> None:
        self.was_told = True
        threading.Timer(0.05, self._seats.leave, (self,)).start()


def sit(seats: Seats[Sitter], count: int, behind_seconds: float = 0.0) -> list[Sitter]:
    sitters = [Sitter(seats, behind_seconds) for _ in range(count)]
    assert all(seats.take(one, "A", "10.0.0.1") for one in sitters)
    return sitters


def test_a_peer_at_rest_owes_nothing() -> None:
    clock = Clock()
    pace = Pace(5.0, clock)
    pace.rest()
    clock.now += 1e6
    assert pace.behind_seconds == 0.0


def test_whoever_says_nothing_is_behind_after_the_time_for_the_first_byte() -> None:
    clock = Clock()
    pace = Pace(5.0, clock)
    clock.now += 7.0
    assert pace.behind_seconds == 2.0


def test_a_byte_a_second_leaves_a_peer_behind_and_a_fast_one_has_credit() -> None:
    clock = Clock()
    slow, fast = Pace(5.0, clock), Pace(5.0, clock)
    for _ in range(10):
        for pace, count in ((slow, 1), (fast, 100 * SLOWEST_BYTES_PER_SECOND)):
            pace.owe()
            pace.got(count)
        clock.now += 1.0
    assert slow.behind_seconds == 10.0 - 10 / SLOWEST_BYTES_PER_SECOND
    assert fast.behind_seconds == 0.0
    clock.now += CREDIT_SECONDS
    assert fast.behind_seconds == 1.0
    fast.rest()
    assert fast.behind_seconds == 0.0


def test_when_all_seats_are_taken_by_peers_that_send_nobody_else_is_let_in_and_nobody_waits() -> None:
    seats: Seats[Sitter] = Seats(2)
    sitters = sit(seats, 2)
    begun = time.monotonic()
    assert seats.take(Sitter(seats), "B", "10.0.0.2") is None
    assert time.monotonic() - begun < PATIENCE_SECONDS
    assert not any(one.was_told for one in sitters)


def test_the_one_furthest_behind_makes_room() -> None:
    seats: Seats[Sitter] = Seats(3)
    sitters = [*sit(seats, 1, 2.0), *sit(seats, 1, 9.0), *sit(seats, 1)]
    new = seats.take(Sitter(seats), "B", "10.0.0.2")
    assert isinstance(new, Peer)
    assert new.name == "B@10.0.0.2"
    assert [one.was_told for one in sitters] == [False, True, False]


def test_each_of_those_who_wait_gets_the_seat_of_one_who_is_behind() -> None:
    seats: Seats[Sitter] = Seats(8)
    sitters = sit(seats, 8, 5.0)
    found: list[Peer | None] = []
    threads = [
        threading.Thread(target=lambda: found.append(seats.take(Sitter(seats), "B", "10.0.0.2")))
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found)
    assert sum(one.was_told for one in sitters) == 5
    assert len(seats.peers) == 8


def test_an_address_at_its_own_bound_takes_seats_from_its_own_only() -> None:
    seats: Seats[Sitter] = Seats(4, 2)
    sitters = sit(seats, 2, 5.0)
    other = Sitter(seats, 9.0)
    assert seats.take(other, "C", "10.0.0.9") is not None
    assert seats.take(Sitter(seats), "A", "10.0.0.1") is not None
    assert sum(one.was_told for one in sitters) == 1
    assert not other.was_told
