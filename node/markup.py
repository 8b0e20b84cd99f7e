"""Text from outside beside other text: whatever script it is in, it leaves the order of what stands around it alone."""

from __future__ import annotations

from markupsafe import Markup


def bdi(text: object) -> Markup:
    """Return text as an element with a direction of its own (UAX 9, 6.4); an empty text as nothing."""
    return Markup("<bdi>{}</bdi>").format(text) if str(text) else Markup("")


def isolated(text: object) -> str:
    """Return text with a direction of its own for where no element may stand: an attribute, a title."""
    return f"\N{FIRST STRONG ISOLATE}{text}\N{POP DIRECTIONAL ISOLATE}"


__all__ = ["bdi", "isolated"]
