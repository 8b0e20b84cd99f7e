"""What the doctor says of a machine that is well, and of one that is not; it changes neither."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from finished_node import finished_node
from node_process import NADIR, nadir, nadir_json
from outbox_rows import waiting_results
from programs import bound_by_modes
from small_node import SmallNode

from models.runtime import Trial, this_machine
from node import doctor, doctor_home
from node.archive import Archive
from node.doctor import Line, examine
from node.doctor_peers import peers
from node.serve import Node
from node.settings import Settings
from plugins.errors import NadirError
from store import accounts
from store.database import Database


def lines(**settings: object) -> dict[str, Line]:
    """Return what the doctor says, by what it looked at, with ports that nobody has."""
    found = examine(Settings.load(**{"dicom_port": 0, "http_port": 0, **settings}))
    assert all("\n" not in line.says for line in found)
    return {line.what: line for line in found}


def test_a_healthy_machine_is_well_and_nothing_is_made(tmp_path: Path) -> None:
    home = tmp_path / "not" / "yet"
    found = lines(home=home)
    assert [line.what for line in found.values() if line.needed and not line.ok] == []
    assert {"python", "nadir", "pydicom", "JPEG Lossless decoder", "RLE decoder", "GPU"} <= set(found)
    assert {"analysis contours", "analysis lung_nodule", "analysis pet_lesion", "analysis emphysema"} <= set(
        found
    )
    assert "can be made" in found["home folder"].says
    assert "made in" in found["database"].says
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kinds", "says"),
    [
        ({}, "no other network's trial chose it so far"),
        ({"nodule_segmenter": "cuda-bf16", "b": "openvino-fp32"}, "nodule_segmenter by their trials"),
    ],
)
def test_of_a_gpu_it_is_told_what_is_computed_on_it(
    kinds: dict[str, str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "H9")
    trials = tuple(Trial(model=model, kind=kind, ms={kind: 1.0}) for model, kind in kinds.items())
    monkeypatch.setattr(doctor, "kept_trials", lambda _: trials)
    told = doctor._gpu()
    assert told.ok and not told.needed
    assert told.says == (
        f"H9; computes petct_multitask whenever that is asked for, {says}; all else runs on the CPU"
    )


def test_the_command_tells_the_same_as_lines_and_as_json(tmp_path: Path) -> None:
    told = nadir_json("doctor", "--home", str(tmp_path / "home"))
    assert {"what", "ok", "needed", "says"} == set(told[0])
    done = nadir("doctor", "--home", str(tmp_path / "home"))
    assert done.returncode == 0
    assert done.stderr == ""
    assert len(done.stdout.partition("\n\nNext:")[0].splitlines()) == len(told)
    assert re.search(r"^ok   python +3\.", done.stdout, re.MULTILINE)


def test_a_home_that_cannot_be_written_is_told_with_status_1(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = nadir("doctor", "--home", str(tmp_path / "file" / "home"))
    assert done.returncode == 1
    assert re.search(r"^FAIL home folder .*cannot be written", done.stdout, re.MULTILINE)


def test_what_lies_on_a_read_only_file_system_is_not_mended_by_rights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(folder: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    (tmp_path / "store").mkdir()
    (tmp_path / "nadir.sqlite").write_bytes(b"")
    monkeypatch.setattr(doctor_home, "_try", read_only)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr(os, "statvfs", lambda folder: SimpleNamespace(f_flag=os.ST_RDONLY))
    told, mending = (
        lines(home=tmp_path),
        "its file system is read-only: mount that for writing, or copy the home",
    )
    assert f"{mending} to another disk" in told["object store"].says
    assert f"{mending} to another disk" in told["database"].says
    assert "(Read-only file system)" in told["home folder"].says


@pytest.mark.parametrize(
    ("path", "mode", "what", "says"),
    [
        (
            "store",
            0,
            "object store",
            "{path} cannot be written or read (Permission denied); let the user that runs nadir read and write it "
            "(chown or chmod)",
        ),
        ("store/incoming", 0o500, "object store", "{path} cannot be written or read (Permission denied)"),
        ("store/objects", 0o300, "object store", "{path} cannot be written or read (Permission denied)"),
        ("nadir.sqlite", 0o400, "database", "{path} cannot be written or read; let the user that runs nadir"),
        ("audit.key", 0, "audit key", "the file {path} cannot be made or read (Permission denied)"),
    ],
)
def test_what_the_node_may_not_use_in_its_home_is_told_before_it_starts(
    tmp_path: Path, path: str, mode: int, what: str, says: str
) -> None:
    home = tmp_path / "home"
    Node(Settings.load(home=home, dicom_port=0, http_port=0)).stop()
    assert {"object store", "audit key"}.isdisjoint(lines(home=home))
    (home / path).chmod(mode)
    done = bound_by_modes(str(NADIR), "doctor", "--home", str(home), "--json")
    (home / path).chmod(0o700)
    assert done.returncode == 1
    (told,) = [line for line in json.loads(done.stdout) if not line["ok"] and line["what"] == what]
    assert told["needed"] and told["says"].startswith(says.format(path=home / path))


def test_a_port_for_metrics_is_looked_at_once_it_is_asked_for(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    assert "metrics port" not in lines(home=tmp_path)
    port = free_port()
    assert lines(home=tmp_path, metrics_port=port)["metrics port"].says == f"127.0.0.1:{port} is free"
    told = lines(home=tmp_path, metrics_port=port, metrics_host="nowhere.invalid")["metrics port"]
    assert (told.ok, told.needed) == (False, True)
    assert told.says.startswith(f"nowhere.invalid:{port} ")


def test_a_database_answers_or_says_why_not(tmp_path: Path) -> None:
    home = finished_node(tmp_path / "home")
    assert lines(home=home)["database"].says == "sqlite answers, up to date"
    (tmp_path / "junk.sqlite").write_bytes(b"no database" * 100)
    for url in (
        "nonsense",
        f"sqlite:///{tmp_path / 'junk.sqlite'}",
        "postgresql://127.0.0.1:1/x",
        "mysql://h/x",
    ):
        line = lines(home=tmp_path, database_url=url)["database"]
        assert not line.ok, url
        assert line.says


def test_a_database_that_takes_no_writes_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = finished_node(tmp_path / "home")
    monkeypatch.setattr(Database, "is_read_only", lambda _: True)
    line = lines(home=home)["database"]
    assert not line.ok
    assert "takes no writes" in line.says


def test_a_database_of_a_newer_version_is_told_as_the_node_would(tmp_path: Path) -> None:
    home = finished_node(tmp_path / "home")
    with closing(sqlite3.connect(home / "nadir.sqlite")) as file:
        file.execute("UPDATE alembic_version SET version_num = '9999_future'")
        file.commit()
    line = lines(home=home)["database"]
    assert not line.ok
    assert line.says == (
        f"newer-database: The database {home / 'nadir.sqlite'} was written by a newer version; "
        "start that version or use another database."
    )


def test_a_port_in_use_is_told_and_is_no_fault(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = lines(home=tmp_path, dicom_host="127.0.0.1", dicom_port=port)["DICOM port"]
    assert (line.ok, line.needed) == (False, False)
    assert "in use" in line.says
    line = lines(home=tmp_path, http_host="192.0.2.1")["HTTP port"]
    assert (line.ok, line.needed) == (False, True)


def test_destinations_answer_or_not(tmp_path: Path, free_port: Callable[[], int]) -> None:
    archive = Archive(tmp_path / "archive")
    archive.start()
    try:
        there = f"ARCHIVE@127.0.0.1:{archive.port}"
        gone = f"GONE@127.0.0.1:{free_port()}"
        web = f"http://user:secret@127.0.0.1:{free_port()}/dicom-web"
        found = lines(home=tmp_path, destinations=(there, gone, web), pacs_url=web)
    finally:
        archive.stop()
    assert found[f"destination {there}"].says == "answers C-ECHO"
    assert not found[f"destination {gone}"].ok
    assert "secret" not in str(found)
    assert [line.ok for what, line in found.items() if what.startswith(("PACS", "destination http"))] == [
        False
    ] * 2


def test_sources_of_earlier_studies_answer_or_not(tmp_path: Path, free_port: Callable[[], int]) -> None:
    archive = Archive(tmp_path / "archive")
    archive.start()
    try:
        there = f"ARCHIVE@127.0.0.1:{archive.port}"
        gone = f"GONE@127.0.0.1:{free_port()}"
        pacs = f"http://127.0.0.1:{free_port()}/dicom-web"
        web = f"http://user:secret@127.0.0.1:{free_port()}/dicom-web"
        found = lines(home=tmp_path, priors_from=(there, gone, web, f"{pacs}/"), pacs_url=pacs)
    finally:
        archive.stop()
    sources = {what: line for what, line in found.items() if what.startswith("earlier studies from")}
    assert [line.ok for line in sources.values()] == [True, False, False]
    assert sources[f"earlier studies from {there}"].says == "answers C-ECHO"
    assert "cannot be reached" in sources[f"earlier studies from {gone}"].says
    refused = sources[f"earlier studies from {web.replace('user:secret@', '')}"]
    assert refused.says == "does not answer DICOMweb: ConnectError"
    assert "secret" not in str(found)
    assert not any(what.startswith("earlier") for what in lines(home=tmp_path, pacs_url=pacs))


def test_a_reserve_above_the_free_disk_is_told_as_what_it_does(tmp_path: Path) -> None:
    told = lines(home=tmp_path, reserve_bytes=10**18)["home folder"]
    assert (told.ok, told.needed) == (False, True)
    assert told.says.endswith("GB free, below the 1000000000.0 GB of reserve_bytes: nothing is accepted")


@pytest.mark.parametrize(
    ("token", "is_told"), [("a long secret", True), ("schlüssel", True), ("a-long-secret~", False)]
)
def test_a_secret_that_the_hook_in_orthanc_would_refuse_is_told_and_not_shown(
    token: str, is_told: bool
) -> None:
    told = [line for line in peers(Settings(hook_token=token)) if line.what == "hook_token"]
    assert [line.ok for line in told] == [False] * is_told
    assert not any(token in line.says for line in told)


@pytest.mark.parametrize(
    ("callers", "is_told"),
    [
        ((), True),
        (("CT2",), True),
        (("CT1@10.0.0.8",), True),
        (("CT1",), False),
        (("*@10.0.0.0/8",), False),
    ],
)
def test_a_commitment_caller_that_may_not_send_is_a_warning(
    tmp_path: Path, callers: tuple[str, ...], is_told: bool
) -> None:
    found = lines(home=tmp_path, callers=callers, commitment_callers=("CT1@10.0.0.7:104",))
    what = "commitment caller CT1@10.0.0.7:104"
    assert (what in found) is is_told
    if is_told:
        assert (found[what].ok, found[what].needed) == (False, False)
        says = "is rejected (calling-ae), as it is none of the callers: name CT1@10.0.0.7 there too"
        assert found[what].says == says
    any_one = lines(home=tmp_path, accept_any=True, commitment_callers=("CT1@10.0.0.7:104",))
    assert what not in any_one


def test_a_commitment_caller_that_a_node_without_a_plain_port_answers_in_plain_is_a_warning(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    named = {
        "home": tmp_path,
        "commitment_callers": ("CT1@127.0.0.1:104", "CT2@127.0.0.1:104"),
        "delivery": {"CT2@127.0.0.1:104": {"tls": True}},
    }
    found = lines(**named, plain_dicom=False, tls_port=free_port())
    told = found["answers to CT1@127.0.0.1:104"]
    assert (told.ok, told.needed) == (False, False)
    says = 'is answered without TLS, though plain_dicom is off: set tls in [delivery."CT1@127.0.0.1:104"]'
    assert told.says == says
    assert "answers to CT2@127.0.0.1:104" not in found
    assert "answers to CT1@127.0.0.1:104" not in lines(**named)


@pytest.mark.parametrize(
    ("settings", "what", "says"),
    [
        ({"plugins": {"pet_lesion": {"nonsense": 1}}}, "analysis pet_lesion", "bad-plugin-settings"),
        ({"enabled": ("nobody",)}, "analysis nobody", "unknown-plugin"),
        ({"plugins": {"nobody": {}}}, "analysis nobody", "unknown-plugin"),
    ],
)
def test_an_analysis_that_cannot_run_is_named_and_the_others_are_told(
    tmp_path: Path, settings: dict[str, object], what: str, says: str
) -> None:
    found = lines(home=tmp_path, **settings)
    assert not found[what].ok
    assert says in found[what].says
    assert found["database"].ok


def test_results_for_a_destination_that_was_taken_away_are_told(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    node, kept = SmallNode.make(tmp_path), f"KEPT@127.0.0.1:{free_port()}"
    gone = "http://nadir:secret@old/dicom-web"
    waiting_results(node.database, node.objects, tmp_path / "files", (kept, gone), count=1)
    found = lines(home=tmp_path, destinations=(kept,))
    line = found["destination http://old/dicom-web"]
    assert not line.ok
    assert line.says.startswith("1 results wait for it")
    assert "secret" not in str(found)
    assert set(lines(home=tmp_path)) >= {f"destination {kept}", "destination http://old/dicom-web"}


def test_the_runtime_of_each_network_is_named_once_it_was_tried_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "when a network first runs" in lines(home=tmp_path)["runtime"].says
    cache = tmp_path / ".cache" / "nadir" / "networks"
    cache.mkdir(parents=True)
    trial = {
        "model": "nodule_segmenter",
        "kind": "openvino-int8",
        "ms": {"torch-fp32": 35.14, "openvino-int8": 3.52},
        "machine": this_machine(),
    }
    elsewhere = {**trial, "machine": "reading-room, torch 1.0"}
    earlier = {name: value for name, value in trial.items() if name != "machine"}
    others = {"b": {**elsewhere, "model": "nodule_detector"}, "c": {**earlier, "model": "petct_multitask"}}
    (cache / "trials.json").write_text(json.dumps(others))
    assert "when a network first runs" in lines(home=tmp_path)["runtime"].says
    (cache / "trials.json").write_text(
        json.dumps({"a": trial, "d": {**elsewhere, "kind": "torch-fp32"}, **others})
    )
    found = lines(home=tmp_path)
    assert [what for what in found if what.startswith("runtime")] == ["runtime of nodule_segmenter"]
    assert found["runtime of nodule_segmenter"].says == "openvino-int8, 3.5 ms a patch (torch-fp32 35.1)"


@pytest.mark.parametrize(
    ("settings", "what", "says"),
    [
        ({"callers": ("*",)}, "callers", "'*' is not a caller: write AE, AE@address or *@address"),
        (
            {"callers": ("CT1@10.0.0.7:104",)},
            "callers",
            "the host '10.0.0.7:104' of a caller cannot be found",
        ),
        ({"callers": ("CT1@not_an_ip",)}, "callers", "the host 'not_an_ip' of a caller cannot be found"),
        ({"caller_certificates": ("CT1",)}, "callers", "'CT1' binds no AE title to a certificate"),
        ({"commitment_callers": ("CT1@not_an_ip:104",)}, "commitment callers", "'not_an_ip' of a caller"),
        ({"audit_syslog": "10.0.0.1:514"}, "audit trail", "audit_syslog: write udp://host:port"),
        ({"http_tls_certificate": Path("gone.pem")}, "HTTPS", "gone.pem"),
        ({"http_tls_key": Path("key.pem")}, "HTTPS", "http_tls_key is set and http_tls_certificate is not"),
        ({"http_host": "0.0.0.0"}, "sign-in", "the HTTP port on 0.0.0.0 would be open to the network"),
    ],
)
def test_what_serve_refuses_of_the_settings_the_doctor_tells_in_its_words(
    tmp_path: Path, settings: dict[str, object], what: str, says: str
) -> None:
    home = tmp_path / "home"
    told = lines(home=home, **settings)[what]
    assert (told.ok, told.needed) == (False, True)
    assert says in told.says
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(NadirError) as refused:
        Node(Settings.load(home=home, dicom_port=0, http_port=0, **settings)).start()
    assert str(refused.value) == told.says


def test_of_a_named_folder_without_the_viewer_it_is_told_what_is_not_there(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    says = lines(home=tmp_path / "home", viewer_pages=gone)["viewer"].says
    assert says == f"not installed: {gone}, which viewer_pages names, is not there"
    says = lines(home=tmp_path / "home", viewer_pages=tmp_path)["viewer"].says
    assert says == f"not installed: {tmp_path}, which viewer_pages names, holds no index.html of OHIF"
    (tmp_path / "index.html").touch()
    assert lines(home=tmp_path / "home", viewer_pages=tmp_path)["viewer"].ok


def test_a_door_to_the_network_is_well_once_somebody_may_enter_and_so_is_a_token(tmp_path: Path) -> None:
    home = tmp_path / "home"
    opened = {"home": home, "http_host": "0.0.0.0"}
    assert "sign-in" not in lines(**opened, hook_token="x" * 32)
    assert "sign-in" not in lines(home=home, http_host="localhost")
    SmallNode.make(tmp_path).database.dispose()
    opened["home"] = tmp_path
    assert "open-http: " in lines(**opened)["sign-in"].says
    database = Database(Settings.load(home=tmp_path).sql_url)
    with database.transaction() as session:
        accounts.add_token(session, "orthanc", ["hook"], database.now(), None)
    database.dispose()
    assert "sign-in" not in lines(**opened)


def test_a_database_without_tables_lets_nobody_in_and_a_broken_one_is_told_for_itself(tmp_path: Path) -> None:
    empty, junk = tmp_path / "empty.sqlite", tmp_path / "junk.sqlite"
    empty.touch()
    junk.write_bytes(b"no database" * 100)
    opened = {"home": tmp_path / "home", "http_host": "0.0.0.0"}
    assert "open-http: " in lines(**opened, database_url=f"sqlite:///{empty}")["sign-in"].says
    told = lines(**opened, database_url=f"sqlite:///{junk}")
    assert not told["database"].ok
    assert "sign-in" not in told


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"http_port": 11112}, {"http_port": "dicom_port"}),
        ({"metrics_port": 11112, "dicom_host": "localhost"}, {"metrics_port": "dicom_port"}),
        (
            {"http_port": 11112, "metrics_port": 11112},
            {"http_port": "dicom_port", "metrics_port": "http_port"},
        ),
        ({"http_port": 11112, "dicom_host": "127.0.0.2"}, {}),
        ({"http_port": 8080}, {}),
    ],
)
def test_two_equal_ports_are_a_fault_where_their_hosts_meet(
    tmp_path: Path, settings: dict[str, object], names: dict[str, str]
) -> None:
    found = lines(home=tmp_path, **{"dicom_port": 11112, **settings})
    clashes = {what: line for what, line in found.items() if what.endswith("_port")}
    assert set(clashes) == set(names)
    for what, other in names.items():
        assert clashes[what].says == f"{other} is 11112 too: give one of them another"
        assert (clashes[what].ok, clashes[what].needed) == (False, True)


def test_an_audit_file_that_cannot_be_made_is_a_warning(tmp_path: Path) -> None:
    for path, says in (
        (tmp_path / "no" / "trail", "does not exist: make it"),
        (tmp_path, "cannot be written"),
    ):
        told = lines(home=tmp_path / "home", audit_file=path)[f"audit file {path}"]
        assert (told.ok, told.needed) == (False, False)
        assert says in told.says
    fine = tmp_path / "trail.json"
    assert f"audit file {fine}" not in lines(home=tmp_path / "home", audit_file=fine)
    assert list(tmp_path.iterdir()) == []


def test_the_command_ends_with_status_1_for_a_door_that_serve_would_not_open(tmp_path: Path) -> None:
    toml = tmp_path / "nadir.toml"
    toml.write_text(f'home = "{tmp_path}/home"\nhttp_host = "0.0.0.0"\nhttp_port = 0\ndicom_port = 0\n')
    done = nadir("doctor", "--config", str(toml))
    assert done.returncode == 1
    assert re.search(
        r"^FAIL sign-in +open-http: the HTTP port on 0\.0\.0\.0 would be open", done.stdout, re.MULTILINE
    )
    assert "start the node" not in done.stdout
