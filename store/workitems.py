"""Tasks that a worklist gives this node (UPS, PS3.4 Annex CC): claimed under a Transaction UID of ours, done, told.

The Transaction UID is a row before it is sent, so that a claim whose answer nobody heard is still ours to take up.
Only this file writes the `workitem` table.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Index, UniqueConstraint
from sqlmodel import Field, Session, SQLModel, and_, col, func, select, update

from plugins.errors import Refused
from store.charset import storable
from store.database import aware_utc, insert_new
from store.due import has_come
from store.tables import Event, Instance, Pull, Series, Study, UtcDateTime

CLAIMING, CLAIMED, FETCHING, ANALYSING = "claiming", "claimed", "fetching", "analysing"
COMPLETING, CANCELLING = "completing", "cancelling"
COMPLETED, CANCELLED, LOST, FORGOTTEN = "completed", "cancelled", "lost", "forgotten"
OPEN = (CLAIMING, CLAIMED, FETCHING, ANALYSING, COMPLETING, CANCELLING)
STATES = (*OPEN, COMPLETED, CANCELLED, LOST, FORGOTTEN)
TRANSITIONS: frozenset[tuple[str, str]] = frozenset(
    {
        (CLAIMING, CLAIMED),
        (CLAIMING, LOST),  # another performer was quicker, or the worklist does not give it to us
        (LOST, CLAIMING),  # it is still scheduled after a while
        (CLAIMED, FETCHING),  # we know what it asks for
        (CLAIMED, CANCELLING),  # nothing that can be done here
        (FETCHING, ANALYSING),  # its input is here
        (FETCHING, CANCELLING),
        (ANALYSING, COMPLETING),  # every result is made and lies at a destination
        (ANALYSING, CANCELLING),
        (COMPLETING, COMPLETED),
        (CANCELLING, CANCELLED),
        (CLAIMED, CANCELLED),  # the worklist itself ended it
        (FETCHING, CANCELLED),
        (ANALYSING, CANCELLED),
        (COMPLETING, CANCELLED),
        (CLAIMED, FORGOTTEN),  # the worklist knows it no longer, or no longer as ours
        (FETCHING, FORGOTTEN),
        (ANALYSING, FORGOTTEN),
        (COMPLETING, FORGOTTEN),
        (CANCELLING, FORGOTTEN),
    }
)
STOPPABLE = (CLAIMED, FETCHING, ANALYSING)
"""States in which a person or the worklist may have it cancelled."""
CLAIM_AGAIN = timedelta(hours=1)
TEXT_LIMIT = 1000


class Workitem(SQLModel, table=True):
    """A task of a worklist that this node claims, or tried to."""

    __table_args__ = (
        UniqueConstraint("worklist", "workitem_uid"),
        Index("ix_workitem_ready", "state", "run_after"),
    )
    id: int | None = Field(default=None, primary_key=True)
    worklist: str = Field(description="root of the worklist, without user and password")
    workitem_uid: str = Field(description="SOP Instance UID of the Unified Procedure Step")
    transaction_uid: str = Field(description="ours: who knows it, controls the workitem; told to nobody else")
    state: str
    label: str = Field(default="", description="Procedure Step Label, for people")
    study_instance_uid: str = Field(default="", index=True, description="empty until it is known")
    asked: str = Field(default="[]", description="JSON list of the analyses that it asks for")
    content: str = Field(default="{}", description="JSON of its codes and its input, as it was read")
    source: str = Field(default="", description="the archive that gave the input; empty when all was here")
    progress: int = Field(default=0, description="percent, as the worklist was told last")
    told: str = Field(default="", description="how it stands or ended, in a sentence")
    attempt: int = Field(default=0, description="failures in a row")
    error_code: str | None = None
    reason: str = Field(default="", description="why it is cancelled: a key of `node.ups.REASONS`")
    run_after: datetime = Field(sa_type=UtcDateTime)
    created_at: datetime = Field(sa_type=UtcDateTime)
    claimed_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    told_at: datetime | None = Field(
        default=None, sa_type=UtcDateTime, description="when the worklist last took what we told it"
    )
    ended_at: datetime | None = Field(default=None, sa_type=UtcDateTime)

    @property
    def plugins(self) -> frozenset[str]:
        """Return the analyses that it asks for."""
        return frozenset(json.loads(self.asked))


def begin(
    session: Session, worklist: str, workitem_uid: str, transaction_uid: str, *, label: str, now: datetime
) -> bool:
    """Write down that a workitem is about to be claimed; return False when it is known already.

    One that was lost and is still offered after an hour is tried again, under the new Transaction UID.
    """
    now = aware_utc(now)
    values: dict[str, Any] = {
        "transaction_uid": transaction_uid,
        "state": CLAIMING,
        "label": storable(label)[:64],
        "run_after": now,
        "created_at": now,
    }
    row = {"worklist": worklist, "workitem_uid": workitem_uid, **values}
    if insert_new(session, Workitem, row) is not None:
        return True
    lost = and_(
        col(Workitem.worklist) == worklist,
        col(Workitem.workitem_uid) == workitem_uid,
        col(Workitem.state) == LOST,
        col(Workitem.ended_at) <= now - CLAIM_AGAIN,
    )
    again = {**values, "attempt": 0, "error_code": None, "told": "", "ended_at": None}
    return _change(session, lost, again) == 1


def move(session: Session, row: Workitem, state: str, now: datetime, **values: Any) -> bool:
    """Bring a workitem into another state; return False when it left its state meanwhile: then nothing changed.

    Refuses `illegal-transition`.
    """
    if (row.state, state) not in TRANSITIONS:
        raise Refused("illegal-transition", f"A workitem that is {row.state} does not become {state}.")
    now = aware_utc(now)
    fresh = {"attempt": 0, "error_code": None, "run_after": now}
    ended = {} if state in OPEN else {"ended_at": now}
    changed = _change(session, _as_read(row), {**fresh, **ended, **_short(values), "state": state}) == 1
    if changed and state == FORGOTTEN:
        text = str(values.get("told", ""))[:500]
        session.add(Event(at=now, kind="workitem-forgotten", subject=f"workitem {row.id}", text=text))
    return changed


def stay(session: Session, row: Workitem, **values: Any) -> bool:
    """Change a workitem that stays in its state; return False when it left it meanwhile: then nothing changed."""
    return _change(session, _as_read(row), _short(values)) == 1


def stop(session: Session, workitem_pk: int, now: datetime, *, reason: str, told: str) -> Workitem:
    """Have a workitem cancelled by a person, or as the worklist asks for, and return it.

    Refuses `no-such-workitem`, and `illegal-transition` when it ends already or is not known to be ours.
    """
    row = get(session, workitem_pk)
    if row.state not in STOPPABLE or not move(session, row, CANCELLING, now, reason=reason, told=told):
        sentence = f"Workitem {workitem_pk} is {row.state}: there is nothing to be stopped."
        raise Refused("illegal-transition", sentence)
    return get(session, workitem_pk)


def get(session: Session, workitem_pk: int) -> Workitem:
    """Return one workitem as it is in the database now. Refuses `no-such-workitem`."""
    row = session.get(Workitem, workitem_pk, populate_existing=True)
    if row is None:
        raise Refused("no-such-workitem", f"There is no workitem {workitem_pk}.")
    return row


def find(session: Session, worklist: str, workitem_uid: str) -> Workitem | None:
    """Return the row of a workitem; None when nobody here tried to claim it."""
    known = and_(col(Workitem.worklist) == worklist, col(Workitem.workitem_uid) == workitem_uid)
    return session.exec(select(Workitem).where(known)).first()


def due(session: Session, worklist: str, states: Collection[str], now: datetime) -> Sequence[Workitem]:
    """Return the workitems in these states whose time has come, the longest waiting first."""
    ready = and_(
        col(Workitem.worklist) == worklist,
        col(Workitem.state).in_(list(states)),
        has_come(Workitem.run_after, now),
    )
    return session.exec(
        select(Workitem).where(ready).order_by(col(Workitem.run_after), col(Workitem.id))
    ).all()


def settled_elsewhere(
    session: Session, worklist: str, uids: Collection[str], now: datetime
) -> frozenset[str]:
    """Return those of these workitems that are not to be claimed: ours already, ended, or lost a short while ago."""
    known = and_(col(Workitem.worklist) == worklist, col(Workitem.workitem_uid).in_(list(uids)))
    rows = session.exec(select(Workitem).where(known))
    recent = aware_utc(now) - CLAIM_AGAIN
    return frozenset(
        r.workitem_uid for r in rows if r.state != LOST or r.ended_at is None or r.ended_at > recent
    )


def count_open(session: Session) -> int:
    """Return how many workitems are neither ended nor lost."""
    return int(session.exec(select(func.count(col(Workitem.id))).where(col(Workitem.state).in_(OPEN))).one())


def listed(
    session: Session, state: str | None = None, *, before: int | None = None, limit: int = 1000
) -> Sequence[Workitem]:
    """Return workitems, the newest first, from before a row on. Refuses `no-such-state`."""
    if state is not None and state not in STATES:
        raise Refused(
            "no-such-state", f"'{state}' is no state of a workitem; use one of {', '.join(STATES)}."
        )
    statement = select(Workitem).order_by(col(Workitem.id).desc()).limit(limit)
    if state is not None:
        statement = statement.where(col(Workitem.state) == state)
    if before is not None:
        statement = statement.where(col(Workitem.id) < before)
    return session.exec(statement).all()


def count(session: Session, state: str | None = None) -> int:
    """Return how many workitems there are, in one state or in all."""
    statement = select(func.count(col(Workitem.id)))
    return int(
        session.exec(statement if state is None else statement.where(col(Workitem.state) == state)).one()
    )


def of_study(session: Session, study_instance_uid: str) -> Sequence[Workitem]:
    """Return the workitems that ask for something of a study, oldest first."""
    asking = col(Workitem.study_instance_uid) == study_instance_uid
    return session.exec(select(Workitem).where(asking).order_by(col(Workitem.id))).all()


def of_studies(session: Session, study_instance_uids: Collection[str]) -> dict[str, list[Workitem]]:
    """Return the workitems that ask for something of each of these studies, the newest first."""
    asking = col(Workitem.study_instance_uid).in_(list(study_instance_uids))
    found: dict[str, list[Workitem]] = {uid: [] for uid in study_instance_uids}
    for row in session.exec(select(Workitem).where(asking).order_by(col(Workitem.id).desc())):
        found[row.study_instance_uid].append(row)
    return found


def shown(row: Workitem) -> dict[str, Any]:
    """Return a workitem as plain data for people and programs, without its Transaction UID, which is nobody else's."""
    plain = row.model_dump(mode="json", exclude={"transaction_uid", "content", "run_after"})
    return {**plain, "asked": sorted(row.plugins)}


def only_asked(session: Session, study_pk: int) -> frozenset[str] | None:
    """Return the analyses that a study is here for when only workitems brought it; None when it came to be analysed.

    It came otherwise when the PACS told of it, or when anything of it came from somebody who gave no workitem's input.
    A workitem whose input has not all come, or that was cancelled for it, asks for nothing of what came.
    """
    study = session.get_one(Study, study_pk)
    rows = [r for r in of_study(session, study.study_instance_uid) if r.source]
    if not rows or session.get(Pull, study.study_instance_uid) is not None:
        return None
    held = (
        select(Instance.source)
        .distinct()
        .join(Series, col(Series.id) == col(Instance.series_pk))
        .where(col(Series.study_pk) == study_pk, ~col(Instance.own))
    )
    ours = {_who(row.source) for row in rows}
    if any(_who(source) not in ours for source in session.exec(held)):
        return None
    served = (row for row in rows if row.state != FETCHING and row.reason != "input")
    return frozenset().union(*(row.plugins for row in served))


def wanted_by_others(session: Session, row: Workitem) -> frozenset[str]:
    """Return the analyses of a study that go on when this workitem stops: for other workitems, or by themselves."""
    study = session.exec(select(Study).where(Study.study_instance_uid == row.study_instance_uid)).first()
    if study is not None and only_asked(session, int(study.id or 0)) is None:
        return row.plugins
    others = (r for r in of_study(session, row.study_instance_uid) if r.id != row.id and r.state in STOPPABLE)
    return frozenset().union(*(other.plugins for other in others))


def _who(source: str) -> str:
    """Return the AE title of a DICOM peer, which names its port only in the settings; a URL as it is."""
    return source if "//" in source else source.partition("@")[0]


def _short(values: dict[str, Any]) -> dict[str, Any]:
    if "told" in values:
        values["told"] = storable(values["told"])[:TEXT_LIMIT]
    return values


def _as_read(row: Workitem) -> ColumnElement[bool]:
    return and_(
        col(Workitem.id) == row.id,
        col(Workitem.state) == row.state,
        col(Workitem.transaction_uid) == row.transaction_uid,
    )


def _change(session: Session, condition: ColumnElement[bool], values: dict[str, Any]) -> int:
    session.flush()
    statement = update(Workitem).where(condition).values(values)
    return int(session.exec(statement, execution_options={"synchronize_session": False}).rowcount)


__all__ = [
    "STATES",
    "TRANSITIONS",
    "Workitem",
    "begin",
    "count",
    "count_open",
    "due",
    "find",
    "get",
    "listed",
    "move",
    "of_studies",
    "of_study",
    "only_asked",
    "settled_elsewhere",
    "shown",
    "stay",
    "stop",
    "wanted_by_others",
]
