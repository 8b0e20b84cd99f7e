"""From a study in a real Orthanc to rows of ours: told by the hook, found by query, pulled once, also after crashes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from orthanc_server import OrthancServer, orthanc
from outbox_rows import waiting_results
from ports import free_port
from pulling_home import NOW, Home, series, study_uid, uids, work_off
from sqlmodel import col, select

from node import pull
from node.loop import Loop
from node.reconcile import Reconciler
from node.sender import Sender
from node.settings import Settings
from node.web.app import create_app
from node.web.server import WebServer
from store import studies
from store.tables import Study


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def server() -> Iterator[OrthancServer]:
    with orthanc() as running:
        yield running


@pytest.fixture
def web(home: Home) -> Iterator[WebServer]:
    settings = Settings(home=home.folder, pacs_url="http://127.0.0.1:9", hook_token="t0k")
    made = WebServer(create_app(settings, home.database), "127.0.0.1", free_port())
    yield made
    assert made.stop()


def wait_for(condition: Callable[[], bool], seconds: float = 25.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def test_a_study_that_becomes_stable_in_orthanc_is_pulled_and_may_settle_at_once(
    home: Home, web: WebServer, tmp_path: Path
) -> None:
    web.start()
    paths = series(tmp_path, "TOLD", 5) + series(
        tmp_path, "TOLD", 1, series_number=2, modality="PT", prefix="pt"
    )
    with orthanc(node_url=f"http://127.0.0.1:{web.port}", token="t0k") as server:
        for path in paths:
            server.upload(path)
        puller = home.puller(home.pacs(server.dicomweb))
        loop = Loop("puller", puller.tick, home.database.now, 0.05)
        loop.start()
        wait_for(
            lambda: home.wishes() == [study_uid(paths)] and home.wish(study_uid(paths)).state == "pulled"
        )
        assert loop.stop()
        assert home.held() == uids(paths)
        assert home.study().settle_now
        with home.database.reading() as session:
            due = studies.due(session, now=home.database.now(), quiet_seconds=3600, hard_cap_seconds=7200)
        assert [(d.study_pk, d.forced) for d in due] == [(home.study().id, False)]


def test_a_node_that_was_down_when_the_study_became_stable_is_told_when_it_is_up(
    home: Home, web: WebServer, tmp_path: Path
) -> None:
    paths = series(tmp_path, "DOWN", 1)
    with orthanc(node_url=f"http://127.0.0.1:{web.port}", token="t0k") as server:
        server.upload(paths[0])
        wait_for(lambda: server.get("/nadir/status")["failures_in_a_row"] >= 1)
        web.start()
        wait_for(lambda: home.wishes() == [study_uid(paths)])


def test_results_that_come_to_lie_in_orthanc_are_told_and_neither_pulled_nor_analysed(
    home: Home, web: WebServer, tmp_path: Path
) -> None:
    web.start()
    with orthanc(node_url=f"http://127.0.0.1:{web.port}", token="t0k") as server:
        results = waiting_results(home.database, home.objects, tmp_path, [server.dicomweb], count=2)
        before = home.held()
        sender = Sender(home.database, home.objects, server.dicomweb)
        while sender.tick(home.database.now()):
            pass
        sender.close()
        wait_for(lambda: len(home.wishes()) == 1)
        with home.database.transaction() as session:
            assert pull.own_uids(session, home.study().study_instance_uid) == set(results)
        puller = home.puller(home.pacs(server.dicomweb))
        assert work_off(puller, home.database.now()) == 1
        with home.database.reading() as session:
            state = session.exec(select(Study.state).where(col(Study.revision) == 1)).one()
        assert home.held() == before
        assert state == "settled"


def test_a_stable_event_that_died_with_orthanc_is_found_by_query(home: Home, tmp_path: Path) -> None:
    paths = series(tmp_path, "KILLED", 4)
    with orthanc(stable_seconds=3600) as server:  # without the hook: nobody tells
        for path in paths:
            server.upload(path)
        server.kill()
        server.start()
        pacs = home.pacs(server.dicomweb)
        reconciler, puller, now = (
            Reconciler(home.database, pacs, days=3),
            home.puller(pacs),
            home.database.now(),
        )
        assert reconciler.tick(now) is False
        assert work_off(puller, now) == 1
        assert home.held() == uids(paths)
        late = series(tmp_path, "KILLED", 2, series_number=9, prefix="late")
        for path in late:
            server.upload(path)
        reconciler.tick(now)
        assert work_off(puller, now) == 1
        assert home.held() == sorted(uids(paths) + uids(late))
        reconciler.tick(now)
        assert work_off(puller, now) == 0


def test_a_quiet_pacs_is_asked_one_query_a_round_and_everything_again_after_a_day(
    home: Home, server: OrthancServer, tmp_path: Path
) -> None:
    for path in series(tmp_path, "QUIET", 2):
        server.upload(path)
    asked: list[str] = []
    client = httpx.Client(trust_env=False, event_hooks={"request": [lambda r: asked.append(r.url.path)]})
    pacs = home.pacs(server.dicomweb, client)
    reconciler, puller, now = Reconciler(home.database, pacs, days=3), home.puller(pacs), home.database.now()
    reconciler.tick(now)
    work_off(puller, now)
    reconciler.tick(now + timedelta(minutes=5))
    asked.clear()
    reconciler.tick(now + timedelta(minutes=10))
    assert set(asked) == {"/dicom-web/studies"}
    asked.clear()
    reconciler.tick(now + timedelta(hours=25))
    assert any(path.endswith("/instances") for path in asked)


def test_a_study_that_already_waits_or_is_held_is_not_asked_for_again(
    home: Home, server: OrthancServer, tmp_path: Path
) -> None:
    paths = series(tmp_path, "WAITS", 2)
    for path in paths:
        server.upload(path)
    home.request(study_uid(paths))
    Reconciler(home.database, home.pacs(server.dicomweb), days=3).tick(home.database.now())
    assert home.wish(study_uid(paths)).requests == 1


def test_a_flood_of_missed_studies_is_taken_in_rounds_and_one_bad_uid_stops_none(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.reconcile.MAX_STUDIES_PER_ROUND", 10)

    def handle(request: httpx.Request) -> httpx.Response:
        if int(request.url.params["offset"]):
            return httpx.Response(204)
        if request.url.path.endswith("/instances"):
            study = request.url.path.split("/")[-2]
            row = {"00080018": {"Value": [study + ".1.1"]}, "0020000E": {"Value": [study + ".1"]}}
            return httpx.Response(200, json=[row])
        rows = [{"0020000D": {"Value": [f"1.2.{n}"]}, "00201208": {"Value": [1]}} for n in range(24)]
        rows.insert(3, {"0020000D": {"Value": ["../1"]}})
        return httpx.Response(200, json=rows)

    pacs = home.pacs("http://pacs", httpx.Client(transport=httpx.MockTransport(handle)))
    reconciler = Reconciler(home.database, pacs, days=3)
    counts = []
    for minute in range(4):
        reconciler.tick(NOW + timedelta(minutes=minute))
        counts.append(len(home.wishes()))
    assert counts == [9, 19, 24, 24]
