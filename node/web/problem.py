"""How errors look: one JSON object with one sentence for programs, a page with the same sentence for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from fastapi.responses import JSONResponse, RedirectResponse, Response
from starlette.requests import Request

from node.web.frame import Frame

FROM_SCRIPT = "hx-request"
CONFLICTS = frozenset(
    {
        "account-exists",
        "already-active",
        "already-running",
        "another-file",
        "by-provider",
        "another-piece",
        "asked-already",
        "being-sent",
        "destination-in-use",
        "illegal-transition",
        "last-administrator",
        "no-scheduler",
        "not-parked",
        "not-proposed",
        "not-waiting",
        "nothing-before",
        "overtaken",
        "parked-already",
        "patient-on-both-sides",
        "still-arriving",
        "study-parked",
        "superseded-revision",
        "token-exists",
        "undone",
        "upload-ended",
    }
)
"""Codes that mean: it is not as the change takes it to be."""
CODES = {
    400: "bad-request",
    401: "not-signed-in",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    406: "not-acceptable",
    408: "too-slow",
    409: "conflict",
    413: "too-long",
    414: "address-too-long",
    415: "wrong-media-type",
    421: "another-name",
    422: "not-valid",
    429: "too-many-tries",
    431: "header-too-long",
    500: "broken",
    502: "pacs-failed",
    503: "unavailable",
    504: "pacs-silent",
    507: "disk-full",
}
"""The code of an error that has no name of its own, by its status."""


def status_of(code: str) -> int:
    """Return the HTTP status of a refusal: 404 for what is not there, 409 for a conflict, 400 for all else."""
    if code in CONFLICTS:
        return 409
    return (
        404
        if code in ("no-family", "no-longer-here")
        or (code.startswith("no-such-") and code != "no-such-state")
        else 400
    )


def error(
    status: int, sentence: str, code: str | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Return an error as one JSON object; without a code of its own it has that of its status."""
    content = {"error": " ".join(sentence.split()), "code": code or CODES.get(status, "refused")}
    return JSONResponse(content, status_code=status, headers=dict(headers or {}))


def first_problem(errors: Any) -> str:
    """Return the first of pydantic's errors as a sentence that does not quote what was sent."""
    first: Mapping[str, Any] = errors[0] if errors else {}
    where = ".".join(str(part) for part in first.get("loc", ()))
    return f"{where}: {first.get('msg', 'not valid')}" if where else str(first.get("msg", "not valid"))


def wants_page(request: Request) -> bool:
    """Return True when a person's browser asks for a whole page."""
    return "text/html" in request.headers.get("accept", "") and FROM_SCRIPT not in request.headers


def answer(
    request: Request,
    frame: Frame | None,
    status: int,
    sentence: str,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return an error in the form that suits who asked; a person who is not signed in is sent to the sign-in page."""
    if frame is None or not (wants_page(request) or FROM_SCRIPT in request.headers):
        return error(status, sentence, code, headers)
    if status == 401:
        return _to_sign_in(request)
    if FROM_SCRIPT in request.headers:
        return error(status, sentence, code, headers)
    made = frame.page(request, "problem.html", status, sentence=" ".join(sentence.split()))
    made.headers.update(headers or {})
    return made


def _to_sign_in(request: Request) -> Response:
    """Return the way to the sign-in page, and from there back; a part of a page sends the whole browser there."""
    if FROM_SCRIPT in request.headers:
        return Response(status_code=401, headers={"HX-Redirect": "/login"})
    query = f"?{request.url.query}" if request.url.query else ""
    return RedirectResponse(f"/login?next={quote(request.url.path + query, safe='')}", 303)


__all__ = ["CODES", "answer", "error", "first_problem", "status_of", "wants_page"]
