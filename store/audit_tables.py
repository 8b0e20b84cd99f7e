"""The SQL tables of the audit trail."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Field, SQLModel

from store.tables import UtcDateTime


class AuditRecord(SQLModel, table=True):
    """Append-only: one DICOM audit message (PS3.15 A.5). Only `store.audit` writes it."""

    __tablename__ = "audit_record"
    id: int | None = Field(default=None, primary_key=True)
    at: datetime = Field(sa_type=UtcDateTime, index=True)
    message: str = Field(description="the message as XML")
    sha256: str = Field(
        description="of the hash before, a blank and the message: a chain that shows what was changed"
    )


class AuditSink(SQLModel, table=True):
    """How far the audit trail was handed to a file or a repository. Only `store.audit` writes it."""

    __tablename__ = "audit_sink"
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True)
    sent_pk: int = Field(default=0, description="last record that was handed on")
    owner: str | None = None
    lease_until: datetime | None = Field(default=None, sa_type=UtcDateTime)
