"""The designator of our own codes, apart from the codes: settings name it, and must not load what codes need."""

from __future__ import annotations

from typing import Final

PRIVATE_SCHEME: Final = "99NADIR"

__all__ = ["PRIVATE_SCHEME"]
