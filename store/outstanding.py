"""What is still to be fetched of a study that is being received."""

from __future__ import annotations

from sqlalchemy import ColumnElement
from sqlmodel import col, exists

from store.tables import Pull, Study


def is_to_come() -> ColumnElement[bool]:
    """Return the condition that the PACS told of a study and its pull has not ended, also between two attempts."""
    of_it = col(Pull.study_instance_uid) == col(Study.study_instance_uid)
    return exists().where(of_it, col(Pull.state) == "waiting")


__all__ = ["is_to_come"]
