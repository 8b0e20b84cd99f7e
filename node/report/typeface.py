"""The typefaces of pictures and documents: DejaVu where matplotlib is installed, else the Vera that reportlab has.

DejaVu also writes Greek and Cyrillic; neither writes Chinese, Japanese or Korean.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from plugins.errors import Broken

CANDIDATES = (
    ("matplotlib", "mpl-data/fonts/ttf", {False: "DejaVuSans.ttf", True: "DejaVuSans-Bold.ttf"}),
    ("reportlab", "fonts", {False: "Vera.ttf", True: "VeraBd.ttf"}),
)


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


__all__ = ["typeface"]
