"""Statuses and Failure Reasons that the store gives or reads (PS3.7 Annex C); all others stand in `node.status`."""

from __future__ import annotations

from typing import Final

PROCESSING_FAILURE: Final = 0x0110
NO_SUCH_INSTANCE: Final = 0x0112
CLASS_CONFLICT: Final = 0x0119
DUPLICATE_TRANSACTION: Final = 0x0131

__all__ = ["CLASS_CONFLICT", "DUPLICATE_TRANSACTION", "NO_SUCH_INSTANCE", "PROCESSING_FAILURE"]
