"""Who may ask what: every route by every role and scope, tokens, foreign pages, names of the node."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from web_site import PASSWORD, WebSite

from node.serve import Node
from node.settings import Settings
from node.web.access import SAFE_METHODS, SHUT, Identity, Rule, rule_of
from node.web.app import create_app
from store import accounts
from store.accounts import ROLES, SCOPES

pytestmark = pytest.mark.sec

Routes = list[tuple[str, str, object]]
WHO = ("nobody", *ROLES, *(f"{scope} token" for scope in SCOPES))
EVERYBODY = set(WHO)
PEOPLE = set(ROLES)
PHYSICISTS = PEOPLE - {"viewer"}
MAY = {
    "GET /": PEOPLE,
    "GET /static/{name}": EVERYBODY,
    "GET /viewer": PEOPLE,
    "GET /viewer/{path:path}": PEOPLE,
    "GET /dicom-web/{path:path}": PEOPLE | {"api token"},
    "GET /health": EVERYBODY,
    "GET /metrics": {"administrator", "metrics token"},
    "GET /login": EVERYBODY,
    "POST /login": EVERYBODY,
    "POST /logout": PEOPLE,
    "GET /api/jobs": PEOPLE | {"api token"},
    "GET /api/findings": PEOPLE | {"api token"},
    "GET /studies/{study_instance_uid}": PEOPLE,
    "GET /studies/{study_instance_uid}/progress": PEOPLE,
    "GET /studies/{study_instance_uid}/findings/{finding_pk}/choose": PEOPLE - {"viewer"},
    "GET /studies/{study_instance_uid}/findings/{finding_pk}/picture": PEOPLE,
    "POST /studies/{study_instance_uid}/choices": PEOPLE - {"viewer"},
    "POST /studies/{study_instance_uid}/choices/{number}/undo": PEOPLE - {"viewer"},
    "GET /studies/{study_instance_uid}/results/{result_pk}": PEOPLE | {"api token"},
    "GET /api/findings/{finding_pk}": PEOPLE | {"api token"},
    "GET /api/assessments": PEOPLE | {"api token"},
    "GET /api/studies/{study_instance_uid}": PEOPLE | {"api token"},
    "GET /api/studies/{study_instance_uid}/findings": PEOPLE | {"api token"},
    "GET /api/studies/{study_instance_uid}/results/{result_pk}": PEOPLE | {"api token"},
    "GET /api/studies/{study_instance_uid}/choices": PEOPLE | {"api token"},
    "POST /api/studies/{study_instance_uid}/choices": PEOPLE - {"viewer"},
    "POST /api/studies/{study_instance_uid}/choices/{number}/undo": PEOPLE - {"viewer"},
    "GET /api/findings/{finding_pk}/picture": PEOPLE | {"api token"},
    "GET /api/findings/{finding_pk}/slices": PEOPLE | {"api token"},
    "GET /api/priors": PEOPLE | {"api token"},
    "GET /api/workitems": PEOPLE | {"api token"},
    "GET /api/workitems/{workitem}": PEOPLE | {"api token"},
    "POST /api/workitems/{workitem}/cancel": PHYSICISTS,
    "GET /upload": PHYSICISTS,
    "GET /uploads/{upload_pk}": PEOPLE,
    "GET /uploads/{upload_pk}/live": PEOPLE,
    "POST /uploads/{upload_pk}/images/{file_pk}": PHYSICISTS,
    "POST /uploads/{upload_pk}/finish": PHYSICISTS,
    "POST /uploads/{upload_pk}/cancel": PHYSICISTS,
    "GET /api/uploads/{upload_pk}/report.pdf": PEOPLE | {"api token"},
    "GET /api/uploads/{upload_pk}/results.zip": PEOPLE | {"api token"},
    "POST /api/uploads": PHYSICISTS | {"api token"},
    "GET /api/uploads": PEOPLE | {"api token"},
    "GET /api/uploads/{upload_pk}": PEOPLE | {"api token"},
    "DELETE /api/uploads/{upload_pk}": PHYSICISTS | {"api token"},
    "POST /api/uploads/{upload_pk}/beat": PHYSICISTS | {"api token"},
    "POST /api/uploads/{upload_pk}/finish": PHYSICISTS | {"api token"},
    "GET /api/uploads/{upload_pk}/files": PEOPLE | {"api token"},
    "GET /api/uploads/{upload_pk}/files/{number}": PEOPLE | {"api token"},
    "PUT /api/uploads/{upload_pk}/files/{number}": PHYSICISTS | {"api token"},
    "POST /api/uploads/{upload_pk}/skipped": PHYSICISTS | {"api token"},
    "PUT /api/uploads/{upload_pk}/images/{file_pk}": PHYSICISTS | {"api token"},
    "DELETE /api/uploads/{upload_pk}/images/{file_pk}": PHYSICISTS | {"api token"},
    "GET /patients/{patient_pk}": PEOPLE,
    "GET /patients/{patient_pk}/state": PEOPLE,
    "GET /patients/{patient_pk}/lesions/{tracking_uid}/pictures": PEOPLE,
    "GET /patients/{patient_pk}/course.{kind}": PEOPLE,
    "GET /cohort": PEOPLE,
    "GET /cohort/progress": PEOPLE,
    "GET /api/patients": PEOPLE | {"api token"},
    "GET /api/patients/{patient_pk}/course": PEOPLE | {"api token"},
    "GET /api/cohort/patients": PEOPLE | {"api token"},
    "GET /api/cohort/measurements": PEOPLE | {"api token"},
    "GET /api/cohort/export.{kind}": {"physicist", "administrator", "api token"},
    "GET /api/cohort/identified.{kind}": {"administrator"},
    "GET /models": PEOPLE,
    "GET /models/labels": PEOPLE,
    "GET /models/{family}": PEOPLE,
    "GET /models/{family}/runs": PEOPLE,
    "GET /models/{family}/drift": PEOPLE,
    "GET /models/{family}/{number}": PEOPLE,
    "GET /models/{family}/runs/{run}/{name}": PEOPLE,
    "GET /models/{family}/{number}/evaluations/{key}": PEOPLE,
    "GET /models/{family}/{number}/evaluations/{key}/cases": PEOPLE,
    "GET /models/{family}/{number}/evaluations/{key}/files/{name}": PEOPLE,
    "POST /models/{family}/rollback": PHYSICISTS,
    "POST /models/{family}/retrain": {"administrator"},
    "POST /models/{family}/{number}/approve": PHYSICISTS,
    "GET /api/models": PEOPLE | {"api token"},
    "GET /api/models/{family}": PEOPLE | {"api token"},
    "GET /api/models/{family}/runs": PEOPLE | {"api token"},
    "POST /api/models/{family}/runs": {"administrator"},
    "GET /api/models/{family}/drift": PEOPLE | {"api token"},
    "GET /api/models/{family}/{number}": PEOPLE | {"api token"},
    "GET /api/models/{family}/{number}/evaluations": PEOPLE | {"api token"},
    "GET /api/models/{family}/{number}/evaluations/{key}": PEOPLE | {"api token"},
    "POST /api/models/{family}/rollback": PHYSICISTS,
    "POST /api/models/{family}/{number}/approve": PHYSICISTS,
    "GET /worklist": PEOPLE,
    "POST /worklist/rows": PEOPLE,
    "GET /api/worklist": PEOPLE | {"api token"},
    "POST /api/worklist/search": PEOPLE | {"api token"},
    "POST /api/jobs/{job}/retry": {"physicist", "administrator"},
    "POST /api/jobs/{job}/rerun": {"physicist", "administrator"},
    "POST /api/jobs/{job}/park": {"administrator"},
    "POST /api/jobs/{job}/unpark": {"administrator"},
    "POST /api/jobs/{job}/send": {"administrator"},
    "POST /api/studies/{uid}/park": {"administrator"},
    "POST /api/studies/{uid}/unpark": {"administrator"},
    "POST /api/studies/{uid}/settle": {"physicist", "administrator"},
    "GET /system": {"administrator"},
    "GET /system/now": {"administrator"},
    "GET /system/machine": {"administrator"},
    "GET /system/events": {"administrator"},
    "GET /system/audit": {"administrator"},
    "POST /system/audit/rows": {"administrator"},
    "POST /system/audit/verify": {"administrator"},
    "GET /api/system": {"administrator", "api token"},
    "GET /api/events": {"administrator", "api token"},
    "GET /api/audit": {"administrator"},
    "POST /api/system/destinations/retry": {"administrator"},
    "POST /api/system/destinations/abandon": {"administrator"},
    "POST /api/system/priors/retry": {"administrator"},
    "GET /system/accounts": {"administrator"},
    "POST /system/accounts": {"administrator"},
    "POST /system/accounts/{name}/role": {"administrator"},
    "POST /system/accounts/{name}/password": {"administrator"},
    "POST /system/accounts/{name}/disabled": {"administrator"},
    "POST /system/tokens": {"administrator"},
    "POST /system/tokens/{name}/revoke": {"administrator"},
    "GET /api/accounts": {"administrator"},
    "POST /api/accounts": {"administrator"},
    "PATCH /api/accounts/{name}": {"administrator"},
    "GET /api/tokens": {"administrator"},
    "POST /api/tokens": {"administrator"},
    "DELETE /api/tokens/{name}": {"administrator"},
    "GET /api": PEOPLE,
    "GET /api/openapi.json": PEOPLE | {"api token"},
    "POST /intake/study": {"hook token"},
    "POST /dicom-web/studies": {"physicist", "administrator", "sender token"},
    "POST /dicom-web/studies/{study}": {"physicist", "administrator", "sender token"},
}
"""Who may ask each route, told a second time: a change of a rule has to be made in both places."""


@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "SCRYPT_N", 1 << 10)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[WebSite]:
    made = WebSite(tmp_path, pacs_url="http://127.0.0.1:9/dicom-web")
    made.account("ada", "administrator")
    yield made
    made.stop()


@pytest.fixture
def routes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Routes:
    """Return method, path and endpoint of every route of a whole node."""
    apps: list[FastAPI] = []

    def create(*arguments: Any, **more: Any) -> FastAPI:
        apps.append(create_app(*arguments, **more))
        return apps[-1]

    monkeypatch.setattr("node.web.app.create_app", create)
    node = Node(Settings(home=tmp_path / "whole", http_port=0, pacs_url="http://127.0.0.1:9/x"), ["web"])
    node.start()
    node.stop()
    return [
        (method, route.path, route.endpoint)  # type: ignore[attr-defined]
        for route in apps[0].router.routes
        for method in sorted(route.methods)  # type: ignore[attr-defined]
    ]


def test_authz_matrix_every_route_declares_a_rule_and_no_rule_is_for_nobody(routes: Routes) -> None:
    assert len(routes) >= 10
    for method, path, endpoint in routes:
        rule = rule_of(endpoint)
        assert rule is not None, f"{method} {path} declares no rule: say with `allow` who may ask"
        assert rule.is_open or rule.role or rule.scopes, f"{method} {path} is for nobody"


def test_authz_matrix_every_route_is_in_the_table_of_this_test(routes: Routes) -> None:
    assert {f"{method} {path}" for method, path, _ in routes} == set(MAY)


def test_authz_matrix_every_role_and_token_on_every_route_of_the_running_node(site: WebSite) -> None:
    clients = {"nobody": site.client(**{"X-Forwarded-For": "10.9.9.9"})}
    for role in ROLES:
        site.account(f"a-{role}", role)
        clients[role] = site.signed_in(f"a-{role}")
        clients[role].headers["X-Forwarded-For"] = "10.9.9.9"
    for scope in SCOPES:
        clients[f"{scope} token"] = site.client(
            **{"Authorization": f"Bearer {site.token(scope, scope)}", "X-Forwarded-For": "10.9.9.9"}
        )
    got_in: dict[str, set[str]] = {name: set() for name in MAY}
    for name in MAY:
        method, path = name.split()
        if path == "/logout":
            continue  # ends the session: below
        for who, client in clients.items():
            answer = client.request(
                method, re.sub(r"\{[^}]*\}", "1.2.3", path), json={"study_instance_uid": "1.2.3"}
            )
            assert answer.status_code < 500
            if answer.status_code not in (401, 403):
                got_in[name].add(who)
    for who, client in clients.items():
        if client.post("/logout").status_code not in (401, 403):
            got_in["POST /logout"].add(who)
    assert got_in == MAY


def test_authz_matrix_a_route_without_a_rule_is_shut_for_everybody(site: WebSite) -> None:
    site.app.add_api_route("/forgotten", lambda: "secret", methods=["GET"])
    site.account("a-admin", "administrator")
    for client in (
        site.client(),
        site.signed_in("a-admin"),
        site.client(Authorization=f"Bearer {site.token('all', *SCOPES)}"),
    ):
        answer = client.get("/forgotten")
        assert answer.status_code in (401, 403)
        assert "secret" not in answer.text


def test_authz_matrix_a_route_without_a_rule_is_shut_for_this_machine_too() -> None:
    machine = Identity(kind="machine")
    assert machine.may(Rule(role="administrator")) and machine.may(Rule(scopes=frozenset({"hook"})))
    assert not machine.may(SHUT)


def test_roles_rise_and_a_token_has_no_role() -> None:
    physicist = Identity(kind="person", role="physicist")
    token = Identity(kind="program", scopes=frozenset({"api"}))
    assert [physicist.may(Rule(role=role)) for role in ROLES] == [True, True, False]
    assert not token.may(Rule(role="viewer"))
    assert token.may(Rule(role="administrator", scopes=frozenset({"api"})))
    assert not Identity(kind="person", role="made-up").may(Rule(role="viewer"))
    assert not Identity(kind="nobody").may(Rule())


def test_metrics_are_for_a_token_and_for_this_machine_whatever_is_configured(site: WebSite) -> None:
    assert site.client().get("/metrics").status_code == 200
    assert site.client(**{"X-Forwarded-For": "10.0.0.1"}).get("/metrics").status_code == 401
    assert site.client(Host="evil.example").get("/metrics").status_code == 401
    assert site.client().get("/api/jobs").status_code == 401


def test_the_token_for_metrics_reads_metrics_and_nothing_else(tmp_path: Path) -> None:
    site = WebSite(tmp_path, hook_token="h" * 20, metrics_token="m" * 20)
    try:
        elsewhere = {"X-Forwarded-For": "10.0.0.1"}
        client = site.client(Authorization=f"Bearer {'m' * 20}", **elsewhere)
        assert client.get("/metrics").status_code == 200
        assert client.get("/api/jobs").status_code == 403
        assert client.post("/intake/study", json={"study_instance_uid": "1.2.3"}).status_code == 403
        assert site.client(Authorization=f"Bearer {'m' * 19}", **elsewhere).get("/metrics").status_code == 401
    finally:
        site.stop()


def test_a_token_ends_when_it_is_revoked_or_over(site: WebSite) -> None:
    kept, over = site.token("kept", "api"), site.token("over", "api", days=-1)
    client = site.client(Authorization=f"Bearer {kept}")
    assert client.get("/api/jobs").status_code == 200
    assert client.get("/api/jobs", headers={"Authorization": f"bearer {kept}"}).status_code == 200
    assert client.get("/api/jobs", headers={"Authorization": f"Bearer {over}"}).status_code == 401
    with site.database.transaction() as session:
        accounts.revoke_token(session, "kept", site.database.now())
    assert client.get("/api/jobs").status_code == 401


def test_secrets_are_in_sql_as_hashes_only(site: WebSite, tmp_path: Path) -> None:
    token = site.token("kept", "api")
    cookie = site.signed_in("ada").cookies["nadir_session"]
    site.client().post("/login", json={"name": "typed-a-Passw0rd-here", "password": "x"})
    with closing(sqlite3.connect(tmp_path / "nadir.sqlite")) as connection:
        dump = "\n".join(connection.iterdump())
    for secret in (token, token.removeprefix("nadir_"), cookie, PASSWORD, "typed-a-Passw0rd-here"):
        assert secret not in dump
    assert "scrypt:1024:8:3:" in dump


def test_csrf_every_changing_route_refuses_a_session_without_its_token(site: WebSite, tmp_path: Path) -> None:
    changing = [n.split() for n in MAY if n.split()[0] not in SAFE_METHODS and n != "POST /login"]
    assert changing
    client = site.signed_in("ada")
    for wrong in ("", "0" * 64, "é"):
        client.headers["X-CSRF-Token"] = wrong.encode().decode("latin-1")
        for method, path in changing:
            before = client.request(method, path, json={})
            assert before.status_code == 403, (method, path, before.text)
        assert client.get("/api/jobs").status_code == 200


def test_csrf_the_token_of_another_session_is_none_and_a_form_may_carry_ones_own(site: WebSite) -> None:
    mine, other = site.signed_in("ada"), site.signed_in("ada")
    token = mine.headers.pop("X-CSRF-Token")
    assert mine.post("/logout", data={"csrf_token": other.headers["X-CSRF-Token"]}).status_code == 403
    assert mine.post("/logout", data={"csrf_token": token}).status_code == 303


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_csrf_a_page_of_another_site_changes_nothing_even_with_the_token(
    site: WebSite, headers: dict[str, str]
) -> None:
    client = site.signed_in("ada")
    assert client.post("/logout", headers=headers).status_code == 403
    assert client.post("/login", headers=headers, json={}).status_code == 403
    own = {"Origin": f"http://127.0.0.1:{site.server.port}", "Sec-Fetch-Site": "same-origin"}
    assert client.post("/logout", headers=own).status_code == 200


def test_csrf_nothing_is_changed_from_a_foreign_page_while_nothing_is_configured(tmp_path: Path) -> None:
    site = WebSite(tmp_path, pacs_url="http://127.0.0.1:9/dicom-web")
    said = {"study_instance_uid": "1.2.3"}
    foreign = site.client(Origin="https://evil.example").post("/intake/study", json=said)
    assert foreign.status_code == 403
    assert site.client().post("/intake/study", json=said).status_code == 202
    site.stop()


def test_a_node_that_goes_by_names_answers_to_no_other(tmp_path: Path) -> None:
    site = WebSite(tmp_path, http_names=("Nadir.hospital.example",), hook_token="t0k")
    token = {"Authorization": "Bearer t0k"}

    def status(host: str) -> int:
        return site.client(**token, Host=host).get("/api/jobs").status_code

    assert [status(h) for h in ("nadir.hospital.example", "nadir.hospital.example:8080", "localhost")] == [
        200
    ] * 3
    assert [status(h) for h in ("evil.example", "nadir.hospital.example.evil.example", "[::2]")] == [421] * 3
    site.stop()


def test_the_first_account_ends_the_trust_in_this_machine(tmp_path: Path) -> None:
    site = WebSite(tmp_path)
    assert site.client().get("/api/jobs").status_code == 200
    site.account("ada", "viewer")
    answer: httpx.Response = site.client().get("/api/jobs")
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    site.stop()
