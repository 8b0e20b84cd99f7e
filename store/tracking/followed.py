"""What comes out when an analysis of one study was laid beside the patient's past."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from plugins.contract import Finding, Flag
from store.tracking.link import Link
from store.tracking.past import Named


@dataclass(frozen=True, kw_only=True)
class Followed:
    """Findings with the identity that the past gives them."""

    findings: tuple[Finding, ...]
    """As given, called by their Tracking ID where an algorithm found them; then what was drawn again."""
    names: Mapping[tuple[str, str], Named] = field(default_factory=dict)
    """Identities of those that were followed, by Series Instance UID and `Finding.key`."""
    links: tuple[Link, ...] = ()
    """What became of lesions since earlier studies."""
    flags: tuple[Flag, ...] = ()
    """What a reader needs to know of it."""


__all__ = ["Followed"]
