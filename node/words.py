"""Settings that are lists: one word or `a, b`, as flags and the environment write them, or a list in JSON."""

from __future__ import annotations

import json
import re
from typing import Annotated

from pydantic import BeforeValidator
from pydantic_settings import NoDecode

JSON_LIST = re.compile(r"\s*\[\s*[\"'\]]")
"""How a list in JSON, or what was meant for one, begins; an address as [::1] does not."""


def split_words(value: object) -> object:
    """Return the parts of a text between its commas, which may hold blanks; what is no text as it is.

    Raises ValueError for a text that begins as a list in JSON and is none.
    """
    if isinstance(value, str):
        listed = json_list(value)
        return tuple(word.strip() for word in value.split(",") if word.strip()) if listed is None else listed
    return value


def json_list(text: str) -> list[object] | None:
    """Return the list that a text holds in JSON; None for another text. Raises ValueError as `split_words`."""
    if not JSON_LIST.match(text):
        return None
    try:
        listed: list[object] = json.loads(text)
    except ValueError as error:
        raise ValueError('it begins as a list and is none: write a, b or ["a", "b"]') from error
    return listed


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_words)]


__all__ = ["Words", "json_list", "split_words"]
