"""The report on paper: the same headlines, tables, charts and pictures as the page, as PDF."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
    CondPageBreak,
    Flowable,
    Image,
    SimpleDocTemplate,
    Spacer,
    Table,
    TableStyle,
)

from store.reading_order import in_order, joined
from training.evaluate.charts import png
from training.evaluate.paragraph import Paragraph
from training.evaluate.section import Headline, Section
from training.evaluate.section import Table as Rows

if TYPE_CHECKING:
    from training.evaluate.report import Evaluation

PLAIN, BOLD = "Judged", "Judged-Bold"
INK, FAINT, RULE, HEAD = (colors.HexColor(c) for c in ("#17202b", "#5b6876", "#dde3ea", "#eef2f6"))
MARGIN = 18 * mm
WIDTH = A4[0] - 2 * MARGIN - 12  # a frame has 6 points of padding on either side
GAP = 8.0
TOPS_ACROSS = 5
LEAST = 62 * mm
"""Room that a heading needs with what is under it; with less of it a new page begins."""
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
POINT = ParagraphStyle("point", parent=TEXT, leftIndent=9)
SMALL = ParagraphStyle("small", parent=TEXT, fontSize=7.2, leading=9.2, spaceAfter=0)
NUMBER = ParagraphStyle("number", parent=SMALL, alignment=2)
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
    """Return the report as PDF, as `document_pdf` does."""
    from training.evaluate.report import RESEARCH_USE, title

    return document_pdf(
        title(evaluation), f"{RESEARCH_USE}. Not a medical device.", lambda: _story(evaluation)
    )


def document_pdf(title: str, notice: str, story: Callable[[], Iterable[Flowable]]) -> bytes:
    """Return a document as PDF, with the notice and the title at the foot of every page; equal input, equal bytes.

    Nothing in it is active: no script, no link, no form. `story` is called when the letters are known.
    """
    from matplotlib import get_data_path

    for name, file in ((PLAIN, "DejaVuSans.ttf"), (BOLD, "DejaVuSans-Bold.ttf")):
        pdfmetrics.registerFont(TTFont(name, str(Path(get_data_path()) / "fonts/ttf" / file)))
    buffer = BytesIO()
    document = SimpleDocTemplate(
        buffer, pagesize=A4, leftMargin=MARGIN, rightMargin=MARGIN, topMargin=16 * mm, bottomMargin=18 * mm,
        title=title, author="Nadir", invariant=1,
    )  # fmt: skip

    def foot(canvas: Canvas, page: Any) -> None:
        canvas.setFont(PLAIN, 7)
        canvas.setFillColor(FAINT)
        canvas.drawString(MARGIN + 6, 11 * mm, notice)
        canvas.drawRightString(A4[0] - MARGIN - 6, 11 * mm, f"{in_order(joined(title))}   page {page.page}")

    document.build(list(story()), onFirstPage=foot, onLaterPages=foot)
    return buffer.getvalue()


def _story(evaluation: Evaluation) -> Iterator[Flowable]:
    from training.evaluate.report import FROM_CARD, OF_THE_CARD, RESEARCH_USE, title

    made_at = evaluation.made_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    counts = f"{evaluation.data['cases']} cases of {evaluation.data['patients']} patients"
    yield Paragraph(escape(title(evaluation)), TITLE)
    yield Paragraph(escape(f"{counts}. {made_at}. {RESEARCH_USE}. Not a medical device."), TEXT)
    if evaluation.headlines:
        yield Spacer(1, 4)
        yield tops(evaluation.headlines)
    yield Paragraph("What is not known", HEADING)
    yield from _points(evaluation.own_limits)
    if evaluation.card_limits:
        yield Paragraph(OF_THE_CARD, HEADING)
        yield Paragraph(FROM_CARD, TEXT)
        yield from _points(evaluation.card_limits)
    for section in evaluation.sections:
        yield from section_story(section)
    yield Paragraph("What was judged, on what, how", HEADING)
    for part in (evaluation.model, evaluation.data, evaluation.made):
        yield from facts(part)


def facts(part: Mapping[str, str]) -> Iterator[Flowable]:
    """Yield names and values, one under the other."""
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


def tops(headlines: Sequence[Headline]) -> Flowable:
    """Return the figures at the top."""
    cells = [
        [
            Paragraph(escape(top.name), SMALL),
            Paragraph(escape(top.value), TOP),
            Paragraph(escape(top.between), SMALL),
        ]
        for top in headlines
    ]
    across = min(TOPS_ACROSS, len(cells))
    rows = [cells[i : i + across] for i in range(0, len(cells), across)]
    rows[-1] += [[] for _ in range(across - len(rows[-1]))]
    box = TableStyle([("GRID", (0, 0), (-1, -1), 0.4, RULE), ("VALIGN", (0, 0), (-1, -1), "TOP")])
    return Table(rows, colWidths=[WIDTH / across] * across, style=box)


def _points(sentences: Iterable[str]) -> Iterator[Flowable]:
    for sentence in sentences:
        yield Paragraph(escape(sentence), POINT, bulletText="\N{BULLET}")


def section_story(section: Section) -> Iterator[Flowable]:
    """Yield a section with its tables, charts and pictures."""
    if section.tables or section.charts or section.pictures:
        yield CondPageBreak(LEAST)
    yield Paragraph(escape(section.title), HEADING)
    if section.text:
        yield Paragraph(escape(section.text), TEXT)
    yield from _points(section.points)
    for table in section.tables:
        yield _table(table)
        if table.note:
            yield Paragraph(escape(table.note), SMALL)
    half, drawn = (WIDTH - GAP) / 2, []
    for chart in section.charts:
        if chart.is_wide:
            yield _image(png(chart), min(chart.size_inches[0] * inch * 0.75, WIDTH))
            yield Paragraph(escape(chart.caption), SMALL)
            continue
        width = min(chart.size_inches[0] * inch * 0.75, half)
        drawn.append([_image(png(chart), width), Paragraph(escape(chart.caption), SMALL)])
    for picture in section.pictures:
        drawn.append([_image(picture.png, half), Spacer(1, 2), Paragraph(escape(picture.caption), SMALL)])
    yield from _pairs(drawn)


def _pairs(cells: list[list[Flowable]]) -> Iterator[Flowable]:
    for i in range(0, len(cells), 2):
        row = cells[i : i + 2] + [[]] * (2 - len(cells[i : i + 2]))
        flush = TableStyle([("LEFTPADDING", (0, 0), (-1, -1), 0), ("VALIGN", (0, 0), (-1, -1), "TOP")])
        yield Table([row], colWidths=[WIDTH / 2] * 2, style=flush, spaceBefore=4)


def _table(table: Rows) -> Flowable:
    styles = [SMALL] + [SMALL if table.words else NUMBER] * (len(table.head) - 1)
    head = [
        Paragraph(f"<b>{escape(cell)}</b>", style) for cell, style in zip(table.head, styles, strict=True)
    ]
    rows = [
        [
            Paragraph(escape(cell) if table.words else _cell(cell, len(row)), style)
            for cell, style in zip(row, styles, strict=True)
        ]
        for row in table.rows
    ]
    others = len(table.head) - 1
    first = WIDTH if not others else max(WIDTH * 0.14, WIDTH - others * 24.5 * mm)
    widths = [first, *([(WIDTH - first) / others] * others if others else [])]
    return Table(
        [head, *rows], colWidths=_widths(table) if table.words else widths, style=LINES, repeatRows=1
    )


def _widths(table: Rows) -> list[float]:
    """Return widths of columns of words: by the root of their longest text, so that a sentence does not take all."""
    longest = [max(len(cell) for cell in column) for column in zip(table.head, *table.rows, strict=True)]
    share = [max(n, 9) ** 0.5 for n in longest]
    return [WIDTH * one / sum(share) for one in share]


def _cell(text: str, columns: int) -> str:
    """Return a cell with its interval in small letters, on a line of its own where columns are narrow."""
    value, opening, ends = text.partition(" [")
    if not opening:
        return escape(value)
    gap = "<br/>" if columns > 3 else " "
    return f'{escape(value)}{gap}<font size="6" color="#5d6a78">[{escape(ends)}</font>'


def _image(data: bytes, width: float) -> Image:
    with Pictures.open(BytesIO(data)) as opened:
        columns, rows = opened.size
    return Image(BytesIO(data), width=width, height=width * rows / columns)


__all__ = ["document_pdf", "facts", "report_pdf", "section_story", "tops"]
