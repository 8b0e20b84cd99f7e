"""The JSON as a whole: every route is described, follows the conventions, and answers made-up requests as it says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from browser import LAPTOP, TABLET, Sight, sign_in
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as how
from schemathesis.checks import CHECKS
from schemathesis.core.result import Ok
from starlette.exceptions import HTTPException
from web_site import WebSite

from node.web import openapi
from node.web.access import rule_of
from node.web.api import form
from node.web.problem import CODES, status_of
from store import accounts

SAFE = ("/api/worklist/search",)
"""Paths of POST routes that change nothing."""
FILES = {"/api/cohort/export.{kind}", "/api/cohort/identified.{kind}"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebSite]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accounts, "SCRYPT_N", 1 << 10)
        made = WebSite(tmp_path_factory.mktemp("api"))
        for role in accounts.ROLES:
            made.account(role, role)
        yield made
        made.stop()


@pytest.fixture(scope="module")
def administrator(site: WebSite) -> httpx.Client:
    client: httpx.Client = site.signed_in("administrator")
    return client


@pytest.fixture(scope="module")
def described(administrator: httpx.Client) -> dict[str, Any]:
    return dict(administrator.get("/api/openapi.json").json())


def operations(described: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_every_route_of_the_api_is_described_with_who_may_ask_its_answer_and_its_errors(
    site: WebSite, described: dict[str, Any]
) -> None:
    routes = {
        f"{method} {route.path}": rule_of(route.endpoint)  # type: ignore[attr-defined]
        for route in site.app.router.routes
        for method in route.methods  # type: ignore[attr-defined]
        if route.path.startswith("/api/") and route.path != "/api/openapi.json"  # type: ignore[attr-defined]
    }
    told = dict(operations(described))
    assert set(told) == set(routes)
    for name, operation in told.items():
        assert len(operation["summary"]) > 8 and not operation["summary"].endswith("."), name
        assert len(operation["tags"]) == 1, name
        assert {"401", "403", "422", "503"} <= set(operation["responses"]), name
        if "{" in name and name.partition(" ")[2] not in FILES:
            assert "404" in operation["responses"], name
        rule = routes[name]
        assert rule is not None and openapi.who(rule) in operation["description"], name
        assert (operation["x-role"], operation["x-scopes"]) == (rule.role, sorted(rule.scopes)), name
        assert operation["security"], name
        for status, answer in operation["responses"].items():
            content = answer.get("content", {}).get("application/json", {})
            if status >= "400":
                assert content.get("schema") == {"$ref": "#/components/schemas/Problem"}, (name, status)
            elif status < "300" and "application/json" in answer.get("content", {}):
                assert content["schema"] and "example" in content, (name, status)


def test_lists_say_how_many_there_are_and_what_follows(described: dict[str, Any]) -> None:
    schemas, seen = described["components"]["schemas"], 0
    for name, operation in operations(described):
        parameters = {p["name"]: p["schema"] for p in operation.get("parameters", [])}
        if "limit" not in parameters:
            continue
        seen += 1
        assert parameters["limit"]["maximum"] <= form.MOST_ROWS and "cursor" in parameters, name
        schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
        properties = schemas[schema["$ref"].rpartition("/")[2]]["properties"]
        assert {"total", "next"} <= set(properties), name
        assert sum(one.get("type") == "array" for one in properties.values()) >= 1, name
    assert seen >= 8


def test_a_cursor_comes_back_as_it_was_made_and_any_other_text_is_refused() -> None:
    assert form.values_of(form.cursor_of("1.2", 7, None), str, int, int) == ("1.2", 7, None)
    assert form.values_of("", int) == ()
    for bad in ("x", "é", "////", form.cursor_of(1), form.cursor_of(True, "a"), form.cursor_of(1 << 70, "a"),
                form.cursor_of(1, "a\0"), form.cursor_of(1, "\ud800")):  # fmt: skip
        with pytest.raises(HTTPException) as error:
            form.values_of(bad, int, str)
        assert error.value.status_code == 422


def test_a_parameter_that_stands_twice_is_refused_unless_it_is_a_list(administrator: httpx.Client) -> None:
    for query in ("patient_id=JP&patient_id=GB", "patient_id=JP&patient_id=", "limit=1&limit=1"):
        answer = administrator.get(f"/api/findings?{query}")
        name = query.partition("=")[0]
        assert (answer.status_code, answer.json()) == (
            422,
            {"error": f"{name} stands twice in this query; name it once", "code": "not-valid"},
        )
    assert administrator.get("/api/findings?patient_id=JP&limit=1").status_code == 200
    several = administrator.get("/api/patients/1/course?criteria=who&criteria=recist1.1")
    assert several.json()["code"] == "no-such-patient"


def test_each_refusal_has_the_status_that_says_whose_turn_it_is() -> None:
    assert [
        status_of(code) for code in ("no-such-model", "no-family", "overtaken", "bad-token", "no-such-state")
    ] == [
        404,
        404,
        409,
        400,
        400,
    ]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api/worklist?limit=abc", 422, "not-valid"),
        ("GET", "/api/patients/999/course", 404, "no-such-patient"),
        ("GET", "/patients/999/course.json", 404, "no-such-patient"),
        ("GET", "/studies/9.9/progress", 404, "no-such-study"),
        ("GET", "/api/nothing", 404, "not-found"),
        ("PUT", "/api/jobs", 405, "method-not-allowed"),
    ],
)
def test_every_error_has_a_code(
    administrator: httpx.Client, method: str, path: str, status: int, code: str
) -> None:
    answer = administrator.request(method, path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_who_may_not_ask_is_told_by_a_code_too(site: WebSite) -> None:
    stranger = site.client().get("/api/worklist")
    assert (stranger.status_code, stranger.json()["code"]) == (401, "not-signed-in")
    viewer = site.signed_in("viewer").get("/api/system")
    assert (viewer.status_code, viewer.json()["code"]) == (403, "forbidden")


def test_each_status_that_is_described_has_a_code_and_the_document_lists_them(
    described: dict[str, Any],
) -> None:
    assert set(form.SAID) <= set(CODES)
    assert described["components"]["schemas"]["Problem"]["required"] == ["error", "code"]
    page = (Path(__file__).parents[3] / "docs" / "api.md").read_text()
    assert [one for one in CODES.items() if "| {} | `{}` |".format(*one) not in page] == []


def fuzz(
    site: WebSite, client: httpx.Client, described: dict[str, Any], examples: int, wanted: set[str]
) -> list[str]:
    """Return what a made-up request of each operation of these methods was answered that it must not be."""
    schema = schemathesis.openapi.from_dict(described)
    headers = {"X-CSRF-Token": client.headers["X-CSRF-Token"]}
    checks = [
        CHECKS.get_one(name)
        for name in (
            "not_a_server_error",
            "status_code_conformance",
            "content_type_conformance",
            "response_schema_conformance",
        )
    ]
    faults: list[str] = []
    for found in schema.get_all_operations():
        assert isinstance(found, Ok), found
        operation = found.ok()
        name = f"{operation.method.upper()} {operation.path}"
        if operation.method.upper() not in wanted and operation.path not in SAFE:
            continue

        @how(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def ask(case: Any) -> None:
            case.call_and_validate(
                base_url=site.url, headers=headers, cookies=dict(client.cookies), checks=checks, timeout=30
            )

        try:
            ask()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            faults.append(f"{name}: {str(error)[:600]}")
    return faults


def test_made_up_requests_are_answered_as_the_description_says(
    site: WebSite, administrator: httpx.Client, described: dict[str, Any]
) -> None:
    assert fuzz(site, administrator, described, 2, {"GET"}) == []


@pytest.mark.long
def test_many_made_up_requests_and_changes_are_answered_as_the_description_says(
    site: WebSite, administrator: httpx.Client, described: dict[str, Any]
) -> None:
    own = {
        path: methods for path, methods in described["paths"].items() if not path.startswith("/api/accounts")
    }
    assert fuzz(site, administrator, {**described, "paths": own}, 40, {"GET", "POST", "PUT", "DELETE"}) == []


@pytest.mark.parametrize(
    ("size", "dark"), [(LAPTOP, False), pytest.param(TABLET, True, marks=pytest.mark.long)]
)
def test_in_a_browser_the_reference_is_read_and_what_it_shows_works(
    site: WebSite, look: Callable[..., Sight], size: tuple[int, int], dark: bool
) -> None:
    sight = look(site.url, size, dark=dark)
    page = sign_in(sight, "viewer")
    sight.open("/api")
    sight.require_clean()
    one = page.locator("details", has_text="List the families of models")
    one.locator("summary").click()
    command = one.locator("pre").first.inner_text()
    assert command == f'curl -H "Authorization: Bearer $TOKEN" {site.url}/api/models'
    assert '"families": [' in one.locator("pre").nth(1).inner_text()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    sight.require_clean()
