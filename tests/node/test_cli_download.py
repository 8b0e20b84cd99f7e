"""`nadir curate tcia` and `nadir curate idc` as people run them, against a stand-in of both archives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_series import derived, make_series, write
from node_process import NADIR
from public_archives import DOI, PublicArchives, serving
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from node.cli import app
from plugins.errors import Refused

SEG, RTSTRUCT, SR = (
    "1.2.840.10008.5.1.4.1.1.66.4",
    "1.2.840.10008.5.1.4.1.1.481.3",
    "1.2.840.10008.5.1.4.1.1.88.33",
)
CT = "1.2.840.10008.5.1.4.1.1.2"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """Return four CT series of four patients."""
    root = tmp_path_factory.mktemp("series")
    noise = np.random.default_rng(6).integers(-1000, 500, (4, 24, 24))
    for number in range(4):
        make_series(root / str(number), noise[: number + 1] + number, patient_id=f"LIDC-{number}")
    return tuple(sorted(root.iterdir()))


@pytest.fixture
def archives(folders: tuple[Path, ...]) -> Iterator[PublicArchives]:
    with serving(PublicArchives(*folders)) as running:
        yield running


@pytest.fixture
def servers(archives: PublicArchives, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the options that lead both commands to the stand-in."""
    index = archives.index(tmp_path_factory.mktemp("index") / "index.csv")
    return ["--tcia-server", archives.tcia, "--idc-server", archives.url, "--index", str(index)]


def curate(*arguments: str | Path | Sequence[str]) -> int:
    """Run a command of the group in this process and return its exit status."""
    flat: list[str] = []
    for one in arguments:
        flat += [str(one)] if isinstance(one, str | Path) else list(one)
    return int(app(["curate", *flat], standalone_mode=False) or 0)


def shape(folder: Path) -> dict[str, int]:
    """Return how many instances of each series are there."""
    return {
        path.name: len(list(path.glob("*.dcm")))
        for path in sorted(folder.iterdir())
        if path.is_dir() and path.name[0].isdigit()
    }


@pytest.mark.parametrize("name", ["tcia", "idc"])
def test_a_collection_by_name_with_its_record_and_again_without_a_file(
    archives: PublicArchives,
    servers: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    assert curate(name, "LIDC-IDRI", "--out", tmp_path, servers, "--patient", "LIDC-1", "--dry-run") == 0
    told = capsys.readouterr().out
    assert told.startswith("LIDC-IDRI: 1 series, 4.8 kB\n") and "3.0" in told and DOI in told
    assert ("left out: 3 series, other patients" in told) is (name == "idc")
    assert list(tmp_path.iterdir()) == []
    assert curate(name, "LIDC-IDRI", "--out", tmp_path, servers, "--max-series", "3") == 0
    told = capsys.readouterr()
    assert told.out.startswith("3 of 3 series whole in ")
    assert [line.split(": ")[0] for line in told.err.splitlines()] == ["1 of 3", "2 of 3", "3 of 3"]
    record = json.loads((tmp_path / "collection.json").read_text())
    assert (record["collection"], record["left_out"]) == ("LIDC-IDRI", {"beyond the limit": 1})
    assert record["source"] == name.upper() and list(record["citation"]) == [f"https://doi.org/{DOI}"]
    assert curate(name, "LIDC-IDRI", "--out", tmp_path, servers, "--max-series", "3", "--json") == 0
    assert json.loads(capsys.readouterr().out)["new_files"] == 0


def test_what_is_missing_in_the_end_is_told_and_the_exit_status_says_so(
    archives: PublicArchives, servers: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archives.always = {"getSOPInstanceUIDs": "503"}
    only = ["--series", archives.held[0].uid, "--attempts", "1"]
    assert curate("tcia", "LIDC-IDRI", "--out", tmp_path, servers, only) == 1
    assert archives.held[0].uid in capsys.readouterr().err
    record = json.loads((tmp_path / "collection.json").read_text())
    assert list(record["missing"]) == [archives.held[0].uid]


@pytest.mark.fault
def test_a_command_that_was_killed_goes_on_where_it_was(
    archives: PublicArchives, servers: list[str], tmp_path: Path
) -> None:
    command = [
        str(NADIR),
        "curate",
        "idc",
        "LIDC-IDRI",
        "--out",
        str(tmp_path),
        *servers,
        "--connections",
        "1",
    ]
    archives.wait = threading.Event()
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while not any(path.stat().st_size for path in (tmp_path / ".nadir").glob("*.part")):
        assert time.monotonic() < until and running.poll() is None
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.wait()
    archives.wait.set()
    (part,) = (tmp_path / ".nadir").glob("*.part")
    half = part.stat().st_size
    assert json.loads((tmp_path / "collection.json").read_text())["is_finished"] is False
    archives.asked.clear()
    assert curate(*command[2:]) == 0
    objects = [one for one in archives.asked if one.endpoint == "object"]
    assert objects[0].headers["Range"] == f"bytes={half}-"
    assert len(objects) == 10
    assert shape(tmp_path) == {one.uid: len(one.files) for one in sorted(archives.held, key=lambda s: s.uid)}
    assert not list((tmp_path / ".nadir").glob("*.part*"))


def item(**values: Any) -> Dataset:
    dataset = Dataset()
    for name, value in values.items():
        setattr(dataset, name, Items(value) if isinstance(value, list) else value)
    return dataset


def instances(held: Any, sop_class: str = CT) -> list[Dataset]:
    return [item(ReferencedSOPClassUID=sop_class, ReferencedSOPInstanceUID=sop) for sop in held.files]


def speaker(path: Path, sop_class: str, **values: Any) -> None:
    """Write an object that refers to images and has nothing else."""
    dataset = item(
        SOPClassUID=sop_class,
        SOPInstanceUID=derived(path.name),
        StudyInstanceUID=derived("study"),
        SeriesInstanceUID=derived("series", path.name),
        Modality="OT",
        **values,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write(dataset, path)


def results(archives: PublicArchives, folder: Path) -> None:
    """Write a SEG, an RTSTRUCT, an SR and the XML of a reading, each on another series."""
    on = archives.held
    inner = item(SeriesInstanceUID=on[0].uid, ReferencedInstanceSequence=instances(on[0]))
    speaker(folder / "seg.dcm", SEG, ReferencedSeriesSequence=[inner])
    inner = item(SeriesInstanceUID=on[1].uid, ContourImageSequence=instances(on[1]))
    study = item(RTReferencedSeriesSequence=[inner])
    frame = item(FrameOfReferenceUID="1.2.3", RTReferencedStudySequence=[study])
    speaker(folder / "deep" / "rtstruct", RTSTRUCT, ReferencedFrameOfReferenceSequence=[frame])
    seg = item(SeriesInstanceUID="1.2.99", ReferencedSOPSequence=instances(on[0], SEG))
    image = item(SeriesInstanceUID=on[2].uid, ReferencedSOPSequence=instances(on[2]))
    evidence = [item(StudyInstanceUID="1.2.3", ReferencedSeriesSequence=[seg, image])]
    speaker(folder / "sr.dcm", SR, CurrentRequestedProcedureEvidenceSequence=evidence)
    marks = "".join(
        f"<nonNodule><nonNoduleID>1</nonNoduleID><imageZposition>1</imageZposition><imageSOP_UID>{sop}"
        "</imageSOP_UID><locus><xCoord>3</xCoord><yCoord>4</yCoord></locus></nonNodule>"
        for sop in on[3].files
    )
    (folder / "069.xml").write_text(
        '<?xml version="1.0"?><LidcReadMessage xmlns="http://www.nih.gov"><ResponseHeader>'
        f"<SeriesInstanceUid>{on[3].uid}</SeriesInstanceUid></ResponseHeader>"
        f"<readingSession>{marks}</readingSession></LidcReadMessage>"
    )
    (folder / "other.xml").write_text("<note/>")
    speaker(folder / "mute", RTSTRUCT, FrameOfReferenceUID="1.2.3")


@pytest.mark.parametrize("name", ["tcia", "idc"])
def test_exactly_the_images_that_results_speak_of_come(
    archives: PublicArchives, servers: list[str], folders: tuple[Path, ...], tmp_path: Path, name: str
) -> None:
    results(archives, tmp_path)
    stranger = make_series(tmp_path / "x", np.zeros((1, 4, 4)), patient_id="LIDC-9")[0]
    archives.held[1].row["Collection"] = "Other"
    (tmp_path / "here").mkdir()
    for path in sorted(folders[3].iterdir())[:-1]:  # one image of this series is missing
        os.link(path, tmp_path / "here" / path.name)
    lacking = str(dcmread(sorted(folders[3].iterdir())[-1]).SOPInstanceUID)
    assert curate(name, "--for", tmp_path, servers) == 0
    expected = {one.uid: len(one.files) for one in archives.held[:3]} | {archives.held[3].uid: 1}
    assert shape(tmp_path) == dict(sorted(expected.items()))
    assert (tmp_path / archives.held[3].uid / f"{lacking}.dcm").is_file()
    assert stranger.is_file()
    if name == "idc":
        assert archives.count("object") == 1 + 2 + 3 + 1
    before = len(archives.asked)
    assert curate(name, "--for", tmp_path, servers) == 0
    assert archives.asked[before:] == []


def test_what_one_archive_does_not_have_is_asked_of_the_other_and_what_none_has_is_told(
    archives: PublicArchives, servers: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results(archives, tmp_path / "in")
    lost, only_idc = archives.held[0], archives.held[1]
    index = Path(servers[-1])
    index.write_text("\n".join(line for line in index.read_text().splitlines() if lost.uid not in line))
    archives.hidden = {lost.uid, only_idc.uid}
    assert curate("tcia", "--for", tmp_path / "in", "--out", tmp_path / "out", servers) == 1
    told = capsys.readouterr().err
    assert f"{tmp_path}/in/mute names no series of images" in told
    assert f"series {lost.uid}: the series: TCIA does not have it; IDC does not have it" in told
    assert set(shape(tmp_path / "out")) == {one.uid for one in archives.held[1:]}
    record = json.loads((tmp_path / "out" / "collection.json").read_text())
    assert {one["series_instance_uid"]: one["source"] for one in record["series"]}[only_idc.uid] == "IDC"
    assert list(record["missing"]) == [lost.uid]


def test_a_question_that_contradicts_itself_is_refused(servers: list[str], tmp_path: Path) -> None:
    import typer

    for arguments in (["tcia"], ["idc", "LIDC-IDRI"], ["tcia", "X", "--for", str(tmp_path)]):
        with pytest.raises(typer.BadParameter):
            curate(arguments)
    with pytest.raises(Refused, match="without user or password"):
        curate("tcia", "X", "--out", tmp_path, "--tcia-server", "https://u:p@archive.example")


@pytest.mark.sec
def test_the_token_is_read_from_a_private_file_and_shown_nowhere(
    archives: PublicArchives,
    servers: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    token = tmp_path / "token"
    token.write_text("t0ken-of-mine\n")
    token.chmod(0o600)
    monkeypatch.setenv("NADIR_TCIA_TOKEN_FILE", str(token))
    assert curate("tcia", "LIDC-IDRI", "--out", tmp_path / "out", servers, "--max-series", "1") == 0
    sent = {one.headers.get("Authorization") for one in archives.asked}
    assert sent == {"Bearer t0ken-of-mine"}
    told = capsys.readouterr()
    files = [path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert "t0ken" not in told.out + told.err and not any(b"t0ken" in body for body in files)
