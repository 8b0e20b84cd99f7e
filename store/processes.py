"""Which processes of the node are alive, on which host, in which roles: each keeps a row as long as it lives."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlmodel import Field, Session, SQLModel, col, delete, select, update

from store.database import aware_utc, insert_new
from store.tables import UtcDateTime

FORGOTTEN = timedelta(days=1)
"""A process that was killed is told of for so long."""
SILENT = timedelta(seconds=60)
"""A process without a sign of life for so long is called silent."""


class NodeProcess(SQLModel, table=True):
    """One process of the node. Written by this module only."""

    __tablename__ = "node_process"
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True, description="host and number of the process")
    roles: str = Field(description="with commas between")
    version: str
    started_at: datetime = Field(sa_type=UtcDateTime)
    alive_at: datetime = Field(sa_type=UtcDateTime)


@dataclass(frozen=True, kw_only=True)
class Process:
    """One process as people are shown it."""

    name: str
    """Host and number of the process."""
    roles: tuple[str, ...]
    """What it does."""
    version: str
    """Version of Nadir."""
    started_at: datetime
    """When it began."""
    alive_at: datetime
    """Its last sign of life."""
    is_alive: bool
    """False when that is too long ago."""


def beat(session: Session, name: str, roles: tuple[str, ...], version: str, now: datetime) -> None:
    """Say that a process is alive; what was not heard of for a day is forgotten."""
    now = aware_utc(now)
    known = update(NodeProcess).where(col(NodeProcess.name) == name).values(alive_at=now)
    if session.exec(known, execution_options={"synchronize_session": False}).rowcount:
        return
    session.exec(delete(NodeProcess).where(col(NodeProcess.alive_at) < now - FORGOTTEN))
    row: dict[str, Any] = {"name": name, "roles": ",".join(roles), "version": version}
    insert_new(session, NodeProcess, {**row, "started_at": now, "alive_at": now})


def ended(session: Session, name: str) -> None:
    """Forget a process that ends on purpose."""
    session.exec(delete(NodeProcess).where(col(NodeProcess.name) == name))


def processes(session: Session, now: datetime) -> tuple[Process, ...]:
    """Return every process that is known of, by name."""
    rows = session.exec(select(NodeProcess).order_by(col(NodeProcess.name)))
    return tuple(
        Process(
            name=row.name,
            roles=tuple(row.roles.split(",")),
            version=row.version,
            started_at=row.started_at,
            alive_at=row.alive_at,
            is_alive=row.alive_at > aware_utc(now) - SILENT,
        )
        for row in rows
    )


__all__ = ["NodeProcess", "Process", "beat", "ended", "processes"]
