"""A paragraph in a script from right to left reads from its first line to its last, wherever it is broken."""

from __future__ import annotations

from io import BytesIO

import pytest
from reportlab.lib.styles import ParagraphStyle
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfgen.canvas import Canvas
from reportlab.pdfgen.textobject import PDFTextObject

from node.report.pdf import PLAIN, register_typefaces
from training.evaluate.paragraph import Paragraph

TEXT = "אבג דה (וז) חטי"
SIZE = 10.0


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect what is drawn, a text for each piece of a line."""
    told: list[str] = []
    out = PDFTextObject._formatText
    monkeypatch.setattr(
        PDFTextObject, "_formatText", lambda self, text: told.append(text.strip()) or out(self, text)
    )
    register_typefaces()
    return told


def width_of(text: str) -> float:
    return pdfmetrics.stringWidth(text, PLAIN, SIZE) + 1


def paragraph(text: str) -> Paragraph:
    return Paragraph(text, ParagraphStyle("style", fontName=PLAIN, fontSize=SIZE, leading=12, allowOrphans=1))


def test_each_line_of_a_broken_text_is_put_in_order_on_its_own(drawn: list[str]) -> None:
    one = paragraph(TEXT)
    one.wrap(width_of("אבג דה "), 100)
    one.drawOn(Canvas(BytesIO()), 0, 0)
    assert drawn == ["הד גבא", "יטח (זו)"]


def test_a_text_that_is_drawn_on_every_page_is_put_in_order_once(drawn: list[str]) -> None:
    one = paragraph(TEXT)
    one.wrap(500, 100)
    one.drawOn(Canvas(BytesIO()), 0, 0)
    one.drawOn(Canvas(BytesIO()), 0, 0)
    assert drawn == ["יטח (זו) הד גבא"] * 2


def test_a_text_that_is_parted_between_two_pages_is_put_in_order_once(drawn: list[str]) -> None:
    one = paragraph(f"{TEXT} Smith {TEXT}")
    one.wrap(width_of(f"{TEXT} "), 100)
    first, second = one.split(width_of(f"{TEXT} "), 12)
    for part in (first, second):
        part.wrap(width_of(f"{TEXT} "), 100)
        part.drawOn(Canvas(BytesIO()), 0, 0)
    assert drawn == ["יטח (זו) הד גבא", "הד גבא Smith", "יטח (זו)"]


def test_markup_and_latin_words_beside_it_stay_where_they_are(drawn: list[str]) -> None:
    one = paragraph("<b>2024-06-01</b> T1 אבג דה &amp; 12 mm")
    one.wrap(500, 100)
    one.drawOn(Canvas(BytesIO()), 0, 0)
    assert drawn == ["2024-06-01", "T1 הד גבא & 12 mm"]
    assert "".join(paragraph("محمد").frags[0].text) == "\ufee3\ufea4\ufee4\ufeaa"
