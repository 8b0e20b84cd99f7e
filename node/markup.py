"""Text from outside beside other text: whatever script it is in, it leaves the order of what stands around it alone."""

from __future__ import annotations

from markupsafe import Markup, escape

from store.reading_order import turns


def bdi(text: object) -> Markup:
    """Return text, as an element with a direction of its own where it is in a script from right to left (UAX 9)."""
    return Markup("<bdi>{}</bdi>").format(text) if turns(str(text)) else escape(text)


def isolated(text: object) -> str:
    """Return text, with a direction of its own likewise, for where no element may stand: an attribute, a title."""
    said = str(text)
    return f"\N{FIRST STRONG ISOLATE}{said}\N{POP DIRECTIONAL ISOLATE}" if turns(said) else said


__all__ = ["bdi", "isolated"]
