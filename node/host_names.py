"""Host names that a setting lists, as the Host of a request writes them, without its port."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

from node.words import Words

HOST_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+\]")


def _checked(value: tuple[str, ...]) -> tuple[str, ...]:
    for text in value:
        if not HOST_NAME.fullmatch(text):
            todo = "write a name alone, as nadir.example.org, or an IPv6 address as [2001:db8::1]"
            raise ValueError(f"'{text}' is no Host of a request without its port: {todo}")
    return value


HostNames = Annotated[Words, AfterValidator(_checked)]


__all__ = ["HostNames"]
