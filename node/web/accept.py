"""The Accept field of a request for DICOM (PS3.18 sections 8.3.3 and 8.7): what it takes of what is offered."""

from __future__ import annotations

import re
from collections.abc import Collection

ANY = "*"
OPTION = re.compile(r'(?:[^,"]|"[^"]*"?)+')
PARAMETER = re.compile(r';\s*([^\s=;"]+)\s*=\s*("[^"]*"?|[^;]*)')
NEVER = re.compile(r"0(?:\.0*)?")


def taken(accept: str, kinds: Collection[str]) -> frozenset[str]:
    """Return the transfer syntaxes in which an Accept field takes one of the media types; none when it takes none.

    `ANY` stands for all of them: also of a field that is empty, and of an option that names none. Of a multipart type
    its parameter `type` counts, because a part is what is offered. Weights decide nothing, but 0 means never.
    """
    if not accept.strip():
        return frozenset({ANY})
    found: set[str] = set()
    for option in OPTION.findall(accept):
        name = option.partition(";")[0].strip().lower()
        parameters = {
            key.lower(): value.strip().strip('"').strip() for key, value in PARAMETER.findall(option)
        }
        wanted = parameters.get("type", "*/*").lower() if name.startswith("multipart/") else name
        if not NEVER.fullmatch(parameters.get("q", "1")) and any(_is_within(kind, wanted) for kind in kinds):
            found.add(parameters.get("transfer-syntax") or ANY)
    return frozenset(found)


def _is_within(kind: str, wanted: str) -> bool:
    return wanted in (kind, "*/*", "*") or wanted == kind.partition("/")[0] + "/*"


__all__ = ["ANY", "taken"]
