"""Bring the courses in short up to date, a little at a time: whoever looks at the cohort has it reckoned on."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from importlib.metadata import version

from sqlmodel import Session

from node.report.longitudinal.cohort import followed
from plugins.errors import Refused
from store import cohort_rows
from store.cohort_rows import Short
from store.course import course
from store.database import Database
from store.objects import ObjectStore
from store.told import judge


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far it has come."""

    persons: int
    """Persons of whom anything is known."""
    left: int
    """Those whose row is still that of an earlier state, or is not there."""


class Reckoner:
    """Keeps the rows of `store.cohort_rows` up to date; one thread at a time.

    Parameters
    ----------
    database
        Where courses are read from, and their rows are written to.
    objects
        Where what others drew and measured is.

    """

    def __init__(self, database: Database, objects: ObjectStore) -> None:
        self._database = database
        self._objects = objects
        self._turn = threading.Lock()
        self._maker = f"Nadir {version('nadir')}"

    def state_of(self, session: Session, patient_pk: int) -> str:
        """Return the state of one person's course; empty for who has none."""
        return next(iter(cohort_rows.states(session, self._maker, [patient_pk]).values()), "")

    def reckon(self, criteria: str, seconds: float) -> Progress:
        """Reckon what is not up to date, for about so long, and return how far it has come."""
        with self._database.reading() as session:
            states = cohort_rows.states(session, self._maker)
            known = cohort_rows.known_states(session, criteria)
        stale = [pk for pk, state in states.items() if known.get(pk) != state]
        gone = known.keys() - states.keys()
        if not (stale or gone) or not self._turn.acquire(blocking=False):
            return Progress(persons=len(states), left=len(stale))
        try:
            done = self._shorts(stale, criteria, time.monotonic() + seconds)
            with self._database.transaction() as session:
                cohort_rows.forget(session, criteria, gone)
                for short in done:
                    cohort_rows.save(session, criteria, states[short.patient_pk], short)
        finally:
            self._turn.release()
        return Progress(persons=len(states), left=len(stale) - len(done))

    def _shorts(self, patient_pks: list[int], criteria: str, until: float) -> list[Short]:
        done: list[Short] = []
        for patient_pk in patient_pks:
            if done and time.monotonic() > until:
                break
            with self._database.reading() as session:
                done.append(short_of(session, patient_pk, criteria, self._objects))
        return done


def short_of(session: Session, patient_pk: int, criteria: str, objects: ObjectStore) -> Short:
    """Return a person's course in short, by the same rules as his report."""
    known = course(session, patient_pk, objects)
    lesions = len({one.lesion for one in known.sightings if one.counts})
    try:
        response = judge(known, criteria)
    except Refused as reason:
        return Short(patient_pk=patient_pk, lesions=lesions, refusal=reason.sentence)
    baseline = response.baseline.date
    if not response.follow_up:
        return Short(patient_pk=patient_pk, lesions=lesions, baseline=baseline)
    one = followed(response)
    return Short(
        patient_pk=patient_pk,
        baseline=baseline,
        days=one.days,
        lesions=lesions,
        best_percent=one.best_percent,
        best_overall=one.best_overall,
        best_overall_confirmed=one.best_overall_confirmed,
        progressed=one.progressed,
        verdicts=one.verdicts,
        new_days=one.new_days,
    )


__all__ = ["Progress", "Reckoner", "short_of"]
