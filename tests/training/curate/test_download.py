"""Series of public archives over connections that break: everything is there in the end, whole, and fetched once."""

from __future__ import annotations

import errno
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_series import make_series
from public_archives import DOI, PublicArchives, serving

from plugins.errors import Refused, Unavailable
from training.curate import idc as idc_module
from training.curate import tcia as tcia_module
from training.curate.download import Got, Plan, Source, Wanted, download, write_record
from training.curate.idc import Idc
from training.curate.idc_index import IdcIndex
from training.curate.selection import Selection, choose
from training.curate.tcia import Tcia
from training.curate.wire import Patience, Wire, retry_after_s

Made = Callable[..., Wire]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """Return two series of one patient and one of another."""
    root = tmp_path_factory.mktemp("series")
    noise = np.random.default_rng(5).integers(-1000, 500, (5, 24, 24))
    make_series(root / "a", noise, patient_id="LIDC-1")
    make_series(root / "b", noise[:2] + 1, patient_id="LIDC-1", series_number=2, modality="PT")
    make_series(root / "c", noise[:3] + 2, patient_id="LIDC-2")
    return root / "a", root / "b", root / "c"


@pytest.fixture
def archives(folders: tuple[Path, ...]) -> Iterator[PublicArchives]:
    with serving(PublicArchives(*folders)) as running:
        yield running


@pytest.fixture
def index(archives: PublicArchives, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return archives.index(tmp_path_factory.mktemp("index") / "index.csv")


@pytest.fixture
def slept() -> list[float]:
    return []


@pytest.fixture
def wire(slept: list[float]) -> Iterator[Made]:
    """Give what makes connections; waiting takes no time."""
    made: list[Wire] = []

    def make(url: str, **more: Any) -> Wire:
        made.append(Wire(url, sleep=slept.append, **more))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(params=["tcia", "idc"])
def source(request: pytest.FixtureRequest, archives: PublicArchives, wire: Made, index: Path) -> Source:
    """Return each of the two archives."""
    patience = Patience(attempts=4)
    if request.param == "tcia":
        return Tcia(wire(archives.tcia, patience=patience))
    return Idc(wire(archives.url, patience=patience), IdcIndex(named=index))


def take(source: Source, folder: Path, selection: Selection | None = None, **more: Any) -> tuple[Got, ...]:
    """Download the collection."""
    chosen = choose(source.series("LIDC-IDRI", selection or Selection()), selection or Selection())
    return download([Wanted(source=source, series=one) for one in chosen.series], folder, **more)


def files_of(folder: Path) -> dict[str, bytes]:
    """Return every file that is not in the workplace, by its path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".nadir" not in path.parts
    }


def held(archives: PublicArchives) -> dict[str, bytes]:
    """Return what has to be in the folder in the end."""
    return {f"{one.uid}/{sop}.dcm": data for one in archives.held for sop, data in one.files.items()}


def transfers(archives: PublicArchives) -> int:
    return archives.count("getImageWithMD5Hash", "getSingleImage", "object")


BIG = {"tcia": "getImageWithMD5Hash", "idc": "object"}


def test_a_collection_comes_whole_and_a_second_call_fetches_nothing(
    source: Source, archives: PublicArchives, tmp_path: Path
) -> None:
    got = take(source, tmp_path / "out")
    assert files_of(tmp_path / "out") == held(archives)
    assert sorted((one.new, one.kept, len(one.missing)) for one in got) == [(2, 2, 0), (3, 3, 0), (5, 5, 0)]
    assert not list((tmp_path / "out" / ".nadir").glob("*.part*"))
    before = len(archives.asked)
    again = take(source, tmp_path / "out")
    assert [one.new for one in again] == [0, 0, 0]
    asked = [one.endpoint for one in archives.asked[before:]]
    assert asked == (["getSeries"] if source.name == "tcia" else [])


@pytest.mark.parametrize("fault", ["cut", "flip", "short", "429", "503"])
def test_what_goes_wrong_once_is_fetched_again(
    source: Source, archives: PublicArchives, slept: list[float], tmp_path: Path, fault: str
) -> None:
    archives.faults = {BIG[source.name]: [fault], "getSOPInstanceUIDs": ["503"], "list": ["503"]}
    got = take(source, tmp_path, at_once=1)
    assert all(not one.missing for one in got)
    assert files_of(tmp_path) == held(archives)
    if fault == "429":
        assert max(slept) >= 7.0


@pytest.mark.parametrize("fault", ["cut", "flip", "short", "503", "404"])
def test_what_always_goes_wrong_is_given_up_and_told(
    source: Source, archives: PublicArchives, tmp_path: Path, fault: str
) -> None:
    archives.always = {BIG[source.name]: fault, "getSingleImage": fault}
    got = take(source, tmp_path)
    if (source.name, fault) == ("tcia", "flip"):  # one byte of a zip file is one image
        assert [len(one.missing) for one in got] == [1, 1, 1]
        assert files_of(tmp_path).items() < held(archives).items()
    else:
        assert files_of(tmp_path) == {}
        assert all(one.missing and not one.kept for one in got)
    assert transfers(archives) <= 4 * (3 + 10)


def test_an_image_whose_checksum_is_wrong_each_time_is_the_only_one_that_is_missing(
    archives: PublicArchives, index: Path, slept: list[float], tmp_path: Path, wire: Made
) -> None:
    to = wire(archives.url, patience=Patience(attempts=3), connections=1)
    idc = Idc(to, IdcIndex(named=index))
    archives.faults = {"object": ["flip"] * 3}
    got = take(idc, tmp_path / "out", at_once=1)
    (why,) = [why for one in got for why in one.missing.values()]
    assert why.startswith("the checksum of ") and why.endswith("(asked 3 times)")
    assert len(files_of(tmp_path / "out")) == len(held(archives)) - 1


def test_a_cut_object_is_gone_on_with_by_range_and_anew_where_the_server_knows_no_ranges(
    archives: PublicArchives, index: Path, tmp_path: Path, wire: Made
) -> None:
    for ranges in (True, False):
        told: list[int] = []
        to = wire(archives.url, tell=told.append, connections=1)
        archives.ranges, archives.faults, archives.asked = ranges, {"object": ["cut"]}, []
        assert all(
            not one.missing for one in take(Idc(to, IdcIndex(named=index)), tmp_path / str(ranges), at_once=1)
        )
        assert files_of(tmp_path / str(ranges)) == held(archives)
        first, second = [one for one in archives.asked if one.endpoint == "object"][:2]
        halves = {f"bytes={len(data) // 2}-" for data in held(archives).values()}
        assert "Range" not in first.headers
        assert second.headers["Range"] in halves
        assert sum(told) == sum(map(len, held(archives).values()))


def test_a_zip_file_that_lacks_images_is_made_up_for_one_by_one(
    archives: PublicArchives, tmp_path: Path, wire: Made
) -> None:
    archives.lost = {min(archives.held[0].files)}
    to = wire(archives.tcia)
    take(Tcia(to), tmp_path)
    assert files_of(tmp_path) == held(archives)
    assert archives.count("getSingleImage") == 1


@pytest.mark.sec
def test_names_in_a_zip_file_lead_nowhere_and_strangers_are_left(
    archives: PublicArchives, folders: tuple[Path, ...], tmp_path: Path, wire: Made
) -> None:
    stranger = next(folders[2].iterdir()).read_bytes()
    archives.strangers = [
        ("../../evil.dcm", stranger),
        ("/etc/evil.dcm", stranger),
        ("LICENSE", b"CC BY 3.0"),
        ("..\\evil.dcm", b"x" * 200),
        ("folder/", b""),
    ]
    to = wire(archives.tcia)
    take(Tcia(to), tmp_path / "deep" / "out")
    assert files_of(tmp_path / "deep" / "out") == held(archives)
    assert [path.name for path in tmp_path.rglob("*evil*")] == []


@pytest.mark.sec
def test_a_zip_bomb_is_not_unpacked(
    archives: PublicArchives, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wire: Made
) -> None:
    monkeypatch.setattr(tcia_module, "SLACK_BYTES", 1 << 16)
    archives.strangers = [("bomb.dcm", bytes(128) + b"DICM" + bytes(4 << 20))]
    to = wire(archives.tcia)
    got = take(Tcia(to), tmp_path)
    assert all("unpack to more" in why for one in got for why in one.missing.values())
    assert files_of(tmp_path) == {}


@pytest.mark.sec
def test_a_redirect_is_followed_to_the_sources_own_domains_only_and_without_the_token(
    source: Source, archives: PublicArchives, folders: tuple[Path, ...], tmp_path: Path, wire: Made
) -> None:
    with serving(PublicArchives(*folders)) as other:
        archives.always = {BIG[source.name]: f"to {other.url}/stolen", "getSingleImage": f"to {other.url}/x"}
        got = take(source, tmp_path)
        assert other.asked == []
    assert all("redirects to http://127.0.0.1, which is not its own" in str(one.missing) for one in got)
    to = wire("https://archive.example", friends=("amazonaws.com",))
    for target, is_allowed in {
        "https://s3.us-east-1.amazonaws.com/x": True,
        "/elsewhere": True,
        "http://s3.us-east-1.amazonaws.com/x": False,
        "https://amazonaws.com.evil.example/x": False,
        "https://evilamazonaws.com/x": False,
        "https://amazonaws.com@evil.example/x": False,
        "https://169.254.169.254/latest": False,
        "file:///etc/passwd": False,
    }.items():
        assert _follows(to, target) is is_allowed, target


def _follows(wire: Wire, target: str) -> bool:
    import httpx

    answer = httpx.Response(
        302, headers={"Location": target}, request=httpx.Request("GET", "https://archive.example/a")
    )
    try:
        wire._allowed(answer)
    except Refused as refused:
        assert refused.code == "source-redirect"
        return False
    return True


def test_a_token_goes_to_its_own_server_as_a_header_and_into_no_message(
    archives: PublicArchives, tmp_path: Path, wire: Made
) -> None:
    to = wire(archives.tcia, token="s3cret")
    archives.always = {"getSeries": "404"}
    with pytest.raises(Refused, match="NADIR_TCIA_TOKEN") as caught:
        Tcia(to).series("LIDC-IDRI", Selection())
    assert "s3cret" not in str(caught.value)
    assert archives.asked[0].headers["Authorization"] == "Bearer s3cret"


class FullDisk(io.BytesIO):
    def write(self, _: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", "x.part")


def test_a_full_disk_ends_everything_at_once_and_what_came_stays(
    source: Source, archives: PublicArchives, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(source, tmp_path, Selection(patients=frozenset({"LIDC-2"})))
    there, before = files_of(tmp_path), transfers(archives)
    plain = Path.open

    def full(self: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        return (
            FullDisk()
            if self.suffix == ".part" and mode in ("wb", "ab")
            else plain(self, mode, *rest, **more)
        )

    monkeypatch.setattr(Path, "open", full)
    got = take(source, tmp_path)
    assert {why for one in got for why in one.missing.values()} <= {"the disk is full", "stopped"}
    assert files_of(tmp_path) == there
    assert transfers(archives) - before <= 4 + 4  # those under way, each once


def test_without_room_nothing_is_begun(
    source: Source, archives: PublicArchives, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 4096})())
    with pytest.raises(Refused, match="GB are needed") as caught:
        take(source, tmp_path)
    assert caught.value.code == "no-room"
    assert transfers(archives) == 0


def test_what_was_damaged_on_disk_is_fetched_again_and_nothing_else(
    source: Source, archives: PublicArchives, tmp_path: Path
) -> None:
    take(source, tmp_path)
    cut, changed, *_ = sorted(tmp_path.glob("*/*.dcm"))
    cut.write_bytes(cut.read_bytes()[:-100])
    changed.write_bytes(changed.read_bytes()[:-1] + b"\x55")
    touched = sorted(tmp_path.glob("*/*.dcm"))[-1]
    touched.touch()
    before = transfers(archives)
    got = take(source, tmp_path)
    assert sum(one.new for one in got) == 2
    assert transfers(archives) - before == 2
    assert files_of(tmp_path) == held(archives)


def test_files_whose_journal_is_lost_are_known_by_their_bytes(
    source: Source, archives: PublicArchives, tmp_path: Path
) -> None:
    take(source, tmp_path)
    for journal in (tmp_path / ".nadir").glob("*.jsonl"):
        journal.write_text('{"sop": "1.2.3", "size_by')
    before = transfers(archives)
    assert all(not one.missing and not one.new for one in take(source, tmp_path))
    assert transfers(archives) == before


def test_a_series_that_the_archive_has_changed_is_brought_up_to_date(
    archives: PublicArchives, index: Path, tmp_path: Path, wire: Made
) -> None:
    for turn in (0, 1):
        got = take(Idc(wire(archives.url), IdcIndex(named=index)), tmp_path)
        assert files_of(tmp_path) == held(archives)
        assert transfers(archives) == 10 + turn
        changed = archives.held[0]
        sop, body = next(iter(changed.files.items()))
        changed.files[sop], changed.uuid = body[:-2] + b"zz", "b" * 32
        archives.index(index)
    assert all(not one.missing for one in got)


def test_the_index_as_parquet_says_the_same_as_csv(index: Path, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow.csv", reason="needs the optional extra 'idc'")
    from pyarrow import parquet

    parquet.write_table(pyarrow.read_csv(index), tmp_path / "index.parquet")
    both = [IdcIndex(named=path) for path in (index, tmp_path / "index.parquet")]
    to = Wire("http://127.0.0.1:1")
    of_csv, of_parquet = [Idc(to, one).series("LIDC-IDRI", Selection()) for one in both]
    assert len(of_csv) == 3 and of_csv == of_parquet
    assert both[0].collections == both[1].collections == {"lidc_idri"}
    to.close()


def test_a_series_that_is_listed_twice_is_one(
    source: Source, archives: PublicArchives, index: Path, tmp_path: Path
) -> None:
    archives.held.append(archives.held[0])
    archives.index(index)
    assert len(take(source, tmp_path / "out")) == 3
    assert files_of(tmp_path / "out") == held(archives)


def test_a_series_that_vanished_is_told_and_the_others_come(
    source: Source, archives: PublicArchives, tmp_path: Path
) -> None:
    offered = source.series("LIDC-IDRI", Selection())
    gone = archives.held.pop(0)
    got = download([Wanted(source=source, series=one) for one in offered], tmp_path)
    told = {one.wanted.series.series_instance_uid: one.missing for one in got if one.missing}
    assert set(told) == {gone.uid}
    assert "does not list" in str(told) or "nothing under" in str(told)
    assert files_of(tmp_path) == held(archives)


def test_a_long_list_of_objects_comes_in_pages(
    archives: PublicArchives, index: Path, tmp_path: Path, wire: Made
) -> None:
    archives.page = 2
    to = wire(archives.url)
    take(Idc(to, IdcIndex(named=index)), tmp_path / "out")
    assert files_of(tmp_path / "out") == held(archives)
    assert archives.count("list") == 3 + 1 + 2


@pytest.mark.parametrize(
    ("selection", "patients", "left_out"),
    [
        (Selection(modalities=frozenset({"CT"})), ["LIDC-1", "LIDC-2"], {"modality PT": 1}),
        (Selection(patients=frozenset({"LIDC-2"})), ["LIDC-2"], {"other patients": 2}),
        (Selection(at_most_series=1), ["LIDC-1"], {"beyond the limit": 2}),
        (Selection(at_most_bytes=1), [], {"beyond the limit": 3}),
    ],
)
def test_what_is_chosen_and_what_is_left_out(
    source: Source, selection: Selection, patients: list[str], left_out: dict[str, int]
) -> None:
    chosen = choose(source.series("LIDC-IDRI", Selection()), selection)
    assert [one.patient_id for one in chosen.series] == patients
    assert chosen.left_out == left_out


def test_a_name_is_taken_as_people_write_it_and_an_unknown_one_is_answered_with_those_alike(
    source: Source,
) -> None:
    assert len(source.series("lidc idri", Selection())) == 3
    with pytest.raises(
        Refused, match=r"(?i)no (public )?collection LIDC-IDRX; there are lidc.idri"
    ) as caught:
        source.series("LIDC-IDRX", Selection())
    assert caught.value.code == "unknown-collection"


def test_whose_the_data_are_is_written_beside_them(source: Source, tmp_path: Path) -> None:
    from datetime import UTC, datetime

    now = datetime(2026, 11, 20, 12, tzinfo=UTC)
    chosen = choose(source.series("LIDC-IDRI", Selection()), Selection(at_most_series=2))
    wanted = tuple(Wanted(source=source, series=one) for one in chosen.series)
    plan = Plan(wanted=wanted, collection="LIDC-IDRI", query={"at_most_series": 2}, left_out=chosen.left_out)
    write_record(tmp_path, plan.record(now))
    assert json.loads((tmp_path / "collection.json").read_text())["is_finished"] is False
    got = download(wanted, tmp_path)
    write_record(tmp_path, plan.record(now, got))
    less = Plan(wanted=wanted[:1], collection="LIDC-IDRI", query={"at_most_series": 2})
    write_record(tmp_path, less.record(now, got[:1]))
    told = json.loads(write_record(tmp_path, less.record(now, got[:1])).read_text())
    (before,) = told["earlier"]
    assert (before["left_out"], before["is_finished"], before["missing"]) == (
        {"beyond the limit": 1},
        True,
        {},
    )
    assert before["date"] == "2026-11-20T12:00:00+00:00"
    assert before["citation"] == {f"https://doi.org/{DOI}": 2}
    assert "by/3.0" in str(before["licence_uri"])
    assert sorted(one["modality"] for one in before["series"]) == ["CT", "PT"]


def test_retry_after_is_seconds_or_a_date() -> None:
    from datetime import UTC, datetime

    now = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
    assert retry_after_s("120", now) == 120.0
    assert retry_after_s("Fri, 20 Nov 2026 12:00:30 GMT", now) == 30.0
    assert retry_after_s("soon", now) == 0.0
    assert retry_after_s("Fri, 20 Nov 2020 12:00:30 GMT", now) == 0.0


def test_a_server_that_wants_a_longer_pause_than_anybody_waits_is_given_up(
    archives: PublicArchives, slept: list[float], wire: Made
) -> None:
    to = wire(archives.tcia, patience=Patience(longest_retry_after_s=5.0))
    archives.always = {"getSeries": "429"}
    with pytest.raises(Unavailable, match=r"HTTP 429 \(asked 1 times\)"):
        Tcia(to).series("LIDC-IDRI", Selection())
    assert slept == []


@pytest.mark.sec
@pytest.mark.parametrize("url", ["s3://x/../..//*", "s3://evil.example#/uuid/*", "s3://bucket/a?b/*", ""])
def test_an_index_cannot_lead_out_of_the_buckets(url: str) -> None:
    with pytest.raises(Refused, match="names no bucket"):
        idc_module._where("", "", url)


def test_without_the_optional_index_one_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "idc_index_data", None)
    with pytest.raises(Refused, match=r"pip install -c constraints.txt '\.\[idc\]' in Nadir's folder"):
        IdcIndex().rows("collection_id", frozenset({"lidc_idri"}))


def test_md5_of_a_file_is_that_of_its_bytes(source: Source, tmp_path: Path) -> None:
    take(source, tmp_path)
    lines = [
        json.loads(line)
        for journal in (tmp_path / ".nadir").glob("*.jsonl")
        for line in journal.read_text().splitlines()
        if "sop" in line
    ]
    for row in lines:
        (path,) = tmp_path.glob(f"*/{row['sop']}.dcm")
        assert hashlib.md5(path.read_bytes()).hexdigest() == row["md5"]
    assert len(lines) == 10
