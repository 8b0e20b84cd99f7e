"""The A4 sheets of a document: header, foot and page numbers, tables, lists, and text from outside."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

from reportlab import rl_config
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Flowable, SimpleDocTemplate, Table, TableStyle

from node.report.longitudinal import words
from node.report.pdf import BOLD, FAINT, HEAD, HEAD_NUMBER, INK, NUMBER, PLAIN, RULE, SMALL, TEXT, WIDTH
from node.report.scripts import marked_up, writable
from node.report.shown import RESEARCH_USE
from training.evaluate.paragraph import Paragraph

CAPTION = ParagraphStyle("caption", parent=SMALL, textColor=FAINT, spaceAfter=4)
BANNER = ParagraphStyle(
    "banner",
    parent=TEXT,
    fontName=BOLD,
    borderColor=INK,
    borderWidth=0.8,
    borderPadding=4,
    spaceBefore=8,
    spaceAfter=10,
)
HEAD_AFTER = ParagraphStyle("head-after", parent=HEAD, leftIndent=5)
SMALL_AFTER = ParagraphStyle("small-after", parent=SMALL, leftIndent=5)
"""Of a column beside numbers, which end at its edge."""
BULLET = ParagraphStyle("bullet", parent=TEXT, leftIndent=9, bulletIndent=0)


def built(story: list[Flowable], header: str, subject: str, software: str, made_at: datetime) -> bytes:
    """Return a document with a header, the research-use line and the number of each page; equal input, equal bytes."""
    buffer = BytesIO()
    document = SimpleDocTemplate(
        buffer, pagesize=A4, leftMargin=18 * mm, rightMargin=18 * mm, topMargin=18 * mm, bottomMargin=18 * mm,
        title=f"{software}: {subject}", author=software, invariant=1,
    )  # fmt: skip
    when = f"{made_at.astimezone(UTC):%Y-%m-%d %H:%M UTC}"
    foot = f"{RESEARCH_USE}. {words.UNVERIFIED} Computed by {software} on {when}."
    with _streams_as_bytes():
        document.build(story, canvasmaker=_numbered(cut_to(header, 100), foot))
    return buffer.getvalue()


@contextmanager
def _streams_as_bytes() -> Iterator[None]:
    """Write streams without the detour over ASCII, which makes pictures a quarter larger and takes half of the time."""
    # Only the library as a whole can be told so.
    before, rl_config.useA85 = rl_config.useA85, 0
    try:
        yield
    finally:
        rl_config.useA85 = before


def _numbered(header: str, foot: str) -> Callable[..., Canvas]:
    """Return a maker of canvases that write header, foot and `page of pages` once the number of pages is known."""

    class Numbered(Canvas):  # type: ignore[misc]
        def __init__(self, *args: Any, **more: Any) -> None:
            super().__init__(*args, **more)
            self._pages: list[dict[str, Any]] = []

        def showPage(self) -> None:  # noqa: N802
            self._pages.append(dict(self.__dict__))
            self._startPage()

        def save(self) -> None:
            for page in self._pages:
                self.__dict__.update(page)
                self._margins(len(self._pages))
                super().showPage()
            super().save()

        def _margins(self, pages: int) -> None:
            self.saveState()
            self.setFont(PLAIN, 6.5)
            self.setFillColor(FAINT)
            self.drawString(18 * mm, A4[1] - 12 * mm, writable(header))
            self.drawString(18 * mm, 10 * mm, foot)
            self.drawRightString(A4[0] - 18 * mm, 10 * mm, f"{self.getPageNumber()} / {pages}")
            self.restoreState()

    return Numbered


def listed(told: Sequence[str]) -> Iterator[Flowable]:
    """Yield a list of sentences, which are markup already; `None.` when there is none."""
    yield from (Paragraph(one, BULLET, bulletText="•") for one in told)
    if not told:
        yield Paragraph("None.", TEXT)


def table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    widths_mm: Sequence[float],
    *,
    numbers: Sequence[int] = (),
) -> Table:
    """Return a table; the column of width 0 takes what is left."""
    left = WIDTH / mm - sum(widths_mm)
    styles = [
        (HEAD_NUMBER, NUMBER)
        if n in numbers
        else (HEAD_AFTER, SMALL_AFTER)
        if n - 1 in numbers
        else (HEAD, SMALL)
        for n in range(len(heads))
    ]
    cells = [[Paragraph(text_of(head), style) for head, (style, _) in zip(heads, styles, strict=True)]]
    for row in rows:
        texts = [text_of(cell, 1200).replace("\n", "<br/>") for cell in row]
        cells.append([Paragraph(text, style) for text, (_, style) in zip(texts, styles, strict=True)])
    return lined(cells, [(width or left) * mm for width in widths_mm], head=True)


def lined(cells: list[list[Any]], widths: Sequence[float], *, head: bool) -> Table:
    """Return cells with thin rules, the first row repeated on every page when it is a head."""
    table = Table(cells, colWidths=widths, repeatRows=1 if head else 0, hAlign="LEFT", splitInRow=1)
    rules: list[tuple[Any, ...]] = [("LINEBELOW", (0, 0), (-1, -1), 0.25, RULE)]
    if head:
        rules.append(("LINEBELOW", (0, 0), (-1, 0), 0.6, INK))
    table.setStyle(TableStyle([*rules, ("VALIGN", (0, 0), (-1, -1), "TOP"), *padding(1.5, 4)]))
    return table


def padding(above: float, right: float) -> list[tuple[Any, ...]]:
    """Return narrow margins of all cells, points."""
    whole = ((0, 0), (-1, -1))
    return [
        ("TOPPADDING", *whole, above),
        ("BOTTOMPADDING", *whole, 2.5),
        ("LEFTPADDING", *whole, 0),
        ("RIGHTPADDING", *whole, right),
    ]


def text_of(text: str, longest: int = 400) -> str:
    """Return text from outside as a paragraph takes it, cut to a length."""
    return marked_up(cut_to(text, longest))


def cut_to(text: str, longest: int) -> str:
    """Return text with an ellipsis in place of what is too long."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


__all__ = ["BANNER", "BULLET", "CAPTION", "built", "cut_to", "lined", "listed", "padding", "table", "text_of"]
