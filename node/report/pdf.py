"""The report of a study as a PDF document: who, what was found, the pictures, and what was refused or is doubtful."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pictures
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import (
    Flowable,
    Image,
    KeepTogether,
    SimpleDocTemplate,
    Spacer,
    Table,
    TableStyle,
)

from node.report.overlays import pretty_unit, rounded
from node.report.page import NAMES, columns
from node.report.scripts import BORROWED, is_borrowed, marked_up
from node.report.shown import RESEARCH_USE, ShownFinding, StudyReport
from node.report.typeface import typeface
from training.evaluate.paragraph import Paragraph

PLAIN, BOLD = "Nadir", "Nadir-Bold"
INK, FAINT, RULE = colors.HexColor("#1b2530"), colors.HexColor("#5d6a78"), colors.HexColor("#c9d1d9")
WIDTH = A4[0] - 36 * mm - 12  # a frame has 6 points of padding on either side
JPEG_QUALITY = 85
LARGEST_PIXEL = 0.6
"""Points; a small picture is not blown up to the width of the page."""

TITLE = ParagraphStyle("title", fontName=BOLD, fontSize=16, leading=20, textColor=INK)
HEADING = ParagraphStyle(
    "heading",
    fontName=BOLD,
    fontSize=11,
    leading=14,
    textColor=INK,
    spaceBefore=9,
    spaceAfter=3,
    keepWithNext=1,
)
TEXT = ParagraphStyle("text", fontName=PLAIN, fontSize=9, leading=12, textColor=INK)
SMALL = ParagraphStyle("small", parent=TEXT, fontSize=7.5, leading=9.5)
NUMBER = ParagraphStyle("number", parent=SMALL, alignment=2)
HEAD = ParagraphStyle("head", parent=SMALL, fontName=BOLD)
HEAD_NUMBER = ParagraphStyle("head-number", parent=HEAD, alignment=2)


def register_typefaces() -> None:
    """Let documents and charts write in `PLAIN` and `BOLD`."""
    for name, bold in ((PLAIN, False), (BOLD, True)):
        pdfmetrics.registerFont(TTFont(name, str(typeface(bold))))
    pdfmetrics.registerFontFamily(PLAIN, normal=PLAIN, bold=BOLD, italic=PLAIN, boldItalic=BOLD)


def report_pdf(
    report: StudyReport,
    pictures: Sequence[NDArray[np.uint8]],
    *,
    made_at: datetime,
    software: str,
    note: str = "",
) -> bytes:
    """Return the report of one study as PDF; equal input gives equal bytes. `pictures` are `(R, C, 3)` RGB.

    `note` is a sentence before them, without its full stop.

    The typefaces are embedded as far as they are used. Chinese, Japanese and Korean are left to the viewer's, with a
    sentence that says so. Nothing in the document is active: no script, no link, no form.
    """
    register_typefaces()
    buffer = BytesIO()
    document = SimpleDocTemplate(
        buffer,
        pagesize=A4,
        leftMargin=18 * mm,
        rightMargin=18 * mm,
        topMargin=16 * mm,
        bottomMargin=18 * mm,
        title=f"{software}: measurements",
        author=software,
        invariant=1,
    )
    foot = f"{RESEARCH_USE}. Computed by {software} on {made_at:%Y-%m-%d %H:%M %Z}; not verified by a person."

    def finish(canvas: Canvas, _: SimpleDocTemplate) -> None:
        canvas.saveState()
        canvas.setFont(PLAIN, 7)
        canvas.setFillColor(FAINT)
        canvas.drawString(18 * mm, 10 * mm, foot)
        canvas.drawRightString(A4[0] - 18 * mm, 10 * mm, f"{canvas.getPageNumber()}")
        canvas.restoreState()

    document.build(list(_story(report, pictures, note)), onFirstPage=finish, onLaterPages=finish)
    return buffer.getvalue()


def _story(report: StudyReport, pictures: Sequence[NDArray[np.uint8]], note: str) -> Iterator[Flowable]:
    yield Paragraph("Measurements", TITLE)
    yield Spacer(1, 2 * mm)
    yield _identity(report)
    if any(map(is_borrowed, _texts(report))):
        yield Spacer(1, 1 * mm)
        yield Paragraph(BORROWED, SMALL)
    yield Paragraph("Findings", HEADING)
    lesions = [f for f in report.findings if f.measurement("long_axis")]
    regions = [f for f in report.findings if not f.measurement("long_axis")]
    if not report.findings:
        yield Paragraph("Nothing was found.", TEXT)
    for found in (lesions, regions):
        if found:
            yield _table(found)
            yield Spacer(1, 3 * mm)
    told = (("Refused", report.refused), ("Doubtful", report.doubts), ("Notes", report.notes))
    for heading, flags in told:
        if flags:
            yield Paragraph(heading, HEADING)
            yield from (Paragraph(f"{marked_up(f.sentence)} ({marked_up(f.code)})", TEXT) for f in flags)
    yield from _methods(report)
    if pictures:
        yield Paragraph("Pictures", HEADING)
        if note:
            yield Paragraph(f"{marked_up(note)}.", TEXT)
        yield from (KeepTogether([_picture(p), Spacer(1, 3 * mm)]) for p in pictures)


def _texts(report: StudyReport) -> Iterator[str]:
    """Yield every text of the document that is from outside."""
    yield from (value for _, value in _identity_rows(report))
    yield from (f.label for f in report.findings)
    yield from (f.sentence for f in (*report.refused, *report.doubts, *report.notes))


def _identity_rows(report: StudyReport) -> tuple[tuple[str, str], ...]:
    patient = report.study.patient
    return (
        ("Patient", report.patient_name.split("=")[0].replace("^", " ").strip() or "no name"),
        ("Patient ID", patient.patient_id or "none"),
        ("Study date", report.date),
        ("Study", report.description or "no description"),
        ("Study Instance UID", report.study.study_instance_uid),
    )


def _identity(report: StudyReport) -> Table:
    rows = _identity_rows(report)
    cells = [[Paragraph(name, HEAD), Paragraph(marked_up(value), SMALL)] for name, value in rows]
    table = Table(cells, colWidths=[34 * mm, WIDTH - 34 * mm], hAlign="LEFT")
    table.setStyle(TableStyle([("LINEBELOW", (0, 0), (-1, -1), 0.25, RULE), *_tight()]))
    return table


def _table(found: Sequence[ShownFinding]) -> Table:
    names = columns(found)
    head: list[Any] = [Paragraph("", HEAD), *(Paragraph(_head(name, found), HEAD_NUMBER) for name in names)]
    rows = [
        [Paragraph(marked_up(f.label), SMALL), *(Paragraph(_value(f, n), NUMBER) for n in names)]
        for f in found
    ]
    first = max(38 * mm, WIDTH - len(names) * 22 * mm)
    each = (WIDTH - first) / max(1, len(names))
    table = Table([head, *rows], colWidths=[first, *([each] * len(names))], repeatRows=1, hAlign="LEFT")
    rules = [("LINEBELOW", (0, 0), (-1, 0), 0.6, INK), ("LINEBELOW", (0, 1), (-1, -1), 0.25, RULE)]
    table.setStyle(TableStyle([*rules, ("VALIGN", (0, 0), (-1, -1), "BOTTOM"), *_tight()]))
    return table


def _tight() -> list[tuple[Any, ...]]:
    whole = ((0, 0), (-1, -1))
    return [
        ("TOPPADDING", *whole, 1.5),
        ("BOTTOMPADDING", *whole, 2.5),
        ("LEFTPADDING", *whole, 0),
        ("RIGHTPADDING", *whole, 4),
    ]


def _head(name: str, found: Sequence[ShownFinding]) -> str:
    units = {pretty_unit(m.unit) for f in found if (m := f.measurement(name)) is not None}
    unit = units.pop() if len(units) == 1 else ""
    return marked_up(NAMES.get(name, name)) + (f"<br/>{marked_up(unit)}" if unit else "")


def _value(finding: ShownFinding, name: str) -> str:
    measurement = finding.measurement(name)
    return "" if measurement is None else rounded(measurement.value)


def _methods(report: StudyReport) -> Iterator[Flowable]:
    methods: Mapping[tuple[str, str], None] = {
        (NAMES.get(m.name, m.name), m.method): None for f in report.findings for m in f.measurements
    }
    if methods:
        yield Paragraph("How it was measured", HEADING)
    for name, method in methods:
        yield Paragraph(f"<b>{marked_up(name)}</b>: {marked_up(method)}", SMALL)


def _picture(pixels: NDArray[np.uint8]) -> Image:
    buffer = BytesIO()
    Pictures.fromarray(pixels).save(buffer, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    buffer.seek(0)
    height, width = pixels.shape[:2]
    scale = min(WIDTH / width, 215 * mm / height, LARGEST_PIXEL)
    return Image(buffer, width=width * scale, height=height * scale)


__all__ = ["register_typefaces", "report_pdf"]
