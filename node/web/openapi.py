"""The description of the JSON as OpenAPI: made of the routes themselves, with who may ask each, and examples."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from node.web.access import COOKIE, CSRF_HEADER, SAFE_METHODS, Rule, rule_of

PREFIX = "/api/"
ABOUT = """What the pages show, as JSON, and what they change.

A program sends `Authorization: Bearer TOKEN`; a person's browser sends the cookie of its session, and with every change
the token of that session in `X-CSRF-Token`. Errors are one object, `{"error": "one sentence", "code": "name"}`. Lists
are `{"NOUN": [...], "total": n, "next": cursor or null}` with `limit` and `cursor`. Times are ISO 8601 with their zone.
Addresses stay as they are; releases add routes and fields, which a program passes over.
"""
SCHEMES = {
    "token": {"type": "http", "scheme": "bearer", "description": "A token of this node: nadir tokens add"},
    "session": {"type": "apiKey", "in": "cookie", "name": COOKIE, "description": "Signed in by a browser"},
    "change": {
        "type": "apiKey",
        "in": "header",
        "name": CSRF_HEADER,
        "description": "With a session, for a change",
    },
}


PEOPLE = {
    "viewer": "everybody who is signed in",
    "physicist": "physicists and administrators",
    "administrator": "administrators",
}
NAMED = {
    "analysis": "lung_nodule 0.3.0",
    "author": "ada",
    "by": "ada",
    "code": "no-such-model",
    "error": "there is no nodule_segmenter 9; there are shipped, 1",
    "family": "nodule_segmenter",
    "issuer": "",
    "name": "ada",
    "note": "It draws better on 8 mm.",
    "password": "seven tall green tables",
    "patient_id": "P-0001",
    "plugin": "lung_nodule",
    "series_instance_uid": "1.2.826.0.1.3680043.8.498.2",
    "sop_instance_uid": "1.2.826.0.1.3680043.8.498.3",
    "study_instance_uid": "1.2.826.0.1.3680043.8.498.1",
    "token": "nadir_...",
    "tracking_uid": "2.25.1234567890",
    "unit": "mm",
    "uid": "1.2.826.0.1.3680043.8.498.1",
    "version": "1.1.0",
}
"""Examples of what is called so, where a schema names none."""


def document(routes: Iterable[BaseRoute]) -> dict[str, Any]:
    """Return the OpenAPI document of all routes below `/api/`."""
    own = [r for r in routes if isinstance(r, APIRoute) and r.path.startswith(PREFIX) and r.include_in_schema]
    made = get_openapi(
        title="Nadir",
        version=version("nadir"),
        description=ABOUT,
        routes=own,
        separate_input_output_schemas=False,
    )
    components = made.setdefault("components", {})
    components["securitySchemes"] = SCHEMES
    schemas = components.get("schemas", {})
    for route in own:
        for method in sorted(route.methods or ()):
            _tell(route, method, made["paths"][route.path_format][method.lower()], schemas)
    return made


def _tell(route: APIRoute, method: str, operation: dict[str, Any], schemas: Mapping[str, Any]) -> None:
    """Add to an operation what its function says of itself, who may ask it, and examples."""
    rule = rule_of(route.endpoint) or Rule()
    first, _, rest = inspect.cleandoc(route.endpoint.__doc__ or "").partition("\n")
    operation["summary"] = first.rstrip(".")
    operation["description"] = "\n\n".join(part for part in (rest.strip(), who(rule)) if part)
    session: dict[str, list[str]] = (
        {"session": [], "change": []} if method not in SAFE_METHODS else {"session": []}
    )
    operation["security"] = [
        *([{"token": []}] if rule.scopes else []),
        *([session] if rule.role else []),
    ]
    operation["x-role"], operation["x-scopes"] = rule.role, sorted(rule.scopes)
    contents = [
        operation.get("requestBody", {}),
        operation["responses"].get(str(route.status_code or 200), {}),
    ]
    for content in (one.get("content", {}).get("application/json") for one in contents):
        if content and "schema" in content and "example" not in content and "examples" not in content:
            content["example"] = example(content["schema"], schemas)


def who(rule: Rule) -> str:
    """Return who may ask a route, in a sentence."""
    people = [PEOPLE[rule.role]] if rule.role else []
    programs = [f"programs with the scope {scope}" for scope in sorted(rule.scopes)]
    return f"For {' and '.join([*people, *programs]) or 'nobody'}."


def example(schema: Mapping[str, Any], schemas: Mapping[str, Any], depth: int = 0, called: str = "") -> Any:
    """Return a value that a schema allows: what it names as an example or default, else one by name and type."""
    if "$ref" in schema:
        return None if depth > 8 else example(schemas[schema["$ref"].rpartition("/")[2]], schemas, depth + 1)
    for key in ("example", "default", "const"):
        if key in schema:
            return schema[key]
    for key in ("examples", "enum"):
        if schema.get(key):
            return schema[key][0]
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            return example(schema[key][0], schemas, depth + 1, called)
    match schema.get("type"):
        case "object":
            known = schema.get("properties", {})
            return {name: example(one, schemas, depth + 1, name) for name, one in known.items()}
        case "array":
            items = schema.get("prefixItems") or [schema.get("items", {})]
            return [example(one, schemas, depth + 1) for one in items]
        case "integer":
            return int(schema.get("minimum", 1))
        case "number":
            return schema.get("minimum", 0.5)
        case "boolean":
            return False
        case "string":
            return TEXTS.get(schema.get("format", "")) or NAMED.get(called, "text")
        case _:
            return None


TEXTS = {"date-time": "2026-11-20T09:30:00Z", "date": "2026-11-20", "binary": "bytes"}
"""Examples of what a format holds."""

__all__ = ["PREFIX", "document", "example", "who"]
