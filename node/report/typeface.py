"""The typefaces of pictures and documents: DejaVu where matplotlib is installed, else the Vera that reportlab has.

DejaVu also writes Greek, Cyrillic, Hebrew and Arabic; neither writes Chinese, Japanese or Korean: `drawable` says so.
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path

from plugins.errors import Broken

CANDIDATES = (
    ("matplotlib", "mpl-data/fonts/ttf", {False: "DejaVuSans.ttf", True: "DejaVuSans-Bold.ttf"}),
    ("reportlab", "fonts", {False: "Vera.ttf", True: "VeraBd.ttf"}),
)
NOT_DRAWABLE = "(not drawable here)"


@lru_cache(maxsize=2)
def typeface(bold: bool = False) -> Path:
    """Return a TrueType file that an installed package brings along. Raises Broken when there is none."""
    for package, folder, names in CANDIDATES:
        found = find_spec(package)  # its typefaces are wanted, not the half second of its import
        for root in (found.submodule_search_locations or ()) if found else ():
            file = Path(root) / folder / names[bold]
            if file.is_file():
                return file
    raise Broken("no typeface is installed; run the installation again")


@lru_cache(maxsize=1)
def written() -> frozenset[int]:
    """Return the code points that the typeface, bold or not, can write."""
    from reportlab.pdfbase.ttfonts import TTFontFace  # pictures alone have no need of it at their start

    faces = [TTFontFace(str(typeface(bold))).charToGlyph for bold in (False, True)]
    return frozenset(faces[0]).intersection(faces[1])


def drawable(text: str) -> str:
    """Return text with `NOT_DRAWABLE` for each stretch that the typeface would draw as empty boxes."""
    spaced = "".join(" " if c.isspace() and not c.isascii() else c for c in text)
    if spaced.isascii():
        return spaced
    runs = groupby(spaced, lambda c: not c.isprintable() or ord(c) in written())
    parts = ["".join(run) if is_written else NOT_DRAWABLE for is_written, run in runs]
    again = re.escape(NOT_DRAWABLE)
    return re.sub(rf"{again}(\s+{again})+", NOT_DRAWABLE, "".join(parts))


__all__ = ["NOT_DRAWABLE", "drawable", "typeface", "written"]
