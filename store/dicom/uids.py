"""UIDs that follow from keys: the same result always has the same UID, so a retry never makes a second one."""

from __future__ import annotations

import json
import re
from typing import Final
from uuid import UUID, uuid5

NAMESPACE: Final = UUID("6f7f5d9e-1d1c-5d0b-9c52-6e61646972ff")
LEGAL: Final = re.compile(r"(?=.{1,64}\Z)(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*))*", re.ASCII)


def derive_uid(key: str, *parts: str) -> str:
    """Return the UID that always belongs to `key` and `parts`: `2.25.` and a name-based UUID (PS3.5 B.2).

    Parts are kept apart, so `("a", "bc")` and `("ab", "c")` have different UIDs.
    """
    return f"2.25.{uuid5(NAMESPACE, json.dumps([key, *parts])).int}"


def is_legal(uid: str) -> bool:
    """Return whether a text is a UID (PS3.5 9.1): 64 characters at most, no component with a leading zero."""
    return LEGAL.fullmatch(uid) is not None
