"""A node in this process: what starts, in which order, and what is left when it could not."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlmodel import select

from node.scu import echo
from node.serve import ROLES, Node, _ready_line
from node.settings import Settings
from plugins.errors import Refused, Unavailable
from store.tables import Event


def _settings(home: Path, **changes: Any) -> Settings:
    values: dict[str, Any] = {
        "home": home,
        "dicom_host": "127.0.0.1",
        "dicom_port": 0,
        "http_port": 0,
        "accept_any": True,
        "quiet_seconds": 0.5,
    }
    return Settings(**{**values, **changes})


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        yield held.getsockname()[1]


def _threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread is not threading.main_thread()}


def test_every_port_answers_when_start_returns_and_none_after_stop(tmp_path: Path) -> None:
    before = _threads()
    node = Node(_settings(tmp_path / "home", destinations=("PACS@127.0.0.1:9",)))
    node.start()
    try:
        assert node.roles == ROLES
        echo(ae_title="NADIR", host="127.0.0.1", port=node.dicom_port, calling_ae="TEST")
        assert httpx.get(f"http://127.0.0.1:{node.http_port}/health", trust_env=False).status_code == 200
        assert {"settler", "worker 0", "worker 1", "sender PACS@127.0.0.1:9"} <= _threads()
    finally:
        node.stop()
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", node.dicom_port)):
        pass
    assert not {name for name in _threads() - before if name.startswith(("settler", "worker", "sender"))}


def test_a_role_that_does_not_exist_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(
        Refused, match="'cook'; the roles are listener, worker, sender, web, scheduler"
    ) as refused:
        Node(_settings(tmp_path / "home"), ["cook"])
    assert refused.value.code == "unknown-role"


@pytest.mark.parametrize("setting", ["dicom_port", "http_port", "metrics_port"])
def test_a_taken_port_is_unavailable_and_no_loop_has_begun(tmp_path: Path, taken: int, setting: str) -> None:
    before = _threads()
    node = Node(_settings(tmp_path / "home", **{setting: taken}))
    with pytest.raises(Unavailable, match=f":{taken}: Address already in use; choose another port"):
        node.start()
    assert not {name for name in _threads() - before if name.startswith(("settler", "worker", "sender"))}
    if setting != "dicom_port":
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", node.dicom_port)):
            pass


@pytest.mark.parametrize("last", ["audit", "web", "settler", "heart"])
def test_a_node_that_gets_no_more_threads_says_which_limits_to_raise_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    before, start = _threads(), threading.Thread.start

    def start_or_fail(thread: threading.Thread) -> None:
        if thread.name == last:
            raise RuntimeError("can't start new thread")
        start(thread)

    node = Node(_settings(tmp_path / "home"))
    monkeypatch.setattr(threading.Thread, "start", start_or_fail)
    with pytest.raises(Unavailable) as caught:
        node.start()
    said = "no more threads or processes can be started: raise TasksMax, the pids limit or ulimit -u"
    assert str(caught.value) == said
    ours = ("audit", "web", "settler", "worker", "sender", "heart", "listener")
    assert not {name for name in _threads() - before if name.startswith(ours)}


def test_a_node_that_gets_no_more_processes_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    node = Node(_settings(tmp_path / "home", listener_processes=2), ["listener"])
    monkeypatch.setattr(subprocess, "Popen", fail)
    with pytest.raises(Unavailable, match="no more threads or processes can be started"):
        node.start()


def test_what_kept_a_node_from_starting_is_told_even_when_its_stop_fails_too(
    tmp_path: Path, taken: int, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise ValueError("the stop failed")

    node = Node(_settings(tmp_path / "home", http_port=taken))
    node._interrupts.append(fail)
    with pytest.raises(Unavailable, match=f":{taken}: Address already in use"):
        node.start()
    assert "action=stop-broke" in caplog.text and "the stop failed" in caplog.text


def test_a_node_whose_metrics_port_is_taken_never_opens_the_dicom_port(
    tmp_path: Path, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(Node, "_start_listener", lambda _: opened.append("listener"))
    node = Node(_settings(tmp_path / "home", metrics_port=taken))
    with pytest.raises(Unavailable, match=r"choose another port \(metrics_port\)"):
        node.start()
    assert opened == []


def test_a_node_that_fails_after_it_took_the_metrics_port_gives_it_back(
    tmp_path: Path, taken: int, free_port: Callable[[], int]
) -> None:
    port = free_port()
    node = Node(_settings(tmp_path / "home", metrics_port=port, http_port=taken))
    with pytest.raises(Unavailable, match=f":{taken}"):
        node.start()
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        pass


def test_a_foreign_plugin_that_cannot_be_imported_stops_no_other_analysis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    information = tmp_path / "foreign" / "foreign-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[nadir.plugins]\nforeign = nowhere_at_all:Foreign\n")
    monkeypatch.syspath_prepend(tmp_path / "foreign")
    node = Node(_settings(tmp_path / "home", enabled=("foreign", "emphysema")), ["worker"])
    node.start()
    try:
        with node.database.reading() as session:
            (event,) = session.exec(select(Event)).all()
        assert "worker 0" in _threads()
    finally:
        node.stop()
    assert event.kind == "broken-plugin"
    assert "plugin 'foreign' (nowhere_at_all:Foreign) cannot be loaded" in event.text
    assert "nowhere_at_all" in caplog.text


def test_a_home_that_cannot_be_made_is_unavailable_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="file/home"):
        Node(_settings(tmp_path / "file" / "home"))


def test_the_home_is_nobody_elses(tmp_path: Path) -> None:
    node = Node(_settings(tmp_path / "home"), ["sender"])
    node.stop()
    assert (tmp_path / "home").stat().st_mode & 0o077 == 0


def test_stopping_goes_on_when_one_part_fails(tmp_path: Path) -> None:
    node = Node(_settings(tmp_path / "home"), ["listener", "worker"])
    node.start()

    def fail() -> None:
        raise RuntimeError("no")

    node._interrupts.insert(0, fail)
    with pytest.raises(RuntimeError):
        node.stop()
    assert not any(name.startswith("worker") for name in _threads())
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", node.dicom_port)):
        pass


def test_the_ready_line_names_ports_and_destinations_and_no_password(tmp_path: Path) -> None:
    destinations = ("http://nadir:secret-word@pacs/dicom-web", "PACS@10.0.0.1:104")
    node = Node(_settings(tmp_path / "home", destinations=destinations), ["listener"])
    node.start()
    try:
        words = _ready_line(node, 1.25)
    finally:
        node.stop()
    assert f"DICOM NADIR@127.0.0.1:{node.dicom_port}" in words
    assert "PACS@10.0.0.1:104" in words
    assert "pacs/dicom-web" in words
    assert "secret-word" not in words
    assert "http://127.0.0.1" not in words
    assert "\n" not in words


def test_a_node_migrates_its_database_before_it_is_ready(tmp_path: Path) -> None:
    node = Node(_settings(tmp_path / "home"), ["sender"])
    try:
        with node.database.reading() as session:
            assert session.connection().execute(text("SELECT count(*) FROM job")).scalar() == 0
    finally:
        node.stop()


def test_a_listener_starts_without_what_only_analyses_need(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom node.serve import Node\nfrom node.settings import Settings\n"
        f"node = Node(Settings(home=Path({str(tmp_path / 'home')!r}), dicom_port=0), ['listener', 'sender'])\n"
        "node.start()\nnode.stop()\n"
        "heavy = {'torch', 'monai', 'SimpleITK', 'skimage', 'scipy', 'highdicom', 'matplotlib', 'pydicom.sr'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


NOT_RECEIVED_WITH = """
alembic mako httpx fastapi uvicorn starlette jinja2 plotly reportlab apscheduler scipy highdicom pydicom.sr
sqlalchemy.dialects.postgresql store.schema store.sightings rich.console typer.rich_utils
node.cli_checks node.pacs node.web node.pipeline node.worker
"""


def test_nadir_serve_as_a_listener_loads_only_what_it_receives_with(tmp_path: Path) -> None:
    Node(_settings(tmp_path), ["sender"]).stop()
    program = (
        "import sys\nfrom node import cli, process\n"
        "process.End.wait = lambda end: print(*sys.modules)\n"
        f"sys.argv = ['nadir', 'serve', '--role', 'listener', '--home', {str(tmp_path)!r}, '--dicom-port', '0']\n"
        "cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {*done.stdout.splitlines()[-1].split()}
    assert "node.listener" in loaded
    assert sorted(loaded.intersection(NOT_RECEIVED_WITH.split())) == []


def test_the_child_of_a_job_loads_no_sql_and_no_pictures() -> None:
    program = (
        "import sys\nimport node.child, node.pipeline\n"
        "heavy = {'sqlalchemy', 'sqlmodel', 'alembic', 'matplotlib', 'httpx', 'pynetdicom', 'torch', 'fastapi'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


SIGNALLED = """
import os, sys, threading
from pathlib import Path
import node.serve
from node.settings import Settings

class Quick:
    def __init__(self, settings, roles): pass
    def start(self): sys.settrace(lambda frame, event, argument: tell)
    def stop(self): sys.settrace(None)

def tell(frame, event, argument):
    if frame.f_code.co_name == "wait":
        os.kill(os.getpid(), int(sys.argv[2]))
    return tell

node.serve.Node, node.serve._ready_line = Quick, lambda *_: "ready"
threading.Timer(0.3, os.kill, (os.getpid(), int(sys.argv[2]))).start()
node.serve.serve(Settings(home=Path(sys.argv[1])))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_in_the_middle_of_the_wait_for_it_ends_the_node(
    tmp_path: Path, number: signal.Signals
) -> None:
    command = [sys.executable, "-c", SIGNALLED, str(tmp_path), str(int(number))]
    ended = subprocess.run(command, timeout=120, check=False, capture_output=True, text=True)

    assert ended.returncode == 0
    assert "node.serve draining" in ended.stderr


UNHEARD = """
import sys
from pathlib import Path
import node.serve
from node.settings import Settings

class Quick:
    def __init__(self, settings, roles): pass
    def start(self): pass
    def stop(self): Path(sys.argv[1], "drained").touch()

class Told:
    def __init__(self, *signals): pass
    def wait(self): Path(sys.argv[1], "served").touch()

node.serve.Node, node.serve.End, node.serve._ready_line = Quick, Told, lambda *_: "ready"
node.serve.serve(Settings(home=Path(sys.argv[1])))
"""


@pytest.mark.parametrize("with_log", [False, True], ids=["output", "output-and-log"])
def test_a_node_serves_and_drains_though_nobody_reads_any_more_what_it_prints(
    tmp_path: Path, with_log: bool
) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    log = subprocess.STDOUT if with_log else subprocess.PIPE
    command = [sys.executable, "-c", UNHEARD, str(tmp_path)]
    ended = subprocess.run(command, timeout=120, check=False, stdout=writes, stderr=log, text=True)
    os.close(writes)
    assert ended.returncode == 0
    assert (tmp_path / "served").exists() and (tmp_path / "drained").exists()
    assert with_log or "action=not-told why='Broken pipe' text=ready" in ended.stderr.replace('"', "'")
