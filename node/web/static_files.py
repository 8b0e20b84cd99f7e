"""The files that pages need: styles, scripts and the plotting library, each kept by browsers until it changes."""

from __future__ import annotations

import mimetypes
from functools import cache
from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from node.web.access import allow
from node.web.frame import PLOTLY, STATIC

FOR_EVER = "public, max-age=31536000, immutable"


def router() -> APIRouter:
    """Return the route `/static/NAME`. What it gives holds no patient's data, and the sign-in page needs it too."""
    made = APIRouter(include_in_schema=False)

    @made.get("/static/{name}")
    @allow(is_open=True, always=True)
    def static(name: str) -> Response:
        """Give one file."""
        content = _content(name)
        if content is None:
            raise HTTPException(404, "there is no such file")
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        return Response(content, media_type=kind, headers={"Cache-Control": FOR_EVER})

    return made


@cache
def _content(name: str) -> bytes | None:
    if name == PLOTLY:
        return files("plotly").joinpath("package_data", PLOTLY).read_bytes()
    known = {path.name: path for path in Path(STATIC).iterdir() if path.is_file()}
    return known[name].read_bytes() if name in known else None


__all__ = ["router"]
