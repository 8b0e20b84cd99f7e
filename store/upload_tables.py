"""The SQL tables of uploads, and the states that they and their files are in."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, UniqueConstraint
from sqlmodel import Field, SQLModel

from store.tables import UtcDateTime

OPEN, CLOSING, WHOLE, CANCELLED, EXPIRED = "open", "closing", "whole", "cancelled", "expired"
ARRIVING, UNPACKING, WAITING, CONVERTING = "arriving", "unpacking", "waiting", "converting"
KEPT, KNOWN, REFUSED, SKIPPED, UNPACKED = "kept", "known", "refused", "skipped", "unpacked"
DUE = (UNPACKING, CONVERTING)
"""States of files that the node has still to deal with."""


class Upload(SQLModel, table=True):
    """One upload. Only `store.uploads` writes it."""

    id: int | None = Field(default=None, primary_key=True)
    author: str = Field(description="account or token that began it")
    state: str = Field(default=OPEN, description="open, closing, whole, cancelled or expired")
    delivered: bool = Field(default=True, description="whether its results go to the destinations")
    association_pk: int = Field(
        foreign_key="association.id", description="holds its studies back while it is open"
    )
    created_at: datetime = Field(sa_type=UtcDateTime)
    touched_at: datetime = Field(sa_type=UtcDateTime, index=True, description="last sign of life")
    ended_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class UploadFile(SQLModel, table=True):
    """One file of an upload, or one member of a zip file. Only `store.uploads` writes it."""

    __tablename__ = "upload_file"
    __table_args__ = (UniqueConstraint("upload_pk", "number", "member"),)
    id: int | None = Field(default=None, primary_key=True)
    upload_pk: int = Field(foreign_key="upload.id")
    number: int = Field(description="which file, as the sender counts")
    member: int = Field(default=0, description="which member of the zip file, from 1; 0 for the file itself")
    name: str = Field(description="as the sender calls it; never a path here")
    size_bytes: int = Field(sa_type=BigInteger)
    sha256: str = Field(
        default="", description="of the file as it was sent; empty while it comes, and of what was not sent"
    )
    state: str = Field(
        description="arriving, unpacking, waiting (nobody said what it is), converting, "
        "kept, known (held already), refused, skipped or unpacked"
    )
    code: str = Field(default="", description="why it was refused or skipped")
    sentence: str = Field(default="", description="the same for people, or what is to be known of it")
    said: str = Field(default="", description="JSON: what a person said that a NIfTI image is")
    study_pk: int | None = Field(default=None, foreign_key="study.id", index=True)
    instance_pk: int | None = Field(default=None, foreign_key="instance.id", index=True)
