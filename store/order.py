"""Which of two studies of a patient is the earlier one: by date, then time, then Study Instance UID."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Tuple, literal, tuple_
from sqlmodel import col

from store.tables import Study

Order = tuple[str, str, str]
"""Study Date, Study Time and Study Instance UID; text, so that it sorts like the studies."""


def order_of(study: Study) -> Order:
    """Return where a study stands among those of its patient; one without a date before all."""
    on = "" if study.study_date is None else study.study_date.isoformat()
    return (on, study.study_time, study.study_instance_uid)


def is_before(study: type[Study], other: type[Study]) -> ColumnElement[bool]:
    """Return the condition that a study is earlier than another one; none without a date is."""
    return _key(study) < _key(other)


def is_before_this(study: type[Study], this: Study) -> ColumnElement[bool]:
    """Return the condition that a study is earlier than this one."""
    return _key(study) < tuple_(
        literal(this.study_date), literal(this.study_time), literal(this.study_instance_uid)
    )


def _key(study: type[Study]) -> Tuple:
    return tuple_(col(study.study_date), col(study.study_time), col(study.study_instance_uid))


__all__ = ["Order", "is_before", "is_before_this", "order_of"]
