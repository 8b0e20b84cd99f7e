"""Earlier studies at a running node: beside a dead archive, over SIGKILL, and what people see of them."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import httpx
import numpy as np
import pytest
from dicom_series import make_series
from figures import write_figure
from node_process import NodeProcess, nadir, nadir_json, node
from orthanc_server import orthanc
from ports import free_port
from pydicom import dcmread
from small_node import instances_in

from node.multipart import FilesBody
from node.scu import send_files

FLAGS = (
    *("--accept-any", "--quiet-seconds", "0.3", "--reserve-bytes", "0"),
    *("--plugin", "contours", "--no-priors-analysed"),
)

WEB = (*FLAGS, "--role", "web")
POINTS = ("after-temp-write", "after-fsync", "after-link", "before-commit", "after-commit")
LONG = pytest.mark.long


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def series(folder: Path, count: int = 3, **more: object) -> list[Path]:
    return make_series(folder, np.zeros((count, 8, 8)), **more)  # type: ignore[no-any-return]


def uids(paths: list[Path]) -> set[str]:
    return {str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in paths}


def send(running: NodeProcess, paths: list[Path]) -> None:
    sent = send_files(paths, ae_title="NADIR", host="127.0.0.1", port=running.dicom_port)
    assert all(one.ok for one in sent)


def query(home: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(home / "nadir.sqlite")) as connection:
        return connection.execute(sql).fetchall()


def over(home: Path) -> None:
    """Let the leases of a killed node run out at once."""
    with closing(sqlite3.connect(home / "nadir.sqlite")) as connection, connection:
        for table in ("prior", "prior_search"):
            connection.execute(f"UPDATE {table} SET run_after = requested_at")


@pytest.mark.fault
@pytest.mark.parametrize(
    ("tier", "points"),
    [
        ("quick", ("before-commit:9",)),
        pytest.param("long", tuple(f"{point}:{count}" for point in POINTS for count in (5, 9)), marks=LONG),
    ],
)
def test_a_dead_archive_holds_no_other_up_and_a_killed_node_fetches_the_rest_after_its_start(
    tmp_path: Path, tier: str, points: tuple[str, ...]
) -> None:
    old = [
        *series(tmp_path / "a", 40, study_date="20250101"),
        *series(tmp_path / "b", 40, study_date="20250601"),
    ]
    today = series(tmp_path / "today", study_date="20260301")
    dead = f"DEAD@127.0.0.1:{free_port()}"
    kills = 0
    with orthanc() as server:
        for path in old:
            server.upload(path)
        flags = (*FLAGS, "--priors-from", dead, "--priors-from", server.dicomweb)
        for point in (*points, ""):
            environment = {"NADIR_FAILPOINT": point} if point else {}
            with node(tmp_path / "home", *flags, environment=environment) as running:
                if kills == 0:  # before a point is reached: each is counted beyond these three
                    send(running, today)
                if point:
                    wait_for(lambda: running._process is None or running._process.poll() is not None)
                    kills += 1
                    over(tmp_path / "home")
                    continue
                wait_for(lambda: set(instances_in(running.home)) == uids([*old, *today]), 120)
                wait_for(lambda: query(running.home, "SELECT 1 FROM prior WHERE state != 'done'") == [], 120)
                rows = nadir_json("priors", "list", "--home", str(running.home))
                assert [row["state"] for row in rows if row["source"] == dead] == ["waiting"]
                assert [row["state"] for row in rows if row["source"] != dead] == ["done"] * 3
                shown = httpx.get(f"http://127.0.0.1:{running.http_port}/api/priors", trust_env=False).json()
                assert len(shown["priors"]) == 4
                metrics = httpx.get(f"http://127.0.0.1:{running.http_port}/metrics", trust_env=False).text
                assert 'nadir_priors{state="done"} 2.0' in metrics
                assert 'nadir_prior_searches{state="waiting"} 1.0' in metrics
    home = tmp_path / "home"
    assert query(home, "SELECT count(*) FROM study WHERE prior") == [(2,)]
    assert query(
        home, "SELECT count(DISTINCT r.study_pk) FROM job j JOIN revision r ON r.id = j.revision_pk"
    ) == [(1,)]
    assert list((home / "store" / "incoming").iterdir()) == []
    write_figure(
        "kill -9 while earlier studies are fetched", tier=tier, rounds=kills, lost=0, fetched=len(old)
    )


@pytest.mark.fault
@pytest.mark.parametrize(
    ("tier", "points"),
    [
        ("quick", ("after-link:4",)),
        pytest.param(
            "long", tuple(f"{point}:{count}" for point in POINTS for count in (1, 4, 7)), marks=LONG
        ),
    ],
)
def test_nothing_that_stow_acknowledged_is_lost_when_the_node_is_killed(
    tmp_path: Path, tier: str, points: tuple[str, ...]
) -> None:
    acknowledged: set[str] = set()
    every: set[str] = set()
    for number, point in enumerate(points):
        with node(tmp_path / "home", *WEB, environment={"NADIR_FAILPOINT": point}) as running:
            for batch in range(6):
                paths = series(tmp_path / f"{number}-{batch}", 2, patient_id=f"P{number}-{batch}")
                every |= uids(paths)
                body = FilesBody(paths)
                try:
                    answer = httpx.post(
                        f"http://127.0.0.1:{running.http_port}/dicom-web/studies",
                        content=iter(body),
                        headers={"Content-Type": body.content_type},
                        trust_env=False,
                    )
                except httpx.HTTPError:
                    break
                assert answer.status_code == 200
                acknowledged |= uids(paths)
    with node(tmp_path / "home", *FLAGS) as running:
        held = set(instances_in(running.home))
        assert acknowledged <= held <= every
        assert running.stop() == 0
    assert list((tmp_path / "home" / "store" / "incoming").iterdir()) == []
    assert nadir("fsck", "--home", str(tmp_path / "home")).returncode == 0
    write_figure(
        "kill -9 during STOW-RS", tier=tier, rounds=len(points), acknowledged=len(acknowledged), lost=0
    )
