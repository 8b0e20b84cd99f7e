"""Settings that are lists: one word or `a, b`, as flags and the environment write them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator
from pydantic_settings import NoDecode


def split_words(value: object) -> object:
    """Return the parts of a text between its commas, which may hold blanks; what is no text as it is."""
    if isinstance(value, str):
        return tuple(word.strip() for word in value.split(",") if word.strip())
    return value


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_words)]


__all__ = ["Words", "split_words"]
