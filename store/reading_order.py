"""Scripts that are written from right to left, in the order and the forms in which they are drawn (UAX 9).

For whoever draws letters one after the other, as documents and pictures do; a browser does it by itself.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from arabic_reshaper import ArabicReshaper

FROM_THE_RIGHT = frozenset({"R", "AL", "AN"})
LETTERS_FROM_THE_RIGHT = frozenset({"R", "AL"})
APART = "\N{LEFT-TO-RIGHT MARK}"
"""Between two texts that are not to be ordered as one; it is not drawn."""
HEBREW_POINTS = re.compile("[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7]")
TURNED = re.compile(r"r(?:[^lb]*r)?")
"""Of classes: from the first letter of the right to the last, with numbers and signs between and none of the left."""
BRACKETS = dict(zip("([{", ")]}", strict=True))


def turns(text: str) -> bool:
    """Return whether any of a text is written from right to left."""
    return not text.isascii() and any(unicodedata.bidirectional(c) in FROM_THE_RIGHT for c in text)


def begins_right(text: str) -> bool:
    """Return whether the first letter of a text is one of a script from right to left (UAX 9, P2)."""
    classes = (unicodedata.bidirectional(c) for c in text)
    return next((c for c in classes if c == "L" or c in LETTERS_FROM_THE_RIGHT), "L") != "L"


def joined(text: str) -> str:
    """Return text with the forms that Arabic letters have beside each other, without points and vowel signs."""
    return _reshaper().reshape(HEBREW_POINTS.sub("", text)) if turns(text) else text


def in_order(text: str, from_right: bool | None = None) -> str:
    """Return a line of text in the order in which it is drawn, from left to right.

    `from_right`: whether the text that the line is of begins on the right; None: as the line itself does. Where it does
    not, what stands beside a script from the right, numbers as well, stays where it is.
    """
    if not turns(text):
        return text.replace(APART, "")
    from bidi.algorithm import get_display

    if begins_right(text) if from_right is None else from_right:
        return str(get_display(text, base_dir="R")).replace(APART, "")
    parts, end = [], 0
    classes = "".join(map(_class_of, text))
    for run in TURNED.finditer(classes):
        if run.start() < end:
            continue
        parts.append(text[end : run.start()])
        end = _closed(text, run.start(), run.end())
        parts.append(str(get_display(text[run.start() : end], base_dir="R")))
    return "".join([*parts, text[end:]]).replace(APART, "")


def _class_of(character: str) -> str:
    found = unicodedata.bidirectional(character)
    return "r" if found in LETTERS_FROM_THE_RIGHT else {"L": "l", "B": "b"}.get(found, "n")


def _closed(text: str, start: int, end: int) -> int:
    """Return where a run ends with the brackets behind it that close those inside."""
    run = text[start:end]
    missing = [BRACKETS[c] for c in run if c in BRACKETS and run.count(c) > run.count(BRACKETS[c])]
    while missing and end < len(text) and text[end] == missing.pop():
        end += 1
    return end


@lru_cache(maxsize=1)
def _reshaper() -> ArabicReshaper:
    from arabic_reshaper import ArabicReshaper

    return ArabicReshaper({"ARABIC LIGATURE ALLAH": False})  # no typeface here has it as one letter


__all__ = ["APART", "begins_right", "in_order", "joined", "turns"]
