"""I6 of a study: it is of a patient whom at least one of its objects names."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from sqlalchemy import select
from sqlmodel import col

from store.database import Database
from store.fsck.fault import RESTORE, Fault
from store.fsck.results import header_of
from store.instances import SETTLED
from store.known import patient_key
from store.objects import ObjectStore
from store.tables import Instance, Patient, Series, Study


def check_patients(database: Database, objects: ObjectStore) -> Iterator[Fault]:
    """Give a fault for each study of whose objects none is of its patient; those that cannot be read do not count.

    A study goes to another patient when it settles, not before. Objects of several patients in one study are another
    matter: reading refuses such a study.
    """
    with database.reading() as session:
        rows = session.execute(
            select(col(Study.id), col(Patient.issuer), col(Patient.patient_id), col(Instance.sha256))
            .join(Patient, col(Patient.id) == col(Study.patient_pk))
            .join(Series, col(Series.study_pk) == col(Study.id))
            .join(Instance, col(Instance.series_pk) == col(Series.id))
            .where(col(Instance.current), col(Study.state) == SETTLED)
            .order_by(col(Study.id), col(Instance.id))
        ).all()
    for (pk, *patient), group in itertools.groupby(rows, key=lambda row: row[:3]):
        headers = (header_of(objects, sha256) for *_, sha256 in group)
        are_of_it = (list(patient_key(one)[1:]) == patient for one in headers if one is not None)
        first = next(are_of_it, True)
        if not (first or any(are_of_it)):
            yield Fault(
                invariant="I6",
                code="study-of-another-patient",
                subject=f"study {pk}",
                sentence="The study is said to be of a patient of whom none of its objects is.",
                todo=RESTORE,
            )


__all__ = ["check_patients"]
