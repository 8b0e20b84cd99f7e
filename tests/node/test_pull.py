"""The pull of a study from a PACS: only what is missing, once, also when the PACS lies, fails or tells of it again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from orthanc_server import OrthancServer, orthanc
from postgres_server import running_postgres
from pulling_home import NOW, Home, series, study_uid, uids, work_off
from pydicom import dcmread
from sqlmodel import select

from node import metrics
from node.reconcile import Reconciler
from plugins.errors import Refused, Unavailable
from store import studies
from store.tables import Association, Event, Instance, Study


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def server() -> Iterator[OrthancServer]:
    with orthanc() as running:
        yield running


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


def test_a_pull_tells_that_it_goes_on_also_after_the_clock_was_set_back(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, right = series(tmp_path, "BACK", 2), home.database.now()
    content = {uid: path.read_bytes() for path in paths for uid in uids([path])}
    listed = {str(dcmread(paths[0]).SeriesInstanceUID): uids(paths)}
    client = httpx.Client(transport=httpx.MockTransport(scripted(listed, content)))
    clock, take = [right + timedelta(hours=1)], home.intake.take

    def set_back(*args: object, **kwargs: object) -> object:
        clock[:] = [right]
        return take(*args, **kwargs)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr("node.pull.BEAT_SECONDS", -1.0)
    monkeypatch.setattr(home.database, "now", lambda: clock[0])
    monkeypatch.setattr(home.intake, "take", set_back)
    assert home.puller(home.pacs("http://pacs", client)).pull_study(study_uid(paths)).taken == 2
    with home.database.reading() as session:
        assert session.exec(select(Association.alive_at)).all() == [right]


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


def test_images_of_two_patients_in_a_series_that_the_pacs_does_not_give_as_a_whole_come_one_by_one(
    home: Home, server: OrthancServer, tmp_path: Path
) -> None:
    paths = series(tmp_path, "MIXED", 4)
    for number, path in enumerate(paths):
        dataset = dcmread(path)
        dataset.PatientID = "MIXED" if number < 2 else "MISTYPED"
        dataset.save_as(path)
        server.upload(path)
    of = dcmread(paths[0]).SeriesInstanceUID
    pacs = home.pacs(server.dicomweb)
    with pytest.raises(Refused, match="pacs-unknown"):
        list(pacs.retrieve_series(study_uid(paths), of, home.objects.temporary))
    home.request(study_uid(paths))
    assert work_off(home.puller(pacs), NOW) == 1
    assert (home.wish(study_uid(paths)).state, home.held()) == ("pulled", uids(paths))
    with home.database.transaction() as session:
        settled = {"now": home.database.now(), "forced": True, "objects": home.objects}
        studies.settle(session, int(session.exec(select(Study.id)).one() or 0), **settled)
        kinds = session.exec(select(Event.kind)).all()
    assert "patient-conflict" in kinds and "pull-parked" not in kinds


def test_an_instance_that_is_listed_and_refused_holds_no_other_series_back(
    home: Home, tmp_path: Path
) -> None:
    paths = series(tmp_path, "ONE", 2)
    first, second = uids(paths)
    content = {uid: path.read_bytes() for path in paths for uid in uids([path])}
    served = scripted({"1.2.9": ["1.2.9.1"], "1.2.8": [first], "1.2.7": [second]}, content)
    client = httpx.Client(
        transport=httpx.MockTransport(
            lambda r: httpx.Response(404) if r.url.path.endswith("/1.2.9.1") else served(r)
        )
    )
    with pytest.raises(Refused, match="gave 2 of the 3 instances"):
        home.puller(home.pacs("http://pacs", client)).pull_study(study_uid(paths))
    assert home.held() == [first, second]


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


def test_an_instance_of_another_study_than_was_asked_for_is_put_aside(home: Home, tmp_path: Path) -> None:
    paths, (foreign,) = series(tmp_path, "ASKED", 2), series(tmp_path, "FOREIGN", 1)
    of, (good, bad) = dcmread(paths[0]).SeriesInstanceUID, uids(paths)
    content = {uid: path.read_bytes() for path in paths for uid in uids([path])}
    given = {**content, bad: foreign.read_bytes()}
    client = httpx.Client(transport=httpx.MockTransport(scripted({of: [good, bad]}, given)))
    pulled = home.puller(home.pacs("http://pacs", client)).pull_study(study_uid(paths))
    assert (pulled.taken, pulled.refused) == (1, 1)
    assert home.held() == [good]
    with home.database.reading() as session:
        (event,) = session.exec(select(Event))
    assert (event.kind, event.text) == ("quarantine", "study-not-asked from http://pacs")


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


@pytest.mark.parametrize("status", [401, 403, 407, 302])
def test_a_pacs_that_denies_access_is_waited_out_and_told_once_however_many_studies_wait(
    home: Home, tmp_path: Path, status: int
) -> None:
    paths = series(tmp_path, "DENIED", 2)
    content = {uid: path.read_bytes() for path in paths for uid in uids([path])}
    served = scripted({str(dcmread(paths[0]).SeriesInstanceUID): uids(paths)}, content)
    is_denied = [True]
    client = httpx.Client(
        transport=httpx.MockTransport(lambda r: httpx.Response(status) if is_denied[0] else served(r))
    )
    puller, now, rounds = home.puller(home.pacs("http://pacs", client)), NOW, 0
    home.request(study_uid(paths))
    home.request("1.2.3")
    while now < NOW + timedelta(hours=12):
        rounds += work_off(puller, now)
        now += timedelta(minutes=5)
    wishes = [home.wish(uid) for uid in (study_uid(paths), "1.2.3")]
    code = "pacs-moved" if status == 302 else "pacs-denied"
    assert [(wish.state, wish.error_code) for wish in wishes] == [("waiting", code)] * 2
    assert rounds == sum(wish.attempt for wish in wishes) and rounds < 160
    with home.database.reading() as session:
        assert [(e.kind, e.subject) for e in session.exec(select(Event))] == [("pull-denied", "http://pacs")]
    is_denied[0] = False
    work_off(puller, now + timedelta(minutes=18))
    assert (home.wish(study_uid(paths)).state, home.held()) == ("pulled", uids(paths))


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
