"""The SQL tables of earlier studies that are searched for and fetched."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, UniqueConstraint
from sqlmodel import Field, SQLModel

from store.tables import UtcDateTime


class PriorSearch(SQLModel, table=True):
    """A settled study whose patient's earlier studies are asked for at one source. Written by `node.priors`."""

    __tablename__ = "prior_search"
    __table_args__ = (
        UniqueConstraint("study_pk", "source"),
        Index("ix_prior_search_ready", "state", "run_after"),
    )
    id: int | None = Field(default=None, primary_key=True)
    study_pk: int = Field(foreign_key="study.id")
    source: str = Field(description="AE@host:port or DICOMweb root, without credentials")
    state: str = Field(default="waiting", description="waiting, done or parked")
    attempt: int = Field(default=0, description="failures of one kind in a row")
    run_after: datetime = Field(sa_type=UtcDateTime)
    requested_at: datetime = Field(sa_type=UtcDateTime)
    done_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    error_code: str | None = None
    error_text: str | None = None


class Prior(SQLModel, table=True):
    """An earlier study that a search found: fetched until it is here. Written by `node.priors`."""

    __table_args__ = (
        UniqueConstraint("search_pk", "study_instance_uid"),
        Index("ix_prior_ready", "state", "run_after"),
    )
    id: int | None = Field(default=None, primary_key=True)
    search_pk: int = Field(foreign_key="prior_search.id")
    study_instance_uid: str = Field(index=True)
    state: str = Field(default="waiting", description="waiting, done or parked")
    attempt: int = Field(default=0, description="failures of one kind in a row")
    run_after: datetime = Field(sa_type=UtcDateTime)
    requested_at: datetime = Field(sa_type=UtcDateTime)
    done_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    error_code: str | None = None
    error_text: str | None = None
