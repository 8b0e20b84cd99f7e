"""The fields of a form, as a browser sends it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated
from urllib.parse import parse_qs

from fastapi import Depends, Request
from starlette.exceptions import HTTPException

FORM = "application/x-www-form-urlencoded"
MOST_FIELDS = 64


async def fields(request: Request) -> Mapping[str, str]:
    """Return the first value of each field. Raises 415 for another body, 422 for one that is no form."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise HTTPException(415, "send a form")
    body = await request.body()
    try:
        found = parse_qs(body.decode("utf-8"), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        raise HTTPException(422, "this is no form") from None
    return {name: values[0] for name, values in found.items()}


Fields = Annotated[Mapping[str, str], Depends(fields)]
"""What a route is given that reads a form."""

__all__ = ["Fields", "fields"]
