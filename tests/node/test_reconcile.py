"""From a study in a real Orthanc to rows of ours: told by the hook, found by query, pulled once, also after crashes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import pytest
from dicom_series import make_series
from empty_database import empty_database
from orthanc_server import OrthancServer, orthanc
from outbox_rows import waiting_results
from ports import free_port
from postgres_server import running_postgres
from pydicom import dcmread
from sqlmodel import col, select

from node import metrics, pull
from node.intake import Intake
from node.loop import Loop
from node.pacs import DicomWeb
from node.pull import Puller
from node.reconcile import Reconciler
from node.sender import Sender
from node.settings import Settings
from node.web.app import create_app
from node.web.server import WebServer
from plugins.errors import Refused, Unavailable
from store import studies
from store.database import Database
from store.objects import ObjectStore
from store.tables import Association, Event, Instance, Pull, Study

TODAY = f"{datetime.now(UTC):%Y%m%d}"
NOW = datetime(2025, 1, 1, 12, tzinfo=UTC)


class Home:
    """What a node keeps, and the parts of it that speak with a PACS."""

    def __init__(self, folder: Path, url: str = "") -> None:
        self.folder = folder
        self.database = Database(url) if url else empty_database(folder)
        if url:
            self.database.upgrade()
        self.objects = ObjectStore(folder / "store")
        self.intake = Intake(self.database, self.objects)
        self.clients: list[DicomWeb] = []

    def pacs(self, url: str, client: httpx.Client | None = None) -> DicomWeb:
        self.clients.append(DicomWeb(url, client=client))
        return self.clients[-1]

    def puller(self, pacs: DicomWeb, reserve_bytes: int = 0) -> Puller:
        return Puller(self.database, self.objects, self.intake, pacs, reserve_bytes=reserve_bytes)

    def request(self, uid: str, now: datetime = NOW, *, everything: bool = False) -> None:
        with self.database.transaction() as session:
            pull.request(session, uid, now=now, everything=everything)

    def wish(self, uid: str) -> Pull:
        with self.database.reading() as session:
            return session.get_one(Pull, uid)

    def wishes(self) -> list[str]:
        with self.database.reading() as session:
            return sorted(session.exec(select(Pull.study_instance_uid)))

    def held(self) -> list[str]:
        with self.database.reading() as session:
            return sorted(session.exec(select(Instance.sop_instance_uid).where(Instance.current)))

    def study(self) -> Study:
        with self.database.reading() as session:
            return session.exec(select(Study)).one()

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.database.dispose()


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


def series(folder: Path, patient_id: str, count: int = 3, **more: object) -> list[Path]:
    return make_series(
        folder / patient_id, np.zeros((count, 8, 8)), patient_id=patient_id, study_date=TODAY, **more
    )


def uids(paths: list[Path]) -> list[str]:
    return sorted(str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in paths)


def study_uid(paths: list[Path]) -> str:
    return str(dcmread(paths[0], stop_before_pixels=True).StudyInstanceUID)


def wait_for(condition: Callable[[], bool], seconds: float = 25.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def work_off(puller: Puller, now: datetime) -> int:
    rounds = 0
    while puller.tick(now):
        rounds += 1
    return rounds


# --- told by the hook -------------------------------------------------------------------------------------------


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


# --- found by query ---------------------------------------------------------------------------------------------


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


# --- pulling ----------------------------------------------------------------------------------------------------


def test_only_what_is_missing_is_fetched_and_a_second_pull_fetches_nothing(
    home: Home, server: OrthancServer, tmp_path: Path
) -> None:
    paths = series(tmp_path, "PART", 4)
    for path in paths:
        server.upload(path)
    temporary = home.objects.temporary()
    temporary.write_bytes(paths[0].read_bytes())
    home.intake.take(temporary, source="SCANNER")
    puller = home.puller(home.pacs(server.dicomweb))
    first, second = (puller.pull_study(study_uid(paths)) for _ in range(2))
    assert (first.listed, first.taken, first.refused) == (4, 3, 0)
    assert (second.listed, second.taken, second.refused) == (4, 0, 0)
    assert home.held() == uids(paths)
    with home.database.reading() as session:
        assert all(a.closed_at is not None for a in session.exec(select(Association)))
    assert list((home.objects.root / "incoming").iterdir()) == []


def test_the_object_that_was_pulled_is_the_object_that_was_sent(
    home: Home, server: OrthancServer, tmp_path: Path
) -> None:
    paths = series(tmp_path, "BYTES", 2)
    for path in paths:
        server.upload(path)
        temporary = home.objects.temporary()
        temporary.write_bytes(path.read_bytes())
        home.intake.take(temporary, source="SCANNER")
    pulled = home.puller(home.pacs(server.dicomweb)).pull_study(study_uid(paths), everything=True)
    assert pulled.taken == 2
    # Equal bytes are one row: had the PACS or the way changed one, there would be a second and a conflict.
    with home.database.reading() as session:
        assert len(session.exec(select(Instance)).all()) == 2
        assert session.exec(select(Event).where(Event.kind == "conflict")).all() == []


def test_content_that_changed_under_the_same_uid_is_fetched_when_everything_is_asked_for(
    home: Home, server: OrthancServer, tmp_path: Path
) -> None:
    (path,) = series(tmp_path, "CHANGED", 1)
    server.upload(path)
    puller = home.puller(home.pacs(server.dicomweb))
    puller.pull_study(study_uid([path]))
    dataset = dcmread(path)
    dataset.StudyDescription = "Corrected"
    dataset.save_as(path)
    server.upload(path)
    assert puller.pull_study(study_uid([path])).taken == 0
    assert puller.pull_study(study_uid([path]), everything=True).taken == 1
    with home.database.reading() as session:
        assert sorted(session.exec(select(Instance.current))) == [False, True]


def test_a_study_is_not_settled_in_the_middle_of_its_pull(
    home: Home, server: OrthancServer, tmp_path: Path
) -> None:
    paths = series(tmp_path, "MIDDLE", 3)
    for path in paths:
        server.upload(path)
    seen: list[int] = []
    take = home.intake.take

    def watched(*args: object, **kwargs: object) -> object:
        recorded = take(*args, **kwargs)  # type: ignore[arg-type]  # passed on as they came
        with home.database.reading() as session:
            seen.append(
                len(studies.due(session, now=home.database.now(), quiet_seconds=0, hard_cap_seconds=9e3))
            )
        return recorded

    home.intake.take = watched  # type: ignore[method-assign,assignment]  # to look in between
    home.puller(home.pacs(server.dicomweb)).pull_study(study_uid(paths))
    assert seen == [0, 0, 0]
    with home.database.reading() as session:
        assert len(studies.due(session, now=home.database.now(), quiet_seconds=0, hard_cap_seconds=9e3)) == 1


def scripted(
    instances: dict[str, list[str]], bodies: dict[str, bytes]
) -> Callable[[httpx.Request], httpx.Response]:
    """Return a PACS that lists `instances` (of series) and gives `bodies` (of instances)."""

    def handle(request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path.endswith("/instances"):
            rows = [
                {"00080018": {"Value": [sop]}, "0020000E": {"Value": [of]}}
                for of, sops in instances.items()
                for sop in sops
            ]
            return httpx.Response(200, json=rows if request.url.params["offset"] == "0" else [])
        wanted = instances[path.split("/")[4]] if "/instances/" not in path else [path.rsplit("/", 1)[1]]
        parts = [b"--b\r\n\r\n" + bodies[sop] + b"\r\n" for sop in wanted if sop in bodies]
        body = b"".join(parts) + b"--b--"
        header = {"Content-Type": "multipart/related; boundary=b"}
        return httpx.Response(200, stream=Body(body), headers=header)

    return handle


class Body(httpx.SyncByteStream):
    def __init__(self, content: bytes) -> None:
        self.content = content

    def __iter__(self) -> Iterator[bytes]:
        yield self.content


def test_an_instance_that_is_no_dicom_is_put_aside_and_the_rest_is_kept(home: Home, tmp_path: Path) -> None:
    paths = series(tmp_path, "ROTTEN", 2)
    of, (good, bad) = dcmread(paths[0]).SeriesInstanceUID, uids(paths)
    content = {uid: path.read_bytes() for path in paths for uid in uids([path])}
    client = httpx.Client(
        transport=httpx.MockTransport(scripted({of: [good, bad]}, {**content, bad: b"rubbish"}))
    )
    pulled = home.puller(home.pacs("http://pacs", client)).pull_study(study_uid(paths))
    assert (pulled.taken, pulled.refused) == (1, 1)
    assert home.held() == [good]
    with home.database.reading() as session:
        assert [e.kind for e in session.exec(select(Event))] == ["quarantine"]


def test_a_pacs_that_lists_more_than_it_gives_is_asked_three_times_and_then_a_person(
    home: Home, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = series(tmp_path, "LIAR", 2)
    of, (first, second) = dcmread(paths[0]).SeriesInstanceUID, uids(paths)
    content = {uid: path.read_bytes() for path in paths for uid in uids([path])}
    client = httpx.Client(
        transport=httpx.MockTransport(scripted({of: [first, second]}, {first: content[first]}))
    )
    puller, uid = home.puller(home.pacs("http://pacs", client)), study_uid(paths)
    home.request(uid)
    now = NOW
    for _ in range(6):
        work_off(puller, now)
        now += timedelta(hours=1)
    wish = home.wish(uid)
    assert (wish.state, wish.attempt, wish.error_code) == ("parked", 3, "incomplete-pull")
    said = [text for text in caplog.messages if text.startswith("action=not-pulled")]
    assert said[-1].endswith(f"state=parked told_at={NOW:%Y-%m-%dT%H:%M:%SZ} study=1")
    assert uid not in "".join(said)
    assert home.held() == [first]


def test_a_study_that_the_pacs_does_not_hold_is_parked_and_told(
    home: Home, server: OrthancServer, caplog: pytest.LogCaptureFixture
) -> None:
    puller = home.puller(home.pacs(server.dicomweb))
    home.request("1.2.3.4.5")
    now = NOW
    for _ in range(6):
        work_off(puller, now)
        now += timedelta(hours=1)
    wish = home.wish("1.2.3.4.5")
    assert (wish.state, wish.attempt, wish.error_code) == ("parked", 3, "pacs-unknown")
    (*_, said) = (text for text in caplog.messages if text.startswith("action=not-pulled"))
    assert said.endswith(f"state=parked told_at={NOW:%Y-%m-%dT%H:%M:%SZ}")
    with home.database.reading() as session:
        assert [(e.kind, e.subject) for e in session.exec(select(Event))] == [("pull-parked", "1.2.3.4.5")]
    home.request("1.2.3.4.5", now)
    assert home.wish("1.2.3.4.5").state == "waiting"


def test_an_outage_of_the_pacs_is_waited_out_and_uses_up_no_tries(
    home: Home, server: OrthancServer, tmp_path: Path
) -> None:
    (path,) = series(tmp_path, "OUTAGE", 1)
    server.upload(path)
    uid, now, rounds = study_uid([path]), NOW, 0
    home.request(uid)
    down = home.puller(home.pacs("http://127.0.0.1:9/dicom-web"))
    while now < NOW + timedelta(hours=12):
        rounds += work_off(down, now)
        now += timedelta(minutes=5)
    wish = home.wish(uid)
    assert (wish.state, wish.error_code) == ("waiting", "unavailable")
    assert rounds == wish.attempt and rounds < 80
    assert work_off(home.puller(home.pacs(server.dicomweb)), now + timedelta(minutes=18)) == 1
    wish = home.wish(uid)
    assert (wish.state, wish.attempt, wish.error_code) == ("pulled", 0, None)


def test_a_study_that_is_told_again_during_its_pull_is_pulled_again(
    home: Home, server: OrthancServer, tmp_path: Path
) -> None:
    (path,) = series(tmp_path, "AGAIN", 1)
    server.upload(path)
    uid = study_uid([path])
    home.request(uid)
    puller = home.puller(home.pacs(server.dicomweb))
    pull_study = puller.pull_study

    def told_meanwhile(*args: object, **kwargs: object) -> object:
        home.request(uid)
        return pull_study(*args, **kwargs)  # type: ignore[arg-type]  # passed on as they came

    puller.pull_study = told_meanwhile  # type: ignore[method-assign,assignment]  # to tell in between
    assert puller.tick(NOW)
    assert home.wish(uid).state == "waiting"
    del puller.pull_study
    assert work_off(puller, NOW) == 1
    assert home.wish(uid).state == "pulled"


def test_a_study_that_breaks_the_puller_does_not_stop_the_others(
    home: Home, server: OrthancServer, tmp_path: Path
) -> None:
    (path,) = series(tmp_path, "AFTER", 1)
    server.upload(path)
    home.request("1.2.3", NOW - timedelta(hours=1))
    home.request(study_uid([path]))
    pacs = home.pacs(server.dicomweb)
    ask = pacs.study_instances

    def break_once(uid: str) -> object:
        if uid == "1.2.3":
            raise ValueError("a fault of ours")
        return ask(uid)

    pacs.study_instances = break_once  # type: ignore[method-assign,assignment]  # to break one study
    puller = home.puller(pacs)
    with pytest.raises(ValueError, match="a fault of ours"):
        puller.tick(NOW)
    assert work_off(puller, NOW) == 1
    assert home.held() == uids([path])
    assert home.wish("1.2.3").state == "waiting"


def test_nothing_is_fetched_onto_a_disk_that_is_nearly_full(
    home: Home, server: OrthancServer, tmp_path: Path
) -> None:
    paths = series(tmp_path, "FULL", 2)
    for path in paths:
        server.upload(path)
    with pytest.raises(Unavailable, match="disk"):
        home.puller(home.pacs(server.dicomweb), reserve_bytes=1 << 60).pull_study(study_uid(paths))
    assert home.held() == []


@pytest.mark.postgres
def test_on_postgresql_a_study_told_from_everywhere_at_once_waits_once_and_is_pulled(
    server: OrthancServer, tmp_path: Path
) -> None:
    paths = series(tmp_path, "PG", 2)
    for path in paths:
        server.upload(path)
    with running_postgres() as postgres, closing(Home(tmp_path, postgres.url(postgres.create()))) as home:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: home.request(study_uid(paths)), range(40)))
        assert home.wish(study_uid(paths)).requests == 40
        assert work_off(home.puller(home.pacs(server.dicomweb)), NOW) == 1
        assert home.held() == uids(paths)
        Reconciler(home.database, home.clients[0], days=3).tick(home.database.now())
        counted = metrics.text(metrics.registry(home.database)).decode()
        assert 'nadir_pulls{state="pulled"} 1.0' in counted and "nadir_instances 2.0" in counted


def test_a_uid_that_is_none_is_refused_before_anybody_is_asked(home: Home, server: OrthancServer) -> None:
    with pytest.raises(Refused, match="invalid-uid"):
        home.puller(home.pacs(server.dicomweb)).pull_study("../studies")
