"""What keeps a coded concept out of DICOM objects: lengths, of which pydicom says nothing."""

from __future__ import annotations

from typing import Final

LONGEST: Final = {"scheme_designator": ("coding scheme", 16), "meaning": ("meaning", 64)}
"""Characters (SH and LO) and word for the parts of a code; a value beyond 16 is written as a long one."""


def code_fault(code: object) -> str | None:
    """Return why a code cannot be written (`has a meaning of 70 characters ...`); None when it can."""
    for part in ("value", *LONGEST):
        if not isinstance(getattr(code, part, None), str):
            return f"is a {type(code).__name__}, not a Code of value, coding scheme and meaning"
    for part, (word, longest) in LONGEST.items():
        if (length := len(getattr(code, part))) > longest:
            return f"has a {word} of {length} characters; DICOM takes {longest} at most"
    return None


__all__ = ["LONGEST", "code_fault"]
