"""What every route under `/api` shares: how an error looks, how a long list is walked through, how a time is written.

    made = form.routes("models")                                     # prefix /api, tag, the errors of every route

    class Models(form.Listed):
        models: list[Model]

    @made.get("/models", responses=form.problems(404))
    @allow("viewer", scopes=("api",))
    def models(limit: form.Limit = 100, cursor: form.Cursor = "") -> Models:
        \"\"\"List the models.\"\"\"                                      # the first line is the summary
        (number,) = form.values_of(cursor, int) or (0,)              # where the page before ended
        return Models(models=..., total=..., next=form.cursor_of(last.number) if more else None)

The address of a route is stable; what a release adds are routes and fields, which a program passes over. `version` of
the document is that of Nadir.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import AfterValidator, BaseModel, Field
from starlette.exceptions import HTTPException

from store.database import aware_utc

MOST_ROWS = 1000
MOST_CHARACTERS = 512
MOST_PK = (1 << 63) - 1
MAY_REPEAT = frozenset({"criteria"})

Limit = Annotated[int, Query(ge=1, le=MOST_ROWS, description="Most rows of this answer")]
Cursor = Annotated[
    str,
    Query(max_length=MOST_CHARACTERS, description="`next` of the answer before; empty for the first rows"),
]
Pk = Annotated[int, Path(ge=1, le=MOST_PK, description="Number of the row")]
Instant = Annotated[datetime, AfterValidator(aware_utc)]
"""A time with its zone, written in UTC as ISO 8601. A naive one is a fault of the node."""


class Problem(BaseModel):
    """Why it did not work."""

    error: str = Field(description="One sentence for people")
    code: str = Field(description="The same for programs: the name of the refusal, else that of the status")


class Listed(BaseModel):
    """What every list says beside its rows."""

    total: int = Field(description="Rows that there are in all", ge=0)
    next: str | None = Field(
        default=None,
        description="`cursor` of the rows that follow; null when these were the last",
        examples=[None],
    )


SAID = {
    400: "What was asked for contradicts itself, or is refused",
    401: "Nobody known asks: sign in, or send a token of this node",
    403: "This role or token may not do this, or the change does not come from a page of this session",
    404: "There is no such thing",
    409: "It is not as the change takes it to be: somebody else was quicker, or it is done already",
    413: "The body is too long",
    415: "The body is of a kind that is not read here",
    422: "A value is missing or not of its kind",
    429: "Too many tries; `Retry-After` says when to come back",
    503: "The database, the disk or the PACS does not answer; `Retry-After` says when to come back",
    507: "The disk is filled up to its reserve",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the errors of a route as OpenAPI documents them: its own beside those of every route."""
    return {status: {"model": Problem, "description": SAID[status]} for status in statuses}


def routes(noun: str) -> APIRouter:
    """Return an empty router for the JSON of one noun: its prefix, its tag and the errors that every route may give."""
    once = [Depends(_each_once)]
    return APIRouter(prefix="/api", tags=[noun], responses=problems(401, 403, 422, 503), dependencies=once)


async def _each_once(request: Request) -> None:
    """Raise 422 for a parameter that stands twice: the last one would be taken, and the others passed over."""
    names = [name for name, _ in request.query_params.multi_items() if name not in MAY_REPEAT]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise HTTPException(422, f"{twice[:64]} stands twice in this query; name it once")


def cursor_of(*values: str | int | float | None) -> str:
    """Return where a page ended: the values its rows are ordered by. No name and no PatientID: addresses are logged."""
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")


def values_of(cursor: str, *kinds: type) -> tuple[Any, ...]:
    """Return the values that `cursor_of` was given; an empty tuple for no cursor. Raises 422 for any other text."""
    if not cursor:
        return ()
    try:
        values = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        values = None
    if (
        not isinstance(values, list)
        or len(values) != len(kinds)
        or not all(_is_storable(value, kind) for value, kind in zip(values, kinds, strict=True))
    ):
        raise HTTPException(422, "cursor: this is no 'next' of an answer of this node")
    return tuple(values)


def _is_storable(value: object, kind: type) -> bool:
    """Return whether a database takes a value: what a stranger made up may be none of ours."""
    if type(value) is not kind:
        return value is None
    if isinstance(value, int):
        return abs(value) <= MOST_PK
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, str) or (value.isprintable())


__all__ = [
    "MOST_ROWS",
    "Cursor",
    "Instant",
    "Limit",
    "Listed",
    "Pk",
    "Problem",
    "cursor_of",
    "problems",
    "routes",
    "values_of",
]
