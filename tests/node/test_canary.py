"""A patient who can be recognised goes through everything a node does, and must be seen nowhere but where he belongs.

He may stand in DICOM objects (received, made or quarantined), in SQL's rows of the patient and the study, and in the
reports that a person asks for; nowhere else: no log, no metric, no temporary file, no error page, no event, no command
line of a process.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
import trouble_plugin
from dicom_series import make_series
from figures import write_figure
from node_process import NodeProcess
from pydicom import dcmread
from raw_peer import CT, RawPeer

from store.part10 import split

CANARIES = {
    "PatientName": "KANARIENVOGEL^Tweety",
    "PatientID": "CNRY-4711-ID",
    "OtherPatientNames": "PIEPMATZ^Other",
    "PatientBirthDate": "19010203",
    "AccessionNumber": "ACCCNRY0815",
    "PatientComments": "cnrycomment-patient",
    "ImageComments": "cnrycomment-image",
    "PatientAddress": "cnrystreet 1",
    "ReferringPhysicianName": "CNRYDOC^Referring",
    "StudyDescription": "cnrystudy description",
    "SeriesDescription": "cnryseries description",
    "ProtocolName": "cnryprotocol",
    "InstitutionName": "cnryhospital",
}
NEEDLES = tuple(
    {
        part.encode()
        for value in CANARIES.values()
        for part in (value, value.split("^")[0], "1901-02-03")
        if len(part) > 7
    }
)
ALLOWED_TABLES = {
    "patient": "*",
    "study": ("study_description", "accession_number"),
    "series": ("series_description",),
}
ALLOWED_FILES = ("store/objects/", "store/quarantine/", "nadir.sqlite")


def study(folder: Path, number: int, **changes: object) -> list[Path]:
    """Write a CT of four slices of this patient."""
    values = {**CANARIES, "PatientID": f"{CANARIES['PatientID']}{number}", **changes}
    return make_series(
        folder / f"study-{number}",
        np.full((4, 20, 20), 40.0) + np.arange(20),
        patient_id=str(values["PatientID"]),
        study_date=f"2025010{number}",
        **{name: value for name, value in values.items() if name != "PatientID"},
    )


def hostile(folder: Path) -> list[Path]:
    """Write files of this patient that are refused, or that make pydicom warn."""
    cut, odd_date, odd_number = study(folder, 8)[:3]
    cut.write_bytes(cut.read_bytes()[:900])
    for path, keyword, old in (
        (odd_date, "StudyDate", b"20250108"),
        (odd_number, "PatientBirthDate", b"19010203"),
    ):
        assert keyword in dir(dcmread(path))
        path.write_bytes(path.read_bytes().replace(old, b"CNRYDATE"))
    bad_uid = study(folder, 9)[0]
    data = bad_uid.read_bytes()
    uid = str(dcmread(bad_uid).SOPInstanceUID).encode()
    bad_uid.write_bytes(data.replace(uid, b"cnrycomment-patient".ljust(len(uid), b".")))
    return [cut, odd_date, odd_number, bad_uid]


@contextmanager
def command_lines() -> Iterator[set[bytes]]:
    """Give every command line that any process had while the block ran."""
    seen: set[bytes] = set()
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.add(path.read_bytes())
                except OSError:  # it has ended
                    continue

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def send(files: list[Path], port: int) -> list[int | None]:
    """Send the data sets as they are, broken or not; returns the status of each."""
    statuses = []
    for path in files:
        _, offset = split(path)
        with RawPeer(port) as peer:
            peer.associate(calling="SCANNER")
            uid = str(split(path)[0].MediaStorageSOPInstanceUID)
            uid = uid if uid[0].isdigit() else "1.2.3"
            statuses.append(peer.store(CT, uid, path.read_bytes()[offset:]))
    return statuses


def rows_with(database: Path, needles: tuple[bytes, ...]) -> list[str]:
    """Return every column of every table that holds a needle where none may be."""
    found = []
    with closing(sqlite3.connect(database)) as connection:
        connection.text_factory = bytes
        tables = [
            name.decode()
            for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
        ]
        for table in tables:
            cursor = connection.execute(f'SELECT * FROM "{table}"')
            names = [column[0] for column in cursor.description]
            for row in cursor:
                for name, value in zip(names, row, strict=True):
                    allowed = ALLOWED_TABLES.get(table, ())
                    if allowed != "*" and name not in allowed and any(n in _bytes(value) for n in needles):
                        found.append(f"{table}.{name}")
    return found


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


@pytest.mark.sec
@pytest.mark.fault
def test_canary_is_seen_nowhere_but_in_objects_reports_and_the_rows_of_patient_and_study(
    tmp_path: Path,
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    plugin = trouble_plugin.install(tmp_path / "trouble")
    nodes = []

    def start(first: str, second: str) -> NodeProcess:
        plugins = f'{{"trouble": {{"mode": "{first}"}}, "second": {{"mode": "{second}"}}}}'
        environment = {
            "PYTHONPATH": str(plugin),
            "NADIR_ENABLED": "trouble,second",
            "NADIR_PLUGINS": plugins,
            "NADIR_MAX_ATTEMPTS": "1",
            "TMPDIR": str(temporary),
        }
        flags = ("--accept-any", "--quiet-seconds", "0.5", "--log-level", "DEBUG")
        node = NodeProcess(
            tmp_path / "home", *flags, "--destination", "PACS@127.0.0.1:9", environment=environment
        )
        nodes.append(node)
        node.start()
        return node

    pages = b""
    try:
        with command_lines() as lines:
            node = start("fault", "segfault")
            assert send(study(tmp_path / "in", 1), node.dicom_port) == [0x0000] * 4
            assert 0xC000 in send(hostile(tmp_path / "in"), node.dicom_port)
            node.wait_for("second", ("dead",))
            node.kill()
            node = start("refuse", "box")
            assert send(study(tmp_path / "in", 2), node.dicom_port) == [0x0000] * 4
            node.wait_for("second", ("delivering",))
            with httpx.Client(base_url=f"http://127.0.0.1:{node.http_port}") as client:
                for path in ("/metrics", "/health", "/nothing", "/jobs/x", "/studies/1.2.3"):
                    pages += client.get(path).content
                for value in CANARIES.values():
                    pages += client.post("/hook/stable", content=value).content
                    pages += client.get("/jobs", params={"state": value}).content
            node.stop()
    finally:
        for node in nodes:
            node.kill()
    logged = "".join(line for node in nodes for line in node.log).encode()
    seen = [f"log: {needle!r}" for needle in NEEDLES if needle in logged]
    seen += [f"page: {needle!r}" for needle in NEEDLES if needle in pages]
    seen += [f"process: {needle!r}" for needle in NEEDLES if any(needle in line for line in _ours(lines))]
    for path in (*(tmp_path / "home").rglob("*"), *temporary.rglob("*")):
        where = (
            str(path.relative_to(tmp_path / "home")) if path.is_relative_to(tmp_path / "home") else str(path)
        )
        is_object = where.startswith(ALLOWED_FILES) and not where.endswith(".json")
        if path.is_file() and not is_object and any(needle in path.read_bytes() for needle in NEEDLES):
            seen.append(f"file: {where}")
        seen += [f"name: {where}" for needle in NEEDLES if needle.decode() in where]
    seen += rows_with(tmp_path / "home" / "nadir.sqlite", NEEDLES)
    assert seen == []
    assert b"code=analysis-crashed" in logged
    assert b"action=delivery " in logged
    assert list((tmp_path / "home" / "store" / "quarantine").glob("*.json"))
    places = len(logged.splitlines()) + len(lines)
    write_figure("canary", canaries=len(NEEDLES), hits=0, log_lines_and_command_lines=places)


def _ours(lines: set[bytes]) -> list[bytes]:
    """Return the command lines of the node and its children: the senders and this test name files, not patients."""
    return [line for line in lines if b"nadir" in line or b"node." in line]
