"""What watches a node: rules that fire when they should, a dashboard that asks for what there is, a real Prometheus."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from empty_database import empty_database
from many_findings import fill
from node_process import node
from programs import ROOT, program
from prometheus_client.parser import text_string_to_metric_families

from node import metrics
from node.loop import Loop
from node.settings import Settings
from node.vitals import Vitals, VitalsServer
from plugins.errors import Unavailable
from store import audit, tally
from store.audit_tables import AuditRecord

FOLDER = ROOT / "monitoring"
DASHBOARD = json.loads((FOLDER / "grafana" / "dashboards" / "nadir.json").read_text())
RULES = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
ALERTS = [rule for group in RULES for rule in group["rules"]]
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
OF_OTHERS = {"ALERTS"}
"""Series that Prometheus makes itself."""


def names_in(expression: str) -> set[str]:
    """Return the metrics that an expression asks for."""
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\b(by|without)\s*\([^)]*\)|\"[^\"]*\"", " ", expression)
    return set(re.findall(r"\b(?:nadir|process|python)_[a-z_]+\b|\bALERTS\b", bare)) - OF_OTHERS


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return what a used node tells: its ledger, and a process with every role that has answered."""
    home = tmp_path_factory.mktemp("home")
    database = empty_database(home)
    fill(database, findings=400)
    vitals = Vitals(("listener", "worker", "sender", "web", "scheduler"))
    loop = Loop("sender PACS@10.0.0.7:104", lambda now: False, database.now, 60.0)
    vitals.follow(loop)
    loop.start()
    vitals.answered(0, 0.003, 512)
    vitals.served("GET", "/studies/{study_instance_uid}", 200, 0.02)
    while not loop.began_at:
        time.sleep(0.001)
    loop.stop()
    yield (metrics.text(metrics.registry(database, Settings(home=home))) + vitals.text()).decode()
    database.dispose()


@pytest.fixture(scope="module")
def told_names(told: str) -> set[str]:
    """Return every name that Prometheus would know."""
    families = list(text_string_to_metric_families(told))
    return {s.name for f in families for s in f.samples} | {f.name for f in families}


def test_the_rules_are_rules_and_each_fires_when_it_should_and_not_else() -> None:
    promtool = program("promtool", "prometheus")
    tests = sorted(path.name for path in FOLDER.glob("*_test.yml"))
    for command in (["check", "rules", "alerts.yml"], ["test", "rules", *tests]):
        done = subprocess.run(
            [promtool, *command], capture_output=True, text=True, timeout=120, check=False, cwd=FOLDER
        )
        assert done.returncode == 0, done.stdout + done.stderr
    tested = "".join((FOLDER / name).read_text() for name in tests)
    assert [rule["alert"] for rule in ALERTS if tested.count(rule["alert"]) < 2] == []


def test_what_a_node_tells_is_written_as_prometheus_wants_it(told: str) -> None:
    check = [program("promtool", "prometheus"), "check", "metrics"]
    done = subprocess.run(check, input=told, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    for name in ("nadir_settle_seconds", "nadir_job_run_seconds", "nadir_delivery_seconds"):
        assert f"# TYPE {name} summary\n" in told


def test_every_alert_says_what_to_do() -> None:
    for rule in ALERTS:
        assert rule["labels"]["severity"] in ("warning", "critical"), rule["alert"]
        assert rule["annotations"]["summary"] and len(rule["annotations"]["runbook"]) > 20, rule["alert"]


@pytest.mark.parametrize("expression", [*QUERIES, *(rule["expr"] for rule in ALERTS)])
def test_whatever_is_asked_for_is_told_by_a_node(expression: str, told_names: set[str]) -> None:
    asked = names_in(expression)
    assert asked or "ALERTS" in expression
    # of these there is nothing to tell in the made node: no certificate, no sink, nothing waiting, nothing trained
    seldom = {
        name for name in asked - told_names if f'"{name}"' in (ROOT / "node" / "metrics.py").read_text()
    }
    assert asked - told_names - seldom == set()


def test_the_dashboard_is_whole() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids)) and DASHBOARD["uid"] == "nadir"
    source = yaml.safe_load((FOLDER / "grafana/provisioning/datasources/prometheus.yml").read_text())
    uid = source["datasources"][0]["uid"]
    assert {p["datasource"]["uid"] for p in DASHBOARD["panels"] if "datasource" in p} == {uid}
    places = [p["gridPos"] for p in DASHBOARD["panels"]]
    assert all(g["x"] >= 0 and g["x"] + g["w"] <= 24 for g in places)


def test_no_label_holds_what_is_a_patients(told: str) -> None:
    labels = {key for f in text_string_to_metric_families(told) for s in f.samples for key in s.labels}
    assert labels <= {
        "destination", "family", "file", "generation", "kind", "le", "loop", "method", "own", "plugin",
        "quantile", "role", "route", "scheduled", "sink", "state", "status", "version",
    }  # fmt: skip
    assert "10.0.0.7:104" not in "".join(line for line in told.splitlines() if "nadir_loop" in line)


def test_a_scrape_is_cheap_and_true_with_many_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "FRESH_SECONDS", 3600.0)
    database = empty_database(tmp_path)
    filled = fill(database, findings=5_000)
    made = metrics.registry(database)
    text = metrics.text(made).decode()
    assert f"nadir_findings {float(filled.findings)}" in text
    monkeypatch.setattr(database, "reading", lambda: pytest.fail("it is remembered for a moment"))
    assert metrics.text(made).decode() == text
    database.dispose()


def test_durations_are_the_median_and_the_slowest_of_twenty() -> None:
    assert tally.quantiles([]) == {}
    assert tally.quantiles([3.0]) == {0.5: 3.0, 0.95: 3.0}
    assert tally.quantiles(range(1, 21)) == {0.5: 11, 0.95: 20}


def test_the_walk_along_the_audit_trail_finds_what_was_changed_and_begins_again(tmp_path: Path) -> None:
    database = empty_database(tmp_path)
    now = database.now()
    with database.transaction() as session:
        audit.append(session, [(now + timedelta(seconds=n), f"<m>{n}</m>") for n in range(5)])
    walk = tally.AuditWalk()

    def steps(count: int) -> list[bool]:
        with database.reading() as session:
            return [walk.step(session, rows=2) for _ in range(count)]

    assert steps(7) == [True] * 7
    with database.transaction() as session:
        row = session.get(AuditRecord, 3)
        assert row is not None
        message, row.message = row.message, "<m>another</m>"
    assert False in steps(6) and steps(3) == [False] * 3
    with database.transaction() as session:
        row = session.get(AuditRecord, 3)
        assert row is not None
        row.message = message
    assert steps(6)[-1] is True
    database.dispose()


def test_objects_are_counted_on_and_never_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "UNSETTLED", 10)
    database = empty_database(tmp_path)
    fill(database, findings=200)
    received = tally.Received()
    with database.reading() as session:
        first, again, anew = received.count(session), received.count(session), tally.Received().count(session)
    assert first == again == anew and sum(count for count, _ in first.values()) > 10
    database.dispose()


def test_a_process_says_on_its_own_port_that_it_lives(tmp_path: Path) -> None:
    vitals, wrong = Vitals(("worker",)), []

    def look() -> None:
        if wrong:
            raise Unavailable("the database is away")

    server = VitalsServer(vitals, look, "127.0.0.1", 0)
    server.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", trust_env=False) as client:
            assert client.get("/health").json() == {"status": "ok"}
            assert 'nadir_role{role="worker"} 1.0' in client.get("/metrics").text
            assert client.get("/jobs").status_code == 404
            wrong.append(True)
            assert client.get("/health").status_code == 503
            assert (
                client.get("/alive").status_code == 200
            )  # a database that is away is no reason to be restarted
            loop = Ended("settler", lambda now: False, lambda: datetime.now(UTC), 1.0)
            vitals.follow(loop)
            loop.start()
            while not loop.is_dead:
                time.sleep(0.001)
            assert client.get("/alive").json()["error"] == "the thread 'settler' has ended"
    finally:
        server.stop()


class Ended(Loop):
    """A loop whose thread ends by itself, which none should."""

    def _run(self) -> None:
        return


@pytest.mark.long
def test_a_real_prometheus_scrapes_a_real_node_and_answers_what_the_dashboard_asks(
    tmp_path: Path, free_port: Any
) -> None:
    at, own = free_port(), free_port()
    with node(tmp_path / "home", "--metrics-port", str(own)) as running:
        config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(FOLDER / "alerts.yml")]
        targets = {"nadir": running.http_port, "nadir-roles": own}
        config["scrape_configs"] = [
            {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
            for job, port in targets.items()
        ]
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
        prometheus = subprocess.Popen(
            [
                program("prometheus", "prometheus"),
                f"--config.file={tmp_path / 'prometheus.yml'}",
                f"--storage.tsdb.path={tmp_path / 'data'}",
                f"--web.listen-address=127.0.0.1:{at}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{at}", trust_env=False, timeout=120) as client:
                _await_targets(client, 2)
                time.sleep(3)
                for expression in QUERIES:
                    query = expression.replace("$__rate_interval", "4s")
                    answer = client.get("/api/v1/query", params={"query": query}).json()
                    assert answer["status"] == "success", (expression, answer)
                    if expression in ALWAYS:
                        assert answer["data"]["result"], expression
                firing = client.get("/api/v1/alerts").json()["data"]["alerts"]
                assert [a for a in firing if a["state"] == "firing"] == []
        finally:
            prometheus.terminate()
            prometheus.wait(60)


ALWAYS = {
    'max(nadir_role{role="listener"})',
    'nadir_jobs{state="queued"}',
    "nadir_job_oldest_due_seconds",
    "nadir_disk_free_bytes / nadir_disk_bytes",
    "nadir_audit_intact",
    "nadir_database_bytes",
    'process_resident_memory_bytes{job=~"nadir.*"}',
    "count by (version) (nadir_build_info)",
}


def _await_targets(client: httpx.Client, count: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            answer = client.get("/api/v1/query", params={"query": "sum(up)"}).json()["data"]["result"]
        except httpx.HTTPError:
            answer = []
        if answer and int(answer[0]["value"][1]) == count:
            return
        assert time.monotonic() < deadline, answer
        time.sleep(0.3)
