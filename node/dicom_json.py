"""Values out of DICOM JSON (PS3.18 annex F) as servers write it: nothing of it is sure to be there, or of its kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def values(row: Mapping[str, Any], tag: str) -> list[Any]:
    """Return the values of an element; none when it is missing or has none."""
    element = row.get(tag)
    found = element.get("Value") if isinstance(element, dict) else None
    return found if isinstance(found, list) else []


def text(row: Mapping[str, Any], tag: str) -> str:
    """Return the first value of an element; empty when it is no text."""
    first = next(iter(values(row, tag)), None)
    return first if isinstance(first, str) else ""


def number(row: Mapping[str, Any], tag: str) -> int | None:
    """Return the first value of an element; None when it is no number."""
    # The model says number, some servers write IS values as text.
    try:
        return int(next(iter(values(row, tag)), None))  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None


__all__ = ["number", "text", "values"]
