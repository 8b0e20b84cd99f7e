"""The description of the API: OpenAPI for programs at `/api/openapi.json`, the same to read at `/api`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from node.web import openapi
from node.web.access import allow
from node.web.site import Site

MOST_LINES = 60


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One route, to be read."""

    id: str
    """What the page calls it by in its own links."""
    method: str
    """GET, POST, ..."""
    path: str
    """The path with its placeholders."""
    summary: str
    """What it does."""
    description: str
    """What else is to be known, and who may ask."""
    parameters: list[Mapping[str, Any]]
    """Of path, query and headers, as OpenAPI has them, each with its `kind` in words."""
    curl: str
    """A command that asks it."""
    answer: str
    """An example of the answer; empty when it is no JSON."""
    status: str
    """Status of that answer."""
    errors: dict[str, str]
    """What each other status means."""


def router(site: Site) -> APIRouter:
    """Return the routes `/api` and `/api/openapi.json`."""
    made = APIRouter()
    known: dict[str, Any] = {}

    def described(request: Request) -> Mapping[str, Any]:
        if not known:  # the routes are all there by the first request
            known.update(openapi.document(request.app.router.routes))
        return known

    @made.get("/api/openapi.json", include_in_schema=False)
    @allow("viewer", scopes=("api",))
    def document(request: Request) -> Response:
        """Give the OpenAPI document."""
        return JSONResponse(described(request))

    @made.get("/api", include_in_schema=False)
    @allow("viewer")
    def reference(request: Request) -> Response:
        """Show every route of the API."""
        told = described(request)
        base = f"{'https' if request.state.is_https else 'http'}://{request.headers.get('host', '')}"
        groups: dict[str, list[Operation]] = {}
        for tag, operation in _operations(told, base):
            groups.setdefault(tag, []).append(operation)
        return site.frame.page(request, "reference.html", groups=dict(sorted(groups.items())), base=base)

    return made


def _operations(told: Mapping[str, Any], base: str) -> Iterator[tuple[str, Operation]]:
    schemas = told.get("components", {}).get("schemas", {})
    for path, methods in told["paths"].items():
        for method, one in methods.items():
            good = next((status for status in one["responses"] if status < "300"), "200")
            answer = one["responses"].get(good, {}).get("content", {}).get("application/json", {})
            yield (
                (one.get("tags") or ["others"])[0],
                Operation(
                    id=one["operationId"],
                    method=method.upper(),
                    path=path,
                    summary=one["summary"],
                    description=_plain(one["description"]),
                    parameters=[_parameter(p) for p in one.get("parameters", [])],
                    curl=_curl(base, path, method.upper(), one, schemas),
                    answer=_text(answer.get("example")),
                    status=good,
                    errors={s: _plain(r["description"]) for s, r in one["responses"].items() if s >= "300"},
                ),
            )


def _curl(base: str, path: str, method: str, one: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    for parameter in one.get("parameters", []):
        if parameter["in"] == "path":
            value = openapi.example(parameter.get("schema", {}), schemas, called=parameter["name"])
            shown = parameter["name"].upper() if value in (None, "text") else quote(str(value), safe="")
            path = path.replace("{" + parameter["name"] + "}", shown)
    words = ["curl", '-H "Authorization: Bearer $TOKEN"']
    if not one["x-scopes"]:
        words = ["curl", '-b "$COOKIE"']
    if method != "GET":
        words += [*([] if one["x-scopes"] else ['-H "X-CSRF-Token: $CSRF"']), f"-X {method}"]
    body = one.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
    if body is not None:
        words += ['-H "Content-Type: application/json"', f"-d '{json.dumps(body)}'"]
    return " ".join([*words, base + path])


def _parameter(told: Mapping[str, Any]) -> dict[str, Any]:
    said = _plain(told.get("description", ""))
    return {**told, "kind": _kind(told.get("schema", {})), "description": said}


def _plain(text: str) -> str:
    """Return a description without the marks of code, which a page has no use for."""
    return text.replace("`", "")


def _kind(schema: Mapping[str, Any]) -> str:
    """Return what a parameter holds, in words."""
    if several := schema.get("anyOf"):
        return " or ".join(dict.fromkeys(_kind(one) for one in several if one.get("type") != "null"))
    if schema.get("enum"):
        return ", ".join(map(str, schema["enum"]))
    bounds = [
        f"{words} {schema[key]}"
        for key, words in (("minimum", "from"), ("maximum", "to"), ("maxLength", "up to"))
        if key in schema
    ]
    unit = " characters" if "maxLength" in schema else ""
    return " ".join([str(schema.get("format") or schema.get("type") or "text"), *bounds]) + unit


def _text(example: Any) -> str:
    if example is None:
        return ""
    lines = json.dumps(example, indent=1, ensure_ascii=False).splitlines()
    return "\n".join([*lines[:MOST_LINES], *(["…"] if len(lines) > MOST_LINES else [])])


__all__ = ["router"]
