"""Two people who decide of one finding at the same moment, on PostgreSQL, where both read before either writes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from at_once import at_once
from course_rows import Clock, lesion, visit
from postgres_server import running_postgres
from sqlmodel import select
from web_site import WebSite

from store import accounts
from store.database import Database
from store.tables import Finding

pytestmark = pytest.mark.postgres
ROUNDS = 3


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebSite]:
    """Give a node on PostgreSQL with one lesion for each round."""
    monkeypatch.setattr(accounts, "SCRYPT_N", 1 << 4)
    with running_postgres() as server:
        url = server.url(server.create())
        database = Database(url)
        database.upgrade()
        database.dispose()
        made = WebSite(tmp_path, database_url=url)
        for name in ("ANNA", "BERT"):
            made.account(name, "physicist")
        with made.database.transaction() as session:
            found = [lesion(f"2.25.{n}", segment_number=n) for n in range(1, ROUNDS + 1)]
            visit(session, Clock(), date(2026, 1, 10), found, study="1.2.1")
        yield made
        made.stop()


def test_of_two_who_decide_of_one_finding_at_one_time_the_second_is_told_that_it_was_overtaken(
    site: WebSite,
) -> None:
    clients = [site.signed_in(name) for name in ("ANNA", "BERT")]
    with site.database.reading() as session:
        rows = session.exec(select(Finding.id, Finding.tracking_uid).order_by(Finding.tracking_uid)).all()
    assert len(rows) == ROUNDS
    for pk, uid in rows:
        told: list[tuple[int, str]] = []

        def decide(number: int, pk: int | None = pk, uid: str = uid) -> None:
            said = {"lesion": uid, "finding": pk, "seen": "", "kind": "role"}
            value = ("target", "ignore")[number]
            answer = clients[number].post("/api/studies/1.2.1/choices", json={**said, "value": value})
            told.append((answer.status_code, answer.json().get("code", "")))  # noqa: B023

        at_once(decide, 2)
        assert sorted(told) == [(201, ""), (409, "overtaken")]
    assert clients[0].get("/api/studies/1.2.1/choices").json()["total"] == ROUNDS
