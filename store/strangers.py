"""What an analysis found for somebody else: a study may have been another patient's when it was made."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement
from sqlmodel import col, exists, or_

from store.tables import Finding, Job, LesionLink


def of_others(members: Sequence[int]) -> ColumnElement[bool]:
    """Return the condition on `Job` that what it found, or linked, is of another patient than these rows."""
    return or_(
        *(
            exists().where(col(table.job_pk) == col(Job.id), col(table.patient_pk).not_in(members))
            for table in (Finding, LesionLink)
        )
    )


__all__ = ["of_others"]
