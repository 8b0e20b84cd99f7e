"""The commands for people, tokens and the audit trail, and a node that is asked with what they made."""

from __future__ import annotations

import ssl
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from audit_schema import told
from certificates import Authority
from empty_database import empty_database
from node_process import NADIR, nadir, nadir_json, node
from typer.testing import CliRunner

from node.cli import app
from node.serve import Node
from node.settings import Settings
from node.tls import https_context
from plugins.errors import Refused
from store import accounts, audit, outside_people, sessions

pytestmark = pytest.mark.sec
PASSWORD = "seven tall green tables"


def typed(text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(NADIR), *arguments], input=text, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.long  # test_login and test_access have the same without processes
def test_login_of_a_person_that_was_added_before_the_node_first_ran_and_a_token_that_is_revoked(
    tmp_path: Path,
) -> None:
    home = ("--home", str(tmp_path / "home"))
    added = typed(f"{PASSWORD}\n", "users", "add", "ada", "--role", "physicist", *home)
    assert (added.returncode, added.stdout) == (0, "ada may sign in as physicist\n")
    token = nadir("tokens", "add", "grafana", "--scope", "metrics", "--scope", "api", *home).stdout.strip()
    assert token.startswith("nadir_")
    flags = ("--role", "web", "--http-host", "0.0.0.0")
    with node(tmp_path / "home", *flags) as running:
        assert any("plain-http" in line for line in running.log)
        base = f"http://127.0.0.1:{running.http_port}"
        with httpx.Client(base_url=base, trust_env=False) as client:
            assert client.get("/api/jobs").status_code == 401
            bearer = {"Authorization": f"Bearer {token}"}
            assert client.get("/api/jobs", headers=bearer).status_code == 200
            assert client.post("/login", json={"name": "ada", "password": PASSWORD}).status_code == 200
            assert client.get("/api/jobs").status_code == 200
            assert nadir("users", "disable", "ada", *home).returncode == 0
            assert nadir("tokens", "revoke", "grafana", *home).returncode == 0
            assert client.get("/api/jobs").status_code == 401
            assert client.get("/api/jobs", headers=bearer).status_code == 401
        assert PASSWORD not in "".join(running.log) and token not in "".join(running.log)
        assert running.stop() == 0
    assert [(u["name"], u["role"], u["disabled"]) for u in nadir_json("users", "list", *home)] == [
        ("ada", "physicist", True)
    ]
    (row,) = nadir_json("tokens", "list", *home)
    assert (row["scopes"], row["state"]) == ("metrics api", "revoked")
    verified = nadir_json("audit", "verify", *home)
    assert (verified["records"] >= 8, verified["broken"]) == (True, None)
    messages = nadir("audit", "export", "--xml", *home).stdout.splitlines()
    kinds = [told(message)[1] for message in messages]
    assert kinds.count("Security Roles Changed") == kinds.count("User security Attributes Changed") == 2
    assert {"Application Start", "Application Stop", "Login", "Use of Restricted Function"} <= set(kinds)
    assert nadir("audit", "verify", "--expected", verified["last_sha256"], *home).returncode == 0
    assert nadir("audit", "verify", "--expected", "0" * 63 + "1", *home).returncode == 1


def refused(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1
    assert done.stdout == "" and len(done.stderr.splitlines()) == 1
    return done.stderr


@pytest.mark.long  # test_accounts and test_secrets have both
def test_login_passwords_that_are_weak_or_come_from_an_open_file_are_refused(tmp_path: Path) -> None:
    home = ("--home", str(tmp_path / "home"))
    add = ("users", "add", "ada", "--role", "viewer", *home)
    assert nadir("tokens", "add", "first", "--scope", "hook", *home).returncode == 0
    assert "weak-password" in refused(typed("short\n", *add))
    file = tmp_path / "password"
    file.write_text(PASSWORD)
    file.chmod(0o644)
    assert "bad-secret-file" in refused(nadir(*add, "--password-file", str(file)))
    file.chmod(0o600)
    assert nadir(*add, "--password-file", str(file)).returncode == 0
    assert "no-such-account" in refused(nadir("users", "disable", "eve", *home))


def test_who_makes_a_node_with_the_first_token_is_told_where(tmp_path: Path) -> None:
    home = tmp_path / "home"
    first, second = (
        CliRunner().invoke(app, ["tokens", "add", name, "--scope", "hook", "--home", str(home)])
        for name in ("one", "two")
    )
    told = f"nadir: made a new node in {home}; --home or --config name one that is there\n"
    assert (first.exit_code, first.stderr) == (0, told)
    assert first.stdout.startswith("nadir_") and len(first.stdout.splitlines()) == 1
    assert (second.exit_code, second.stderr) == (0, "")


def test_who_shuts_out_the_only_administrator_is_told_that_nobody_is_left(tmp_path: Path) -> None:
    home, runner = ["--home", str(tmp_path)], CliRunner()
    for name in ("ada", "bea"):
        add = ["users", "add", name, "--role", "administrator", *home]
        assert runner.invoke(app, add, input=f"{PASSWORD}\n").exit_code == 0
    first, last = (runner.invoke(app, ["users", "disable", name, *home]) for name in ("ada", "bea"))
    assert (first.exit_code, first.stdout, first.stderr) == (0, "ada may sign in no more\n", "")
    assert (last.exit_code, last.stdout) == (0, "bea may sign in no more\n")
    words = "nobody is administrator any more; nadir users add NAME --role administrator makes another"
    assert last.stderr == f"nadir: {words}\n"
    assert runner.invoke(app, ["users", "disable", "bea", *home]).stderr == ""


def test_whom_a_provider_vouches_for_gets_no_password_by_the_command(tmp_path: Path) -> None:
    database = empty_database(tmp_path)
    with database.transaction() as session:
        now = database.now()
        outside_people.account_of(session, "https://x.org", "s", "grace", "administrator", now)
        cookie = sessions.begin(session, accounts.require_account(session, "grace").id, now)
    done = CliRunner().invoke(
        app, ["users", "password", "grace", "--home", str(tmp_path)], input=f"{PASSWORD}\n"
    )
    assert isinstance(done.exception, Refused) and done.exception.code == "by-provider"
    day = timedelta(days=1)
    with database.reading() as session:
        assert not accounts.is_password(PASSWORD, accounts.require_account(session, "grace").password)
        assert sessions.find(session, cookie, now, idle=day, whole=day) is not None
        assert audit.verify(session).records == 0
    database.dispose()


@pytest.mark.parametrize("days", ["3000000", "36500.5", "inf"])
def test_a_token_lasts_a_hundred_years_at_most(tmp_path: Path, days: str) -> None:
    add = ["tokens", "add", "one", "--scope", "api", "--home", str(tmp_path), "--days"]
    done = CliRunner().invoke(app, [*add, days])
    assert isinstance(done.exception, Refused)
    assert (done.exception.code, done.stdout) == ("bad-token", "")
    assert "at most 36500 days" in done.exception.sentence
    assert CliRunner().invoke(app, [*add, "36500"]).exit_code == 0


@pytest.mark.parametrize("expected", ["zzz", "0" * 63, "g" * 64, "0" * 65])
def test_what_is_no_hash_is_not_looked_for_in_the_audit_trail(tmp_path: Path, expected: str) -> None:
    done = CliRunner().invoke(app, ["audit", "verify", "--expected", expected, "--home", str(tmp_path)])
    assert isinstance(done.exception, Refused)
    assert done.exception.sentence.startswith("--expected takes a SHA-256")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7"])
def test_the_http_port_is_not_opened_to_the_network_while_nobody_can_sign_in(
    tmp_path: Path, host: str
) -> None:
    made = Node(Settings(home=tmp_path, http_host=host, http_port=0), ["web"])
    with pytest.raises(Refused, match="nadir users add") as caught:
        made.start()
    assert caught.value.code == "open-http"


def test_a_secret_as_a_flag_is_refused_or_not_offered(tmp_path: Path) -> None:
    done = nadir("serve", "--home", str(tmp_path), "--hook-token", "canary-token")
    assert done.returncode == 2 and "canary" not in done.stderr
    said = refused(nadir("serve", "--home", str(tmp_path), "--pacs-url", "http://u:canary@pacs/dicom-web"))
    assert "NADIR_PACS_URL_FILE" in said and "canary" not in said


def settings_for_tls(folder: Path, **more: Any) -> Settings:
    authority = Authority(folder / "ca")
    certificate, key = authority.issue("node", hosts=("localhost",), passphrase="pass-phrase")
    return Settings(
        home=folder / "home",
        http_port=0,
        http_tls_certificate=certificate,
        http_tls_key=key,
        http_tls_key_passphrase="pass-phrase",
        **more,
    )


def test_https_is_tls_1_2_at_least_and_cookies_are_secure(tmp_path: Path) -> None:
    settings = settings_for_tls(tmp_path)
    server_side = https_context(settings)
    assert server_side is not None and server_side.minimum_version is ssl.TLSVersion.TLSv1_2
    made = Node(settings, ["web"])
    with made.database.transaction() as session:
        accounts.add_account(session, "ada", "viewer", PASSWORD, made.database.now())
    made.start()
    try:
        context = ssl.create_default_context(cafile=tmp_path / "ca" / "ca.pem")
        with httpx.Client(
            base_url=f"https://localhost:{made.http_port}", verify=context, trust_env=False
        ) as client:
            answer = client.post("/login", json={"name": "ada", "password": PASSWORD})
            assert answer.status_code == 200
            assert "; secure" in answer.headers["set-cookie"].lower()
            assert "max-age" in answer.headers["strict-transport-security"]
            assert client.get("/api/jobs").status_code == 200
    finally:
        made.stop()
