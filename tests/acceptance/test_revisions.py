"""A real node through late images, crashes, kills and restarts, as one process and as several."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import trouble_plugin
from alive import is_alive
from dicom_series import make_series
from node_process import NADIR, NodeProcess, nadir, nadir_json, node
from patience import eventually
from postgres_server import running_postgres
from pydicom import Dataset, dcmread

from node.archive import Archive
from node.scu import send_files

FLAGS = ("--accept-any", "--quiet-seconds", "1")
QUICK = {"NADIR_LEASE_SECONDS": "3", "NADIR_MAX_ATTEMPTS": "2"}


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    made = Archive(tmp_path / "archive")
    made.start()
    yield made
    made.stop()


@pytest.fixture
def trouble(tmp_path: Path) -> Path:
    return trouble_plugin.install(tmp_path / "plugins")


@pytest.fixture
def small_study(tmp_path: Path) -> list[Path]:
    return make_series(tmp_path / "study", np.random.default_rng(1).integers(-100, 100, (6, 20, 20)))


@pytest.fixture
def told(tmp_path: Path, trouble: Path) -> Callable[..., dict[str, str]]:
    """Return a function that gives the environment of a node whose plugin does as told."""

    def environment(mode: str = "box") -> dict[str, str]:
        settings = {"mode": mode, "journal": str(tmp_path / "journal"), "gate": str(tmp_path / "gate")}
        return {**trouble_plugin.environment(trouble, **settings), **QUICK}

    return environment


def _to(archive: Archive) -> tuple[str, ...]:
    return (*FLAGS, "--destination", f"ARCHIVE@127.0.0.1:{archive.port}")


def _send(files: Sequence[Path], port: int) -> None:
    sent = send_files(files, ae_title="NADIR", host="127.0.0.1", port=port, calling_ae="SCANNER")
    assert {s.status for s in sent} == {0}


def _runs(tmp_path: Path, at_least: int) -> list[int]:
    """Return the process ids of the analyses, once there are so many."""
    journal = tmp_path / "journal"
    assert eventually(lambda: journal.is_file() and len(journal.read_text().splitlines()) >= at_least)
    return [int(line.split()[1]) for line in journal.read_text().splitlines()]


@pytest.mark.long  # a late image goes the same way
def test_a_contour_that_comes_after_the_images_is_measured_in_a_second_revision(
    data: Path, archive: Archive, tmp_path: Path
) -> None:
    study = data / "ct_4dlung"
    with node(tmp_path / "home", *_to(archive), environment={"NADIR_ENABLED": "contours"}) as process:
        _send(sorted((study / "CT").iterdir()), process.dicom_port)
        (first,) = process.wait_until_idle()
        assert (first["state"], first["revision"]) == ("done", 1)
        assert process.ask("findings") == []
        assert archive.listing() == ()
        _send(sorted((study / "RTSTRUCT").iterdir()), process.dicom_port)
        assert eventually(lambda: len(process.look("jobs", "list")) == 2)
        process.wait_until_idle()
        rows = process.ask("findings")
        volumes = {r["label"]: r["value"] for r in rows if r["name"] == "volume"}
        assert volumes["Tumor_c40"] == pytest.approx(67.557, rel=0.03)
        assert {r["revision"] for r in rows} == {2}
        assert sorted(held.modality for held in archive.listing()) == ["SEG", "SR", "SR"]


@pytest.mark.long  # test_worker has a late image, test_settle an identical one, without a node around them
def test_a_late_image_supersedes_and_an_identical_one_changes_nothing(
    archive: Archive, small_study: list[Path], told: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    with node(tmp_path / "home", *_to(archive), environment=told()) as process:
        _send(small_study[:-1], process.dicom_port)
        process.wait_until_idle()
        first = {held.sop_instance_uid for held in archive.listing()}
        assert len(first) == 3
        _send(small_study[:2], process.dicom_port)
        time.sleep(2.5)
        assert len(process.wait_until_idle()) == 1
        _send(small_study, process.dicom_port)
        assert eventually(lambda: len(process.look("jobs", "list")) == 2)
        process.wait_until_idle()
        assert {r["revision"] for r in process.ask("findings")} == {2}
        every = process.ask("findings", "--superseded")
        assert {(r["revision"], r["superseded"]) for r in every} == {(1, True), (2, False)}
    second = [held for held in archive.listing() if held.sop_instance_uid not in first]
    assert len(second) == 3
    for held in second:
        if held.modality == "SR":
            assert _predecessors(dcmread(held.path)) < first


@pytest.mark.long  # test_child has the same without a node around it
def test_a_crash_costs_one_job_and_not_the_node(
    archive: Archive, small_study: list[Path], told: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    environment = {**told("segfault"), "NADIR_MAX_ATTEMPTS": "1"}
    with node(tmp_path / "home", *_to(archive), environment=environment) as process:
        _send(small_study, process.dicom_port)
        (job,) = process.wait_until_idle()
        assert (job["state"], job["error_code"]) == ("dead", "analysis-crashed")
        shown = nadir("jobs", "show", str(job["id"]), "--home", str(process.home))
        assert "SIGSEGV" in shown.stdout
        assert process.stop() == 0
    with node(tmp_path / "home", *_to(archive), environment=told("box")) as process:
        nadir_json("jobs", "retry", str(job["id"]), "--home", str(process.home))
        jobs = process.wait_until_idle()
        # The plugin's settings changed, so this is other work: the old job says so, a new one did it.
        assert [(j["state"], j["error_code"]) for j in jobs] == [
            ("superseded", "plugin-changed"),
            ("done", None),
        ]
    assert len(archive.listing()) == 3


@pytest.mark.long  # test_worker has the same without a node around it
def test_a_dead_job_that_is_retried_is_done(
    archive: Archive, small_study: list[Path], told: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    environment = {**told("segfault_once"), "NADIR_MAX_ATTEMPTS": "1"}
    with node(tmp_path / "home", *_to(archive), environment=environment) as process:
        _send(small_study, process.dicom_port)
        (job,) = process.wait_until_idle()
        assert job["state"] == "dead"
        nadir_json("jobs", "retry", str(job["id"]), "--home", str(process.home))
        (job,) = process.wait_until_idle()
        assert (job["state"], job["attempt"]) == ("done", 2)
    assert len(archive.listing()) == 3


@pytest.mark.long  # test_leases has a job given back without a node around it
def test_a_node_that_is_told_to_stop_gives_its_job_back_and_the_next_one_ends_it(
    archive: Archive, small_study: list[Path], told: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    environment = {**told("wait"), "NADIR_LEASE_SECONDS": "3600"}
    with node(tmp_path / "home", *_to(archive), environment=environment) as process:
        _send(small_study, process.dicom_port)
        (child,) = _runs(tmp_path, 1)
        began = time.monotonic()
        assert process.stop() == 0
        assert time.monotonic() - began < 10
        assert not is_alive(child)
        (job,) = process.ask("jobs", "list")
        assert (job["state"], job["error_code"]) == ("queued", None)
    (tmp_path / "gate").touch()
    with node(tmp_path / "home", *_to(archive), environment=environment) as process:
        (job,) = process.wait_until_idle()
        assert job["state"] == "done"
    assert len(archive.listing()) == 3


@pytest.mark.long  # test_delivery_kills kills workers again and again
def test_after_a_kill_another_run_ends_the_job_once(
    archive: Archive, small_study: list[Path], told: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    with node(tmp_path / "home", *_to(archive), environment=told("wait")) as process:
        _send(small_study, process.dicom_port)
        (child,) = _runs(tmp_path, 1)
        process.kill()
        assert eventually(lambda: not is_alive(child))
        (job,) = process.ask("jobs", "list")
        assert job["state"] == "running"
    (tmp_path / "gate").touch()
    with node(tmp_path / "home", *_to(archive), environment=told("wait")) as process:
        (job,) = process.wait_until_idle()
        assert (job["state"], job["attempt"]) == ("done", 2)
        assert len({r["finding"] for r in process.ask("findings")}) == 1
        assert list((process.home / "scratch").iterdir()) == []
    assert len(archive.listing()) == 3


@pytest.mark.parametrize(
    "engine",
    [
        pytest.param("sqlite", marks=pytest.mark.long),
        pytest.param("postgresql", marks=[pytest.mark.postgres, pytest.mark.long]),
    ],
)
def test_roles_in_processes_of_their_own_work_together(
    engine: str,
    archive: Archive,
    told: Callable[..., dict[str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ExitStack() as stack:
        if engine == "postgresql":
            server = stack.enter_context(running_postgres())
            name = server.create()
            monkeypatch.setenv("NADIR_DATABASE_URL", server.url(name))
        roles = ("listener", "worker", "worker", "sender", "web")
        processes = [
            NodeProcess(tmp_path / "home", *_to(archive), "--role", role, environment=told())
            for role in roles
        ]
        for process in processes:
            stack.callback(process.kill)
            process.start()
        listener = processes[0]
        for patient in range(3):
            files = make_series(
                tmp_path / f"study{patient}", np.full((6, 20, 20), 50.0 + patient), patient_id=f"P{patient}"
            )
            _send(files, listener.dicom_port)
        assert eventually(lambda: len(listener.look("jobs", "list")) == 3)
        jobs = listener.wait_until_idle()
        assert [(j["state"], j["attempt"]) for j in jobs] == [("done", 1)] * 3
        assert len(archive.listing()) == 9
        assert len(_runs(tmp_path, 3)) == 3
        assert [process.stop() for process in processes] == [0] * 5


@pytest.mark.long  # test_database migrates at once too
def test_roles_that_begin_on_a_new_home_at_once_do_not_stumble_over_each_other(
    archive: Archive, told: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    command = [str(NADIR), "serve", "--home", str(tmp_path / "home"), "--dicom-port", "0", "--http-port", "0"]
    starting = [
        subprocess.Popen(
            [*command, "--role", role],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **told()},
        )
        for role in ("listener", "worker", "sender", "web")
    ]
    try:
        for process in starting:
            assert process.stdout is not None
            assert "ready" in process.stdout.readline()
        for process in starting:
            process.send_signal(signal.SIGTERM)
        for process in starting:
            assert process.communicate(timeout=30)[0] == ""
            assert process.returncode == 0
    finally:
        for process in starting:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("flag", ["--dicom-port", pytest.param("--http-port", marks=pytest.mark.long)])
def test_a_port_that_is_taken_is_one_line_and_nothing_is_left_running(tmp_path: Path, flag: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = {"--dicom-port": "0", "--http-port": "0", flag: str(taken.getsockname()[1])}
        flags = [part for pair in ports.items() for part in pair]
        done = nadir("serve", "--home", str(tmp_path / "home"), "--dicom-host", "127.0.0.1", *flags)
    assert done.returncode == 1
    assert done.stdout == ""
    complaints = [line for line in done.stderr.splitlines() if "INFO" not in line]
    assert len(complaints) == 1
    assert ports[flag] in complaints[0]


@pytest.mark.long  # test_canary_secrets looks everywhere
def test_the_ready_line_shows_no_password(tmp_path: Path) -> None:
    destination = "http://nadir:secret-word@127.0.0.1:9/dicom-web"
    with node(tmp_path / "home", *FLAGS, environment={"NADIR_DESTINATIONS": destination}) as process:
        assert "127.0.0.1:9/dicom-web" in process.ready_line
        assert process.stop() == 0
        assert "secret-word" not in process.ready_line + "".join(process.log)


def _predecessors(dataset: Dataset) -> set[str]:
    return {
        sop.ReferencedSOPInstanceUID
        for study in dataset.PredecessorDocumentsSequence
        for series in study.ReferencedSeriesSequence
        for sop in series.ReferencedSOPSequence
    }
