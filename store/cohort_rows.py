"""The courses of all patients in short, one row for each person and set of criteria, so that a cohort is read by SQL.

A row is made from the course whenever that changed, which its `state` tells. Nothing is lost with these rows: they are
reckoned anew from what they were made of. Only this module writes them.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any, Final

from sqlalchemy import UniqueConstraint
from sqlmodel import Field, Session, SQLModel, case, col, delete, func, select

from store.database import insert_new
from store.patients import members_of
from store.sightings import COUNTING
from store.tables import Choice, Finding, Instance, Job, LesionLink, PatientMerge, Revision, Series, Study

DRAWN_ELSEWHERE: Final = ("SEG", "SR", "RTSTRUCT")
"""Modalities of series that tell of lesions without a finding of ours."""


class CohortRow(SQLModel, table=True):
    """One person's course by one set of criteria."""

    __tablename__ = "cohort_row"
    __table_args__ = (UniqueConstraint("criteria", "patient_pk"),)
    id: int | None = Field(default=None, primary_key=True)
    patient_pk: int = Field(foreign_key="patient.id", index=True, description="who speaks for the person")
    criteria: str
    state: str = Field(description="hash of the rows that it was made of")
    refusal: str = Field(default="", description="why there is no verdict, in a sentence")
    baseline: date | None = None
    days: int = Field(default=0, description="from the baseline to the last visit")
    lesions: int = Field(default=0, description="lesions of the course")
    best_percent: float | None = Field(
        default=None, description="smallest sum up to progression, to the baseline"
    )
    best_overall: str = ""
    best_overall_confirmed: str = ""
    progressed: bool = False
    verdicts: str = Field(default="[]", description="JSON list of [day, verdict] of each later visit")
    new_days: str = Field(
        default="[]", description="JSON list of the days at which a new lesion was first told"
    )


@dataclass(frozen=True, kw_only=True)
class Short:
    """One person's course in short."""

    patient_pk: int
    """Row of the patient that speaks for the person."""
    refusal: str = ""
    """Why there is no verdict; empty when there is one."""
    baseline: date | None = None
    """Date of the first visit that the criteria judged."""
    days: int = 0
    """Days from the baseline to the last visit."""
    lesions: int = 0
    """Lesions of the course."""
    best_percent: float | None = None
    """Change of the smallest sum up to the progression to the baseline."""
    best_overall: str = ""
    """Best overall response; empty when there is none yet."""
    best_overall_confirmed: str = ""
    """The same when responses need confirmation."""
    progressed: bool = False
    """Whether there was a progression that counts."""
    verdicts: tuple[tuple[int, str], ...] = ()
    """Days since the baseline and the verdict, for each visit after it."""
    new_days: tuple[int, ...] = ()
    """Days since the baseline at which a new lesion was first told."""


def states(session: Session, maker: str, patient_pks: Collection[int] | None = None) -> dict[int, str]:
    """Return what the course of each person is made of, as a hash, by the row that speaks for them.

    `maker` is what reckons (software and protocol): of another one each state is another. With `patient_pks` of these
    persons alone. Counted in a few statements over all patients: findings and links of ours, their jobs, what others
    drew and measured, dates, choices and merges.
    """
    told: defaultdict[int, list[Any]] = defaultdict(list)
    members = members_of(session, patient_pks)
    wanted = None if patient_pks is None else [pk for own in members.values() for pk in own]
    for number, statement in enumerate(_counts(wanted)):
        for patient_pk, *numbers in session.exec(statement):
            told[patient_pk].append([number, *map(str, numbers)])
    found = {}
    for head, own in members.items():
        said = [maker, [[pk, told[pk]] for pk in own]]
        if any(told[pk] for pk in own):
            found[head] = hashlib.sha256(json.dumps(said).encode()).hexdigest()[:32]
    return found


def _counts(patient_pks: Sequence[int] | None) -> list[Any]:
    """Return statements that give a patient and numbers, which change whenever the course does."""

    def of(table: Any) -> Any:
        return True if patient_pks is None else col(table.patient_pk).in_(patient_pks)

    done = func.sum(case((col(Job.state).in_(COUNTING), col(Job.id)), else_=0))
    runs = func.sum(case((col(Job.state).in_(COUNTING), col(Job.attempt)), else_=0))
    drawn = (
        select(Study.patient_pk, func.count(), func.max(Instance.id), func.sum(Instance.id))
        .join(Series, col(Series.study_pk) == col(Study.id))
        .join(Instance, col(Instance.series_pk) == col(Series.id))
        .where(col(Series.modality).in_(DRAWN_ELSEWHERE), col(Instance.current), of(Study))
    )
    jobs = (
        select(Study.patient_pk, done, runs)
        .join(Revision, col(Revision.study_pk) == col(Study.id))
        .join(Job, col(Job.revision_pk) == col(Revision.id))
        .where(of(Study))
    )
    numbered = [
        select(table.patient_pk, func.count(), func.max(table.id), func.sum(table.id)).where(
            ~col(table.superseded), of(table)
        )
        for table in (Finding, LesionLink)
    ]
    dates = select(
        Study.patient_pk, func.count(), func.min(Study.study_date), func.max(Study.study_date)
    ).where(col(Study.study_date).is_not(None), of(Study))
    choices = select(Choice.patient_pk, func.max(Choice.id)).where(of(Choice))
    merges = select(PatientMerge.patient_pk, func.max(PatientMerge.id)).where(of(PatientMerge))
    each = (
        (drawn, Study), (jobs, Study), (numbered[0], Finding), (numbered[1], LesionLink), (dates, Study),
        (choices, Choice), (merges, PatientMerge),
    )  # fmt: skip
    return [statement.group_by(col(table.patient_pk)) for statement, table in each]


def known_states(session: Session, criteria: str) -> dict[int, str]:
    """Return the state that each row was made of."""
    statement = select(CohortRow.patient_pk, CohortRow.state).where(col(CohortRow.criteria) == criteria)
    return dict(session.exec(statement).all())


def save(session: Session, criteria: str, state: str, short: Short) -> None:
    """Write a person's row in place of the one before."""
    forget(session, criteria, [short.patient_pk])
    lists = {"verdicts": json.dumps(short.verdicts), "new_days": json.dumps(short.new_days)}
    # Another process that reckons the same wrote the same.
    insert_new(session, CohortRow, {**asdict(short), **lists, "criteria": criteria, "state": state})


def forget(session: Session, criteria: str, patient_pks: Collection[int]) -> None:
    """Delete the rows of who is no person of his own any more."""
    session.exec(
        delete(CohortRow).where(
            col(CohortRow.criteria) == criteria, col(CohortRow.patient_pk).in_(list(patient_pks))
        )
    )


def short_of(row: CohortRow) -> Short:
    """Return a row as a plain value."""
    return Short(
        patient_pk=row.patient_pk,
        refusal=row.refusal,
        baseline=row.baseline,
        days=row.days,
        lesions=row.lesions,
        best_percent=row.best_percent,
        best_overall=row.best_overall,
        best_overall_confirmed=row.best_overall_confirmed,
        progressed=row.progressed,
        verdicts=tuple((int(day), str(verdict)) for day, verdict in json.loads(row.verdicts)),
        new_days=tuple(json.loads(row.new_days)),
    )


__all__ = [
    "CohortRow", "Short", "forget", "known_states", "save", "short_of", "states",
]  # fmt: skip
