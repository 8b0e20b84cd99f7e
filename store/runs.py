"""Runs of retraining: one of a family at a time, kept alive by whoever runs it. Only this file writes `training_run`.

    collecting -> fitting -> judging -> proposed | refused
    from each of the first three: too-few (nothing was learned), failed, abandoned

A run that is killed says nothing more: when its lease has ended the next one takes its place and calls it abandoned
since its last sign of life.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import and_
from sqlmodel import Session, col, select, update

from plugins.errors import Refused
from store.charset import storable
from store.database import aware_utc, insert_new
from store.due import has_come, is_past
from store.model_tables import TrainingRun

TEXT_LIMIT = 4000
LONGEST_LEASE = timedelta(days=1)
"""A lease that ends later than that was written by a clock that ran ahead."""


class State(StrEnum):
    """Where a run stands, or how it ended."""

    COLLECTING = "collecting"
    FITTING = "fitting"
    JUDGING = "judging"
    PROPOSED = "proposed"
    REFUSED = "refused"
    TOO_FEW = "too-few"
    FAILED = "failed"
    ABANDONED = "abandoned"


ENDS = frozenset({State.PROPOSED, State.REFUSED, State.TOO_FEW, State.FAILED, State.ABANDONED})
LEARNED = (State.PROPOSED, State.REFUSED)
"""Ends of runs that did learn: their labels are not new again."""
TRANSITIONS: frozenset[tuple[State, State]] = frozenset(
    {
        (State.COLLECTING, State.FITTING),
        (State.FITTING, State.JUDGING),
        (State.JUDGING, State.PROPOSED),
        (State.JUDGING, State.REFUSED),
        (State.COLLECTING, State.TOO_FEW),
        *(
            (state, end)
            for state in (State.COLLECTING, State.FITTING, State.JUDGING)
            for end in (State.FAILED, State.ABANDONED)
        ),
    }
)


class Overtaken(Refused):
    """The lease ended and another run took the place: what this one did is to be thrown away."""

    def __init__(self) -> None:
        super().__init__(
            "overtaken", "This run was silent for too long and another one took its place; it ends here."
        )


def begin(session: Session, family: str, owner: str, now: datetime, lease_seconds: float) -> int:
    """Return the number of a new run, which is `collecting`. Refuses `already-running`, naming owner and since when."""
    now = aware_utc(now)
    _bury(session, family, now, timedelta(seconds=lease_seconds))
    values: dict[str, Any] = {
        "family": family,
        "slot": family,
        "state": State.COLLECTING,
        "owner": owner,
        "lease_until": now + timedelta(seconds=lease_seconds),
        "begun_at": now,
    }
    pk = insert_new(session, TrainingRun, values)
    if pk is None:
        running = session.exec(select(TrainingRun).where(col(TrainingRun.slot) == family)).first()
        if running is None:  # it ended at this moment
            return begin(session, family, owner, now, lease_seconds)
        since = running.begun_at.isoformat(timespec="seconds")
        raise Refused("already-running", f"{running.owner} has been retraining {family} since {since}")
    return pk


def keep(session: Session, pk: int, owner: str, now: datetime, lease_seconds: float) -> bool:
    """Lengthen the lease; return False when the run is no longer this owner's."""
    until = aware_utc(now) + timedelta(seconds=lease_seconds)
    return _change(session, pk, owner, {"lease_until": until}) == 1


def require_held(session: Session, pk: int, owner: str) -> None:
    """Lock a run until the transaction ends. Raises Overtaken when it is no longer this owner's."""
    if session.exec(select(TrainingRun.id).where(_held(pk, owner)).with_for_update()).first() is None:
        raise Overtaken


def move(session: Session, pk: int, owner: str, to: State, **values: Any) -> None:
    """Let a run go on to its next state, or end, and write down `values` of its row.

    Raises Overtaken when it is no longer this owner's. Refuses `illegal-transition`.
    """
    require_held(session, pk, owner)
    now_in = State(get(session, pk).state)
    if (now_in, to) not in TRANSITIONS:
        raise Refused("illegal-transition", f"A run that is {now_in} does not become {to}.")
    _change(session, pk, owner, {**_storable(values), "state": to})


def end(session: Session, pk: int, owner: str, to: State, said: str, now: datetime, **values: Any) -> None:
    """End a run and free its place; refuses and raises as `move` does."""
    if to not in ENDS:
        raise Refused("illegal-transition", f"A run does not end as {to}.")
    ended = {"ended_at": aware_utc(now), "slot": None, "lease_until": None}
    move(session, pk, owner, to, said=said, **values, **ended)


def note(session: Session, pk: int, owner: str, **values: Any) -> None:
    """Write down values of a run's row. Raises Overtaken when it is no longer this owner's."""
    if _change(session, pk, owner, _storable(values)) != 1:
        raise Overtaken


def get(session: Session, pk: int) -> TrainingRun:
    """Return one run as it is in the database now. Refuses `no-such-run`."""
    run = session.get(TrainingRun, pk, populate_existing=True)
    if run is None:
        raise Refused("no-such-run", f"There is no run {pk}.")
    return run


def list_runs(session: Session, family: str | None = None, states: Sequence[State] = ()) -> list[TrainingRun]:
    """Return the runs, oldest first, of a family and in some states when they are given."""
    statement = select(TrainingRun).order_by(col(TrainingRun.id))
    if family is not None:
        statement = statement.where(col(TrainingRun.family) == family)
    if states:
        statement = statement.where(col(TrainingRun.state).in_(states))
    return list(session.exec(statement))


def newest(session: Session, family: str, states: Sequence[State] = ()) -> TrainingRun | None:
    """Return the run of a family that began last, of those in some states when they are given."""
    statement = select(TrainingRun).where(col(TrainingRun.family) == family)
    if states:
        statement = statement.where(col(TrainingRun.state).in_(states))
    return session.exec(statement.order_by(col(TrainingRun.id).desc()).limit(1)).first()


def is_alive(run: TrainingRun, now: datetime) -> bool:
    """Return whether a run goes on: it has its place, and whoever runs it was heard of in time."""
    until = run.lease_until
    return run.slot is not None and until is not None and not is_past(until, now, LONGEST_LEASE)


def _bury(session: Session, family: str, now: datetime, lease: timedelta) -> None:
    """Call a run abandoned whose lease has ended; it ended when it was last heard of, a lease of this node before.

    One that was heard of while the clock ran ahead ended now at the latest, and never before it began.
    """
    gone = and_(col(TrainingRun.slot) == family, has_come(TrainingRun.lease_until, now, LONGEST_LEASE))
    times = session.exec(select(TrainingRun.begun_at, TrainingRun.lease_until).where(gone).with_for_update())
    if (found := times.first()) is None or (until := found[1]) is None:
        return
    values = {
        "state": State.ABANDONED,
        "slot": None,
        "lease_until": None,
        "ended_at": max(found[0], min(until - lease, now)),
        "said": "It stopped without a word.",
    }
    statement = update(TrainingRun).where(gone).values(values)
    session.exec(statement, execution_options={"synchronize_session": False})


def _held(pk: int, owner: str) -> Any:
    return and_(
        col(TrainingRun.id) == pk, col(TrainingRun.owner) == owner, col(TrainingRun.slot).is_not(None)
    )


def _change(session: Session, pk: int, owner: str, values: Mapping[str, Any]) -> int:
    statement = update(TrainingRun).where(_held(pk, owner)).values(**values)
    return int(session.exec(statement, execution_options={"synchronize_session": False}).rowcount)


def _storable(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: storable(value)[:TEXT_LIMIT] if isinstance(value, str) else value
        for name, value in values.items()
    }


__all__ = [
    "LEARNED",
    "Overtaken",
    "State",
    "begin",
    "end",
    "get",
    "is_alive",
    "keep",
    "list_runs",
    "move",
    "newest",
    "note",
    "require_held",
]
