"""The pull of a study that breaks off in the middle: half of it is not measured while the rest may still come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import pytest
from pulling_home import Home, series, study_uid, uids
from pydicom import dcmread

from store import studies


class Pacs:
    """A PACS with two series of one study, which goes down once the first one was given."""

    def __init__(self, *series: list[Path]) -> None:
        self.series = {str(dcmread(paths[0]).SeriesInstanceUID): paths for paths in series}
        self.is_up = True
        self.goes_down = True

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if not self.is_up:
            return httpx.Response(503)
        if request.url.path.endswith("/instances"):
            rows = [
                {"00080018": {"Value": [uid]}, "0020000E": {"Value": [of]}}
                for of, paths in self.series.items()
                for uid in uids(paths)
            ]
            return httpx.Response(200, json=rows if request.url.params["offset"] == "0" else [])
        self.is_up = not self.goes_down
        body = _Parts(path.read_bytes() for path in self.series[request.url.path.rsplit("/", 1)[1]])
        return httpx.Response(200, stream=body, headers={"Content-Type": "multipart/related; boundary=b"})


class _Parts(httpx.SyncByteStream):
    def __init__(self, images: Iterable[bytes]) -> None:
        self.images = images

    def __iter__(self) -> Iterator[bytes]:
        yield from (b"--b\r\n\r\n" + image + b"\r\n" for image in self.images)
        yield b"--b--"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path)
    yield made
    made.close()


def due(home: Home, now: datetime) -> list[bool]:
    with home.database.reading() as session:
        found = studies.due(session, now=now, quiet_seconds=60, hard_cap_seconds=5400)
    return [one.forced for one in found]


def test_a_study_whose_pull_broke_off_settles_when_the_rest_is_here_or_by_its_longest_time(
    home: Home, tmp_path: Path
) -> None:
    first = series(tmp_path / "1", "HALF", 2)
    second = series(tmp_path / "2", "HALF", 2, series_number=2)
    pacs, uid, began = Pacs(first, second), study_uid(first), home.database.now()
    puller = home.puller(home.pacs("http://pacs", httpx.Client(transport=httpx.MockTransport(pacs))))
    home.request(uid, began)
    assert puller.tick(began)
    wish = home.wish(uid)
    assert (len(home.held()), wish.state, wish.error_code) == (2, "waiting", "unavailable")
    assert due(home, began + timedelta(minutes=80)) == []
    assert due(home, began + timedelta(minutes=91)) == [True]
    pacs.is_up, pacs.goes_down = True, False
    assert puller.tick(began + timedelta(minutes=80))
    assert len(home.held()) == 4
    assert due(home, began + timedelta(minutes=80)) == [False]
