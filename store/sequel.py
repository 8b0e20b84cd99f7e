"""The next images of series that are arriving: a row for each and the time of their study, and nothing else to do.

Nearly everything that comes is such, so that it is written by statements which are compiled once and go to the driver
as they are. What turns out to be something else is left to `store.instances.record_all`, which knows all cases.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ClauseElement, bindparam, case, exists, false, insert, not_, select, true, update
from sqlalchemy.engine import Dialect
from sqlalchemy.engine.interfaces import DBAPICursor

from store.database import aware_utc
from store.instances import INSTANCE, RECEIVING, RESULT, STUDY, Arrived, Recorded, instance_values
from store.known import Rows, patient_key

GIVEN = (
    "series_pk",
    "sop_instance_uid",
    "sop_class_uid",
    "transfer_syntax_uid",
    "sha256",
    "size_bytes",
    "received_at",
    "source",
)
NOW = bindparam("now", type_=STUDY.c.last_arrival_at.type)
# Locks the study until the transaction ends: settling waits for us or we for it.
TOUCHED = (
    update(STUDY)
    .where(STUDY.c.id == bindparam("study_pk"), STUDY.c.patient_pk == bindparam("patient"))
    .where(STUDY.c.state == RECEIVING, STUDY.c.prior == false())
    .values(last_arrival_at=case((STUDY.c.last_arrival_at < NOW, NOW), else_=STUDY.c.last_arrival_at))
)
UID = bindparam("sop_instance_uid", type_=INSTANCE.c.sop_instance_uid.type)
ADDED = (
    insert(INSTANCE)
    .from_select(
        [*GIVEN, "current", "own"],
        select(*(bindparam(name, type_=INSTANCE.c[name].type) for name in GIVEN), true(), false()).where(
            *(not_(exists().where(table.c.sop_instance_uid == UID)) for table in (INSTANCE, RESULT))
        ),
    )
    .returning(INSTANCE.c.id)
)


class NoSequelError(Exception):
    """One of the images is something else; the transaction has to be rolled back."""


@dataclass(frozen=True, kw_only=True)
class Sequel:
    """An image that may be the next of its series, by the ids of rows that are known."""

    arrived: Arrived
    patient_pk: int
    study_pk: int
    series_pk: int


def sequels(arrived: Sequence[Arrived], rows: Rows) -> list[Sequel] | None:
    """Return what came as sequels, as far as it can be told without SQL; None when one cannot be one."""
    found = [_sequel(one, rows) for one in arrived]
    return None if None in found else [one for one in found if one is not None]


def _sequel(one: Arrived, rows: Rows) -> Sequel | None:
    header, association = one.header, one.association
    if one.coming != "sent" or header.own:
        return None
    patient = rows.get(patient_key(header))
    study = rows.get(("study", header.study_instance_uid))
    series = rows.get(("series", header.series_instance_uid))
    if patient is None or study is None or series is None or series[1] != study[0]:
        return None
    if association is not None and ("link", association.pk, study[0]) not in rows:
        return None
    return Sequel(arrived=one, patient_pk=patient[0], study_pk=study[0], series_pk=series[0])


class Writer:
    """Writes sequels.

    Parameters
    ----------
    dialect
        What the statements are compiled for.

    """

    def __init__(self, dialect: Dialect) -> None:
        self._touched, self._added = _Compiled(TOUCHED, dialect), _Compiled(ADDED, dialect)

    def write(self, cursor: DBAPICursor, group: Sequence[Sequel]) -> list[Recorded]:
        """Return what became of images, each of another SOP Instance UID: all of them are new.

        Raises NoSequelError when one is not: its study has settled, or is another patient's or an earlier one that
        was asked for, or something is held under its UID.
        """
        latest: dict[tuple[int, int], datetime] = {}
        for one in group:
            key, now = (one.study_pk, one.patient_pk), aware_utc(one.arrived.now)
            latest[key] = max(latest.get(key, now), now)
        for (study_pk, patient_pk), now in sorted(latest.items()):
            self._touched.execute(cursor, {"study_pk": study_pk, "patient": patient_pk, "now": now})
            if cursor.rowcount != 1:
                raise NoSequelError
        return [self._add(cursor, one) for one in group]

    def _add(self, cursor: DBAPICursor, sequel: Sequel) -> Recorded:
        one = sequel.arrived
        self._added.execute(cursor, instance_values(one, sequel.series_pk, own=False))
        row = cursor.fetchone()
        if row is None:
            raise NoSequelError
        association_pk = None if one.association is None else one.association.pk
        return Recorded(
            outcome="new", study_pk=sequel.study_pk, instance_pk=int(row[0]), association_pk=association_pk
        )


class _Compiled:
    """A statement as the driver takes it."""

    def __init__(self, statement: ClauseElement, dialect: Dialect) -> None:
        compiled: Any = statement.compile(dialect=dialect)
        self._text = str(compiled)
        self._fixed = {name: value for name, value in compiled.params.items() if value is not None}
        self._order: list[str] | None = compiled.positiontup
        self._processors: list[tuple[str, Callable[[Any], Any]]] = []
        for name, bound in compiled.binds.items():
            processor = bound.type.dialect_impl(dialect).bind_processor(dialect)
            if processor is not None:
                self._processors.append((name, processor))

    def execute(self, cursor: DBAPICursor, values: dict[str, Any]) -> None:
        values.update(self._fixed)
        for name, processor in self._processors:
            values[name] = processor(values[name])
        cursor.execute(self._text, values if self._order is None else [values[name] for name in self._order])


__all__ = ["NoSequelError", "Sequel", "Writer", "sequels"]
