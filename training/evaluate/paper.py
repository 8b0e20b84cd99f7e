"""The report on paper: the same headlines, tables, charts and pictures as the page, as PDF."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from PIL import Image as Pictures
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import inch, mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import (
    Flowable,
    Image,
    KeepTogether,
    Paragraph,
    SimpleDocTemplate,
    Spacer,
    Table,
    TableStyle,
)

from training.evaluate.charts import png
from training.evaluate.section import Section
from training.evaluate.section import Table as Rows

if TYPE_CHECKING:
    from training.evaluate.report import Evaluation

PLAIN, BOLD = "Judged", "Judged-Bold"
INK, FAINT, RULE, HEAD = (colors.HexColor(c) for c in ("#17202b", "#5b6876", "#dde3ea", "#eef2f6"))
MARGIN = 18 * mm
WIDTH = A4[0] - 2 * MARGIN - 12  # a frame has 6 points of padding on either side
GAP = 8.0
TITLE = ParagraphStyle("title", fontName=BOLD, fontSize=16, leading=20, textColor=INK)
HEADING = ParagraphStyle(
    "heading",
    fontName=BOLD,
    fontSize=11,
    leading=14,
    textColor=INK,
    spaceBefore=10,
    spaceAfter=3,
    keepWithNext=1,
)
TEXT = ParagraphStyle("text", fontName=PLAIN, fontSize=8.5, leading=11.5, textColor=INK, spaceAfter=3)
SMALL = ParagraphStyle("small", parent=TEXT, fontSize=7.2, leading=9.2, spaceAfter=0)
NUMBER = ParagraphStyle("number", parent=SMALL, alignment=2)
LEAD = ParagraphStyle("lead", parent=TEXT, keepWithNext=1)
TOP = ParagraphStyle("top", fontName=BOLD, fontSize=14, leading=18, textColor=INK)
LINES = TableStyle(
    [
        ("LINEBELOW", (0, 0), (-1, -1), 0.4, RULE),
        ("BACKGROUND", (0, 0), (-1, 0), HEAD),
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("LEFTPADDING", (0, 0), (-1, -1), 3),
        ("RIGHTPADDING", (0, 0), (-1, -1), 3),
        ("TOPPADDING", (0, 0), (-1, -1), 2),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 3),
    ]
)


def report_pdf(evaluation: Evaluation) -> bytes:
    """Return the report as PDF; equal input gives equal bytes. Nothing in it is active: no script, no link, no form."""
    from matplotlib import get_data_path

    from training.evaluate.report import RESEARCH_USE, title

    for name, file in ((PLAIN, "DejaVuSans.ttf"), (BOLD, "DejaVuSans-Bold.ttf")):
        pdfmetrics.registerFont(TTFont(name, str(Path(get_data_path()) / "fonts/ttf" / file)))
    buffer = BytesIO()
    document = SimpleDocTemplate(
        buffer, pagesize=A4, leftMargin=MARGIN, rightMargin=MARGIN, topMargin=16 * mm, bottomMargin=18 * mm,
        title=title(evaluation), author="Nadir", invariant=1,
    )  # fmt: skip

    def foot(canvas: Canvas, page: Any) -> None:
        canvas.setFont(PLAIN, 7)
        canvas.setFillColor(FAINT)
        canvas.drawString(MARGIN + 6, 11 * mm, f"{RESEARCH_USE}. Not a medical device.")
        canvas.drawRightString(A4[0] - MARGIN - 6, 11 * mm, f"{title(evaluation)}   page {page.page}")

    document.build(list(_story(evaluation)), onFirstPage=foot, onLaterPages=foot)
    return buffer.getvalue()


def _story(evaluation: Evaluation) -> Iterator[Flowable]:
    from training.evaluate.report import RESEARCH_USE, title

    made_at = evaluation.made_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    counts = f"{evaluation.data['cases']} cases of {evaluation.data['patients']} patients"
    yield Paragraph(escape(title(evaluation)), TITLE)
    yield Paragraph(escape(f"{counts}. {made_at}. {RESEARCH_USE}. Not a medical device."), TEXT)
    if evaluation.headlines:
        yield Spacer(1, 4)
        yield _tops(evaluation)
    yield Paragraph("What is not known", HEADING)
    for sentence in evaluation.limits:
        yield Paragraph(escape(sentence), TEXT, bulletText="\N{BULLET}")
    for section in evaluation.sections:
        yield from _section(section)
    yield Paragraph("What was judged, on what, how", HEADING)
    for part in (evaluation.model, evaluation.data, evaluation.made):
        rows = [
            [Paragraph(escape(k.replace("_", " ")), SMALL), Paragraph(escape(str(v)), SMALL)]
            for k, v in part.items()
        ]
        yield Table(
            rows,
            colWidths=[WIDTH * 0.22, WIDTH * 0.78],
            style=TableStyle(LINES.getCommands()[:1] + LINES.getCommands()[2:]),
        )
        yield Spacer(1, 6)


def _tops(evaluation: Evaluation) -> Flowable:
    cells = [
        [
            Paragraph(escape(top.name), SMALL),
            Paragraph(escape(top.value), TOP),
            Paragraph(escape(top.between), SMALL),
        ]
        for top in evaluation.headlines
    ]
    box = TableStyle(
        [("BOX", (i, 0), (i, 0), 0.4, RULE) for i in range(len(cells))]
        + [("VALIGN", (0, 0), (-1, -1), "TOP")]
    )
    return Table([cells], colWidths=[WIDTH / len(cells)] * len(cells), style=box)


def _section(section: Section) -> Iterator[Flowable]:
    yield Paragraph(escape(section.title), HEADING)
    if section.text:
        yield Paragraph(escape(section.text), LEAD if section.pictures or section.tables else TEXT)
    for table in section.tables:
        yield _table(table)
        if table.note:
            yield Paragraph(escape(table.note), SMALL)
    if section.charts:
        drawn = [
            [
                _image(png(chart), min(chart.size_inches[0] * inch * 0.75, (WIDTH - GAP) / 2)),
                Paragraph(escape(chart.caption), SMALL),
            ]
            for chart in section.charts
        ]
        yield from _pairs(drawn)
    yield from _pairs(
        [
            [_image(p.png, (WIDTH - GAP) / 2), Spacer(1, 2), Paragraph(escape(p.caption), SMALL)]
            for p in section.pictures
        ]
    )


def _pairs(cells: list[list[Flowable]]) -> Iterator[Flowable]:
    for i in range(0, len(cells), 2):
        row = cells[i : i + 2] + [[]] * (2 - len(cells[i : i + 2]))
        flush = TableStyle([("LEFTPADDING", (0, 0), (-1, -1), 0), ("VALIGN", (0, 0), (-1, -1), "TOP")])
        yield KeepTogether([Spacer(1, 4), Table([row], colWidths=[WIDTH / 2] * 2, style=flush)])


def _table(table: Rows) -> Flowable:
    head = [Paragraph(f"<b>{escape(cell)}</b>", NUMBER if i else SMALL) for i, cell in enumerate(table.head)]
    rows = [
        [Paragraph(_two_lines(cell), NUMBER if i else SMALL) for i, cell in enumerate(row)]
        for row in table.rows
    ]
    others = len(table.head) - 1
    first = WIDTH if not others else max(WIDTH * 0.14, WIDTH - others * 24.5 * mm)
    widths = [first, *([(WIDTH - first) / others] * others if others else [])]
    return Table([head, *rows], colWidths=widths, style=LINES, repeatRows=1)


def _two_lines(cell: str) -> str:
    """Return a cell with its interval on a line of its own."""
    value, opening, ends = cell.partition(" [")
    if not opening:
        return escape(value)
    return f'{escape(value)}<br/><font size="6" color="#5d6a78">[{escape(ends)}</font>'


def _image(data: bytes, width: float) -> Image:
    with Pictures.open(BytesIO(data)) as opened:
        columns, rows = opened.size
    return Image(BytesIO(data), width=width, height=width * rows / columns)


__all__ = ["report_pdf"]
