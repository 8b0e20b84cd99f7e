"""The command as people and programs run it: the real executable, what it prints where, and its exit status."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import typer
from dicom_series import make_series
from finished_node import FORMULA, finished_node
from node_process import NADIR, nadir, nadir_json
from pydicom import dcmread
from typer.testing import CliRunner

from node.archive import Archive
from node.cli import app, main
from node.cli_help import ORDER
from node.flags import SINGULAR
from node.secrets import is_secret
from node.settings import Settings
from store.database import Database

HOME = ["--home"]
SEGFAULT = "the process that analysed the study ended with signal SIGSEGV"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the home of a node that others must not change."""
    return finished_node(tmp_path_factory.mktemp("home"))


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """Return a folder with a CT of 4 slices."""
    make_series(tmp_path / "ct", np.zeros((4, 16, 16)))
    return tmp_path / "ct"


def refused(*arguments: str, status: int = 1) -> str:
    """Run a command that must fail; return the one line that it says on standard error."""
    done = nadir(*arguments)
    assert done.returncode == status, (done.stdout, done.stderr)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("nadir: ")
    assert "Traceback" not in line
    return line


def on_a_terminal(*arguments: str, columns: int = 100) -> tuple[str, int]:
    """Return what a command shows on a terminal, colours removed, and its status."""
    master, slave = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm"}
    child = subprocess.Popen(
        [NADIR, *arguments], stdout=slave, stderr=slave, stdin=slave, env=environment, close_fds=True
    )
    os.close(slave)
    shown = b""
    while True:
        try:
            chunk = os.read(master, 4096)
        except OSError:  # the terminal of a process that has ended
            break
        if not chunk:
            break
        shown += chunk
    os.close(master)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    return text.replace("\r\n", "\n"), child.wait(60)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--bogus"], "No such option: --bogus; 'nadir --help' shows how"),
        (["bogus"], "No such command 'bogus'"),
        (["send"], "Missing argument 'path'; 'nadir send --help' shows how"),
        (["send", "x", "--to", "A@b:1", "--associations", "0"], "--associations"),
        (["jobs", "show", "one"], "'JOB'"),
        (["jobs", "retry", "0"], "'JOB'"),
        (["jobs", "show", "9" * 30], "'JOB'"),
        (["findings", "--csv", "--json"], "exclude each other"),
        (["serve", "--dicom-port", "x"], "--dicom-port"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_status_2(arguments: list[str], says: str) -> None:
    assert says in refused(*arguments, status=2)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["jobs", "list", "--home", "{tmp}/nowhere"], "no node in {tmp}/nowhere; name its folder with --home"),
        (["findings", "--home", "{tmp}/nowhere", "--json"], "(no-database)"),
        (["analyse", "{tmp}/nowhere", "--out", "{tmp}/out", "--json"], "{tmp}/nowhere does not exist"),
        (["analyse", "{tmp}/empty", "--out", "{tmp}/out"], "holds no DICOM file that can be read (no-dicom)"),
        (["analyse", "{tmp}/text", "--out", "{tmp}/out"], "(no-dicom)"),
        (["analyse", "{tmp}/text/note.txt", "--out", "{tmp}/out"], "(no-dicom)"),
        (["analyse", "{ct}", "--out", "{tmp}/out", "--plugin", "nobody"], "installed are: contours"),
        (["analyse", "{ct}", "--out", "{tmp}/text/note.txt"], "note.txt cannot be made"),
        (["analyse", "{ct}", "--out", "{tmp}/out", "--config", "{tmp}/bad-plugin.toml"], "bad-plugin-settings"),
        (["analyse", "{ct}", "--out", "{tmp}/out", "--config", "{tmp}/broken.toml"], "cannot be read: Invalid"),
        (["analyse", "{ct}", "--out", "{tmp}/out", "--config", "{tmp}/binary.toml"], "binary.toml cannot be read"),
        (["analyse", "{ct}", "--out", "{tmp}/out", "--config", "{tmp}/unknown.toml"], "colour: there is no such"),
        (["analyse", "{ct}", "--out", "{tmp}/out", "--config", "{tmp}/nowhere.toml"], "does not exist"),
        (["measure", "{ct}", "--mask", "{tmp}/nowhere.dcm"], "nowhere.dcm is not a file (no-such-path)"),
        (["measure", "{tmp}/empty", "--mask", "{tmp}/text/note.txt", "--json"], "(no-dicom)"),
        (["measure", "{ct}", "--mask", "{tmp}/text/note.txt"], "not a DICOM SEG or RTSTRUCT and not a NIfTI"),
        (["send", "{tmp}/nowhere", "--to", "PACS@127.0.0.1:1"], "does not exist"),
        (["send", "{tmp}/text", "--to", "PACS@127.0.0.1:1"], "holds no DICOM file"),
        (["send", "{tmp}/text/note.txt", "--to", "PACS@127.0.0.1:1"], "note.txt is no DICOM file"),
        (["send", "{ct}", "--to", "somewhere"], "write AE@host:port (bad-destination)"),
        (["send", "{ct}", "--to", "http://pacs/dicom-web"], "send speaks C-STORE"),
        (["send", "{ct}", "--to", "PACS@127.0.0.1:{port}", "--json"], "is it running, and is the port right?"),
        (["send", "{ct}", "--to", "PACS@nowhere.invalid:104"], "cannot be reached"),
        (["send", "{ct}", "--to", "PACS@127.0.0.1:104", "--calling-ae", "x" * 17], "bad-ae-title"),
        (["check", "{tmp}/nowhere.dcm"], "cannot be read: No such file or directory"),
        (["check", "{tmp}/text/note.txt"], "it is no DICOM Part 10 file"),
        (["check", "{ct}/slice_0001.dcm", "--json"], "no SEG and no SR among the files"),
        (["serve", "--home", "{tmp}/text/note.txt/home"], "cannot be made"),
        (["serve", "--home", "{tmp}/home", "--role", "nurse"], "the roles are listener, worker, sender, web"),
        (["serve", "--home", "{tmp}/home", "--destination", "nowhere"], "write AE@host:port"),
        (["serve", "--home", "{tmp}/home", "--dicom-port", "70000"], "dicom_port: "),
        (["serve", "--home", "{tmp}/home", "--plugin-setting", "x"], "write NAME.FIELD=VALUE"),
        (["serve", "--home", "{tmp}/home", "--database-url", "nonsense"], "bad-database-url"),
        (["demo", "--out", "{tmp}/demo", "--data", "{tmp}/nowhere"], "does not exist"),
        (["demo", "--out", "{ct}"], "holds other files"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_that_says_what_to_do(
    arguments: list[str], says: str, tmp_path: Path, series: Path, free_port: Callable[[], int]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "note.txt").write_text("This is no image.")
    (tmp_path / "broken.toml").write_text("x = = 1")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00\x01")
    (tmp_path / "unknown.toml").write_text("colour = 'blue'")
    (tmp_path / "bad-plugin.toml").write_text("[plugins.pet_lesion]\nnonsense = 3\n")
    places = {"tmp": str(tmp_path), "ct": str(series), "port": free_port()}
    line = refused(*(a.format(**places) for a in arguments))
    assert says.format(**places) in line.removeprefix("nadir: refused: ")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_settings_in_the_environment_are_judged_too(
    tmp_path: Path, series: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NADIR_DICOM_PORT", "eleven")
    assert "dicom_port" in refused("analyse", str(series), "--out", str(tmp_path / "out"))
    monkeypatch.delenv("NADIR_DICOM_PORT")
    monkeypatch.setenv("NADIR_PLUGINS__PET_LESION__NONSENSE", "1")
    assert "bad-plugin-settings" in refused("analyse", str(series), "--out", str(tmp_path / "out"))


def test_help_and_version_are_answers() -> None:
    done = nadir("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"nadir \d+\.\d+\.\d+\n", done.stdout)
    done = nadir("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for command in ("demo", "serve", "send", "analyse", "measure", "findings", "jobs", "check", "doctor"):
        assert command in done.stdout
    bare = nadir()
    assert (bare.returncode, bare.stderr) == (2, "")
    assert "Usage: nadir" in bare.stdout


def test_a_fault_in_the_file_of_a_command_is_not_told_as_a_wrong_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(name: str) -> None:
        raise KeyError("no such entry")

    monkeypatch.setattr("node.cli_commands._made", broken)
    done = CliRunner().invoke(app, ["studies"])
    assert isinstance(done.exception, KeyError)
    assert "No such command" not in done.output


def test_a_file_that_ends_too_early_is_a_fault_and_no_interruption(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ended(name: str) -> None:
        raise EOFError("Compressed file ended")

    monkeypatch.setattr("node.cli_commands._made", ended)
    monkeypatch.setattr(sys, "argv", ["nadir", "studies"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 70
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("nadir: a fault of its own") and "Compressed file ended" in line


def test_help_flows_with_the_screen_keeps_brackets_and_has_an_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    said = CliRunner().invoke(app, ["curate", "idc", "--help"]).stdout
    assert "pip install -c constraints.txt '.[idc]' in" in " ".join(said.split())
    assert max(map(len, said.splitlines())) <= 80
    for name, order in ORDER.items():
        assert tuple(typer.main.get_group(app).commands[name].commands) == order


def test_every_setting_has_a_flag_with_its_description(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = nadir("serve", "--help")
    text = done.stdout
    assert done.returncode == 0 and "…" not in text
    for name, field in Settings.model_fields.items():
        flag = SINGULAR.get(name, f"--{name.replace('_', '-')}")
        assert bool(re.search(rf"{flag}\b", text)) is not is_secret(field), flag
    assert "--tls-hostnames / --no-tls-hostnames\n" in text
    assert "--plugin-setting" in text and "--delivery-setting" in text
    assert "--no-accept-any" in text


def test_a_port_that_is_taken_ends_serve_in_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        line = refused(
            "serve", "--home", str(tmp_path), "--dicom-host", "127.0.0.1", "--dicom-port", port, "--http-port", "0"
        )  # fmt: skip
    assert f"127.0.0.1:{port}" in line
    assert "in use" in line


@pytest.mark.parametrize(
    ("arguments", "unneeded"),
    [
        (["--help"], ["sqlalchemy", "pydantic", "pydicom", "numpy", "pynetdicom"]),
        (
            ["jobs", "list", "--home", "{home}"],
            ["alembic", "pydicom", "numpy", "pynetdicom", "httpx", "node.cli_models"],
        ),
    ],
)
def test_a_quick_command_loads_no_more_than_it_needs(
    home: Path, arguments: list[str], unneeded: list[str]
) -> None:
    program = (
        "import atexit, sys; from node.cli import main; atexit.register(lambda: print(*sys.modules)); main()"
    )
    command = [sys.executable, "-c", program, *(a.format(home=home) for a in arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "typer" in loaded
    assert loaded.isdisjoint({*unneeded, "torch", "SimpleITK", "skimage", "highdicom", "matplotlib"})


def test_an_older_database_is_upgraded_and_a_damaged_one_is_told(tmp_path: Path) -> None:
    (tmp_path / "nadir.sqlite").touch()
    assert nadir_json("jobs", "list", *HOME, str(tmp_path)) == []
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "nadir.sqlite").write_bytes(b"no database at all" * 300)
    assert "restore it from a copy" in refused("findings", *HOME, str(tmp_path / "damaged"))


def test_findings_are_told_as_table_csv_and_json(home: Path) -> None:
    rows = nadir_json("findings", *HOME, str(home))
    assert [(r["label"], r["name"], r["value"]) for r in rows] == [
        (FORMULA, "long_axis", 12.345678),
        (FORMULA, "volume", 1.5),
        ("Background", "suv_sd", 0.25),
    ]
    assert rows[0]["plugin"] == "lung_nodule"
    assert nadir_json("findings", *HOME, str(home), "--patient", "P1") == rows
    assert nadir_json("findings", *HOME, str(home), "--patient", "nobody") == []
    done = nadir("findings", *HOME, str(home), "--csv")
    table = list(csv.DictReader(done.stdout.splitlines()))
    assert done.returncode == 0
    assert [r["value"] for r in table] == ["12.345678", "1.5", "0.25"]
    assert table[0]["label"] == f"'{FORMULA}"
    empty = nadir("findings", *HOME, str(home), "--patient", "nobody")
    assert (empty.returncode, empty.stdout) == (0, "no findings\n")


def test_a_table_fits_a_terminal_and_shows_three_digits(home: Path) -> None:
    shown, status = on_a_terminal("findings", *HOME, str(home))
    assert status == 0
    assert max(len(line) for line in shown.splitlines()) <= 100
    assert re.search(r"P1 +.*HYPERLINK.* 12\.3 +1\.50", shown)
    assert "Background: suv_sd 0.25" in shown
    shown, _ = on_a_terminal("jobs", "list", *HOME, str(home), columns=80)
    assert max(len(line) for line in shown.splitlines()) <= 80
    assert re.search(r"2 +P1 .*emphysema +dead +1/5", shown)


def test_what_is_not_a_terminal_gets_no_colours_and_one_line_a_row(home: Path) -> None:
    done = nadir("jobs", "list", *HOME, str(home))
    assert "\x1b" not in done.stdout + done.stderr
    (row,) = [line for line in done.stdout.splitlines() if "emphysema" in line]
    assert SEGFAULT in row


def test_jobs_are_listed_and_shown_with_reasons_results_and_deliveries(home: Path) -> None:
    rows = nadir_json("jobs", "list", *HOME, str(home))
    assert [(r["id"], r["plugin"], r["state"], r["patient_id"]) for r in rows] == [
        (1, "lung_nodule", "delivering", "P1"),
        (2, "emphysema", "dead", "P1"),
    ]
    assert [r["id"] for r in nadir_json("jobs", "list", "--state", "dead", *HOME, str(home))] == [2]
    assert "use one of queued" in refused("jobs", "list", "--state", "asleep", *HOME, str(home))
    job = nadir_json("jobs", "show", "1", *HOME, str(home))
    assert job["findings"] == 2
    assert {(r["code"], r["refused"]) for r in job["refusals"]} == {
        ("thick-slices", False),
        ("gantry-tilt", True),
    }
    assert [r["sop_instance_uid"] for r in job["results"]] == ["2.25.9"]
    assert [(d["destination"], d["state"]) for d in job["deliveries"]] == [
        ("http://pacs.test/dicom-web", "pending")
    ]
    text = nadir("jobs", "show", "2", *HOME, str(home)).stdout
    assert f"{SEGFAULT} (analysis-crashed)" in text
    assert "There is no job 99" in refused("jobs", "show", "99", *HOME, str(home))


def test_a_password_in_a_destination_is_not_shown(home: Path) -> None:
    for flags in ([], ["--json"]):
        assert "secret" not in nadir("jobs", "show", "1", *HOME, str(home), *flags).stdout


def test_only_a_dead_job_is_retried(tmp_path: Path) -> None:
    home = finished_node(tmp_path)
    assert "only a dead job, or one with parked deliveries, can be retried" in refused(
        "jobs", "retry", "1", *HOME, str(home)
    )
    assert "There is no job 7" in refused("jobs", "retry", "7", *HOME, str(home), "--json")
    assert nadir("jobs", "retry", "2", *HOME, str(home)).stdout == "job 2 waits in the queue again\n"
    assert nadir_json("jobs", "show", "2", *HOME, str(home))["state"] == "queued"


def test_reading_commands_do_not_write_to_a_current_database(home: Path) -> None:
    database = Database(f"sqlite:///{home / 'nadir.sqlite'}")
    assert database.is_current()
    with database.transaction():  # a writer that holds its lock
        assert len(nadir_json("jobs", "list", *HOME, str(home))) == 2
    database.dispose()


def test_a_reader_that_has_seen_enough_ends_it_quietly(home: Path) -> None:
    command = f"'{NADIR}' findings --home '{home}' --csv | head -c 10"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "patient_id", "")


def test_a_full_disk_under_the_output_is_one_line(home: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [NADIR, "findings", "--home", home, "--json"],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "nadir: the output: No space left on device\n"


def test_ctrl_c_ends_a_long_command_with_130(tmp_path: Path, series: Path, trouble: Path) -> None:
    environment = {**os.environ, "NADIR_PLUGINS": json.dumps({"trouble": {"mode": "hang"}})}
    out = tmp_path / "out"
    command = [NADIR, "analyse", series, "--out", out, "--plugin", "trouble"]
    heeded = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # what runs in the background ignores it
    with subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, preexec_fn=heeded
    ) as child:
        while child.poll() is None and not list(out.glob(".nadir-*/results")):
            time.sleep(0.02)
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 130
        assert child.stderr is not None
        assert child.stderr.read() == "nadir: interrupted\n"
    assert list(out.iterdir()) == []


def test_files_that_are_sent_are_checked_one_by_one(tmp_path: Path, series: Path) -> None:
    (series / "note.txt").write_text("no image")
    broken = series / "slice_0004.dcm"
    broken.write_bytes(broken.read_bytes()[:140])
    archive = Archive(tmp_path / "archive")
    archive.start()
    try:
        to = f"ARCHIVE@127.0.0.1:{archive.port}"
        sent = nadir_json("send", str(series), "--to", to, status=1)
        assert sent["sent"] == 3
        assert [Path(f["file"]).name for f in sent["failed"]] == ["slice_0004.dcm"]
        assert [Path(p).name for p in sent["passed_over"]] == ["note.txt"]
        broken.unlink()
        done = nadir("send", str(series), "--to", to)
        assert (done.returncode, done.stdout) == (0, f"3 of 3 sent to {to}\n")
    finally:
        archive.stop()


def test_results_are_checked_by_the_rules(tmp_path: Path, series: Path, trouble: Path) -> None:
    nadir_json("analyse", str(series), "--out", str(tmp_path / "out"), "--plugin", "trouble")
    files = sorted(map(str, (tmp_path / "out").glob("*.dcm")))
    assert len(files) == 3
    assert all(not f["violations"] for f in nadir_json("check", *files))
    seg = dcmread(tmp_path / "out" / "trouble-seg-1.dcm")
    del seg.SegmentSequence[0].SegmentedPropertyTypeCodeSequence
    seg.save_as(tmp_path / "bad.dcm")
    (told,) = nadir_json("check", str(tmp_path / "bad.dcm"), status=1)
    assert told["violations"]
    done = nadir("check", str(tmp_path / "bad.dcm"))
    assert done.returncode == 1
    assert done.stdout.startswith(f"{tmp_path / 'bad.dcm'}: ")


def test_foreign_results_are_judged_and_never_a_traceback(data: Path) -> None:
    files = [str(p) for p in sorted((data / "foreign").rglob("*.dcm"))]
    done = nadir("check", *files, "--json")
    assert done.stderr == ""
    assert done.returncode in (0, 1)
    assert json.loads(done.stdout)


def test_a_model_is_verified_only_when_somebody_vouches_for_its_manifest(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(
        '{"name": "m", "version": "1", "licence": "x", "training_data": "x", "input": "x", "files": {}}'
    )
    sha256 = hashlib.sha256((tmp_path / "manifest.json").read_bytes()).hexdigest()
    assert nadir_json("models", "verify", str(tmp_path), "--trust", sha256) == {
        "name": "m",
        "version": "1",
        "sha256": sha256,
    }
    assert "nobody vouches" in refused("models", "verify", str(tmp_path), "--trust", "0" * 64)
