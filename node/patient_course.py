"""A patient's longitudinal report as it is at this moment, for pages and programs alike."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from node.reckoning import Reckoner
from node.report.longitudinal.course_view import lesions_of, visits_of
from node.report.longitudinal.lesion_pictures import lesion_pictures
from node.report.longitudinal.report import build
from node.report.longitudinal.stored import ObjectFiles, objects_of
from node.report.longitudinal.view import LesionCourse, LongitudinalReport, Picture
from plugins.errors import Refused
from store.course import Course, CoursePatient, course
from store.database import Database
from store.objects import ObjectStore
from store.response.verdict import Response
from store.told import judge

MOST_KEPT = 8


@dataclass(frozen=True, kw_only=True)
class Known:
    """A course with where its pictures come from."""

    course: Course
    """The course."""
    files: ObjectFiles
    """Its images and SEGs."""
    state: str
    """Hash of the rows that it was made of: another one once anything of it changed."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """A report, or why there is none."""

    known: Known
    """The course."""
    report: LongitudinalReport | None
    """The report; None when none of the criteria gives a verdict."""
    refused: tuple[tuple[str, str], ...]
    """The criteria that give no verdict, each with its sentence."""


class Courses:
    """Reads courses, and keeps the last few while nothing of them changes.

    Parameters
    ----------
    database
        Where they are.
    objects
        Where their images are.

    """

    def __init__(self, database: Database, objects: ObjectStore) -> None:
        self._database = database
        self._objects = objects
        self._reckoner = Reckoner(database, objects)
        self._kept: OrderedDict[int, Known] = OrderedDict()
        self._turn = threading.Lock()

    def state(self, patient_pk: int) -> str:
        """Return the hash of what a course is made of; empty when nothing is known."""
        with self._database.reading() as session:
            return self._reckoner.state_of(session, patient_pk)

    def known(self, patient_pk: int) -> Known:
        """Return a course. Refuses `no-such-patient`."""
        with self._database.reading() as session:
            state = self._reckoner.state_of(session, patient_pk)
            with self._turn:
                kept = self._kept.get(patient_pk)
            if kept is not None and kept.state == state:
                return kept
            found = course(session, patient_pk, self._objects)
            made = Known(course=found, files=objects_of(session, found, self._objects), state=state)
        with self._turn:
            self._kept[patient_pk] = made
            self._kept.move_to_end(patient_pk)
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        return made

    def told(self, patient_pk: int, criteria: Sequence[str], *, with_pictures: bool = False) -> Told:
        """Return the report by several sets of criteria, the first that gives a verdict leading."""
        known = self.known(patient_pk)
        responses: list[Response] = []
        refused: list[tuple[str, str]] = []
        for name in dict.fromkeys(criteria):
            try:
                responses.append(judge(known.course, name))
            except Refused as reason:
                refused.append((name, reason.sentence))
        report = None
        if responses:
            report = build(
                known.course,
                responses,
                known.files.open_object,
                known.files.images_of,
                made_at=self._database.now(),
                with_pictures=with_pictures,
            )
        return Told(known=known, report=report, refused=tuple(refused))

    def pictures(
        self, patient_pk: int, tracking_uid: str, criteria: str
    ) -> tuple[CoursePatient, LesionCourse, dict[date, Picture]]:
        """Return whose lesion it is, the lesion, and its pictures by date. Refuses `no-such-lesion`."""
        known = self.known(patient_pk)
        visits = visits_of(known.course, ())
        lesion = next(
            (x for x in lesions_of(known.course, visits, criteria) if x.tracking_uid == tracking_uid), None
        )
        if lesion is None:
            raise Refused("no-such-lesion", "this patient has no such lesion; load the page again")
        made, _ = lesion_pictures(
            known.course, (lesion,), visits, known.files.open_object, known.files.images_of
        )
        return known.course.patient, lesion, {day: picture for (_, day), picture in made.items()}


__all__ = ["Courses", "Known", "Told"]
