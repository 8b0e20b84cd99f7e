"""The document that takes an earlier report on response back, because what it told is so no longer."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

from reportlab.lib.units import mm
from reportlab.platypus import Flowable, Spacer

from node.report.longitudinal import words
from node.report.longitudinal.course_view import corrections_of
from node.report.longitudinal.document import SUBJECT, corrected, header_of, identity
from node.report.longitudinal.sheet import BANNER, CAPTION, built, text_of
from node.report.longitudinal.view import Who
from node.report.pdf import HEADING, TEXT, TITLE, register_typefaces
from node.report.scripts import BORROWED, is_borrowed
from node.report.shown import RESEARCH_USE
from node.zone import UTC
from store.course import Course
from training.evaluate.paragraph import Paragraph

SENTENCE = "No lesion counts any more: no response can be told, and the earlier report in this study holds no longer."
MOVED = (
    "What the earlier report in this study compared is here no longer: studies or lesions of it were corrected or "
    "given to another patient. No response can be told in this study, and that report holds no longer."
)


def write_withdrawal(
    course: Course,
    criteria: str,
    software: str,
    made_at: datetime,
    sentence: str = SENTENCE,
    zone: ZoneInfo = UTC,
) -> bytes:
    """Return the document as PDF; equal input gives equal bytes. Times of corrections are those of the zone."""
    register_typefaces()
    story = list(_story(course, criteria, sentence, zone))
    return built(story, header_of(Who.of(course.patient)), f"{SUBJECT}, withdrawn", software, made_at)


def _story(course: Course, criteria: str, sentence: str, zone: ZoneInfo) -> Iterator[Flowable]:
    who = Who.of(course.patient)
    yield Paragraph("Course of disease: withdrawn", TITLE)
    yield Spacer(1, 2 * mm)
    days = sorted({sighting.date for sighting in course.sightings})
    yield identity(who, words.CRITERIA.get(criteria, criteria), days)
    if any(map(is_borrowed, (who.name, who.patient_id, who.issuer, *course.names.values()))):
        yield Paragraph(BORROWED, CAPTION)
    yield Paragraph(f"{RESEARCH_USE}. {words.UNVERIFIED}", BANNER)
    yield Paragraph(text_of(sentence), TEXT)
    yield Paragraph("What was corrected", HEADING)
    yield from corrected(corrections_of(course, course.names), zone)


__all__ = ["MOVED", "SENTENCE", "write_withdrawal"]
