"""A course as JSON, for the process that makes a report of it: `from_json` gives an equal value back."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import date, datetime
from enum import Enum
from typing import Any

from pydicom.sr.coding import Code

from plugins.errors import Broken
from store.course import Course


def to_json(course: Course) -> str:
    """Return it as JSON."""
    return json.dumps(_plain(course), allow_nan=False)


def from_json(text: str) -> Course:
    """Return the course of a JSON text. Raises Broken when it is not one of ours."""
    try:
        course = _build(Course, json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Broken("The course of a patient was handed over so that it cannot be read.") from error
    assert isinstance(course, Course)
    return course


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple):  # a code is one too
        return [_plain(inner) for inner in value]
    if isinstance(value, date):  # a datetime is one too
        return value.isoformat()
    return value.value if isinstance(value, Enum) else value


def _build(kind: Any, value: Any) -> Any:
    """Return `value`, plain JSON, as what `kind` names."""
    origin, options = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        (kind,) = [option for option in options if option is not types.NoneType]
        return None if value is None else _build(kind, value)
    if origin is tuple:
        if options[-1] is Ellipsis:
            return tuple(_build(options[0], inner) for inner in value)
        return tuple(_build(option, inner) for option, inner in zip(options, value, strict=True))
    if origin is Mapping:
        return {key: _build(options[1], inner) for key, inner in value.items()}
    if kind is Code:
        return Code(*value)
    if kind in (date, datetime):
        return kind.fromisoformat(value)
    if is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return kind(**{field.name: _build(hints[field.name], value[field.name]) for field in fields(kind)})  # type: ignore[operator]
    return kind(value)


__all__ = ["from_json", "to_json"]
