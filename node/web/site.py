"""What every router is given."""

from __future__ import annotations

from dataclasses import dataclass

from node.audit import Record, unheard
from node.settings import Settings
from node.web.frame import Frame
from store.database import Database
from store.objects import ObjectStore


@dataclass(frozen=True, kw_only=True)
class Site:
    """The node as its pages and its JSON see it."""

    settings: Settings
    database: Database
    objects: ObjectStore
    frame: Frame
    """Makes pages."""
    record: Record = unheard
    """Takes what the audit trail is told."""


__all__ = ["Site"]
