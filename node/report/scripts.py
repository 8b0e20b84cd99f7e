"""Text of any script in a document: what its typefaces cannot write is given to the viewer's own for East Asia."""

from __future__ import annotations

from itertools import groupby
from xml.sax.saxutils import escape

from reportlab.graphics.shapes import Drawing, Group, String
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont

from node.report.page import CONTROL
from node.report.typeface import drawable, written
from store.reading_order import in_order, joined

EAST_ASIA = (
    (0x3040, 0x30FF, "HeiseiMin-W3"),
    (0xAC00, 0xD7AF, "HYSMyeongJo-Medium"),
    (0x1100, 0x11FF, "HYSMyeongJo-Medium"),
    (0x3000, 0x303F, "STSong-Light"),
    (0x3400, 0x9FFF, "STSong-Light"),
    (0xF900, 0xFAFF, "STSong-Light"),
    (0xFF61, 0xFF9F, "HeiseiMin-W3"),
    (0xFF00, 0xFFEF, "STSong-Light"),
)
"""Blocks of Unicode with the standard CID font that has them; a viewer brings it, a document does not."""
BORROWED = (
    "Boxes or gaps in a name or text are Chinese, Japanese or Korean that this viewer has no typeface for; "
    "the attributes of the study hold it whole."
)


def marked_up(text: str) -> str:
    """Return text from outside as a paragraph takes it: no markup, no control characters, each run with its font."""
    parts = []
    for font, run in groupby(CONTROL.sub(" ", text), _font_of):
        words = "".join(run)
        parts.append(
            escape(drawable(words)) if font is None else f'<font name="{font}">{escape(words)}</font>'
        )
    return "".join(parts)


def is_borrowed(text: str) -> bool:
    """Return whether a viewer needs typefaces of its own for a text: then `BORROWED` is to stand beside it."""
    return any(_font_of(character) is not None for character in CONTROL.sub(" ", text))


def writable(text: str) -> str:
    """Return a line without control characters as it is drawn, with a plain word for what its typeface lacks."""
    return in_order(joined(drawable(CONTROL.sub(" ", text))))


def in_order_on(drawing: Drawing) -> Drawing:
    """Return a chart with its words as a document draws them; on a page the browser orders them."""
    _put_in_order(drawing)
    return drawing


def _put_in_order(shape: Group) -> None:
    for part in shape.contents:
        if isinstance(part, String):
            part.text = in_order(joined(part.text))
        elif isinstance(part, Group):
            _put_in_order(part)


def _font_of(character: str) -> str | None:
    """Return the CID font of a character, made known; None for what the document's own typeface writes, or nobody."""
    code = ord(character)
    if code in written():
        return None
    name = next((font for low, high, font in EAST_ASIA if low <= code <= high), None)
    if name is not None and name not in pdfmetrics.getRegisteredFontNames():
        pdfmetrics.registerFont(UnicodeCIDFont(name))
    return name


__all__ = ["BORROWED", "in_order_on", "is_borrowed", "marked_up", "writable"]
