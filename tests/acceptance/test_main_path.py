"""The main job, whole: a real study through a real Orthanc with the hook, and straight to the node."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import highdicom
import httpx
import numpy as np
import pytest
from node_process import NodeProcess, nadir, node
from orthanc_server import OrthancServer, orthanc
from ports import free_port
from pydicom import Dataset, dcmread

from store.dicom.series import read_study

pytestmark = pytest.mark.xdist_group("main-path")

BIN = Path(sys.executable).parent
ENABLED = {"NADIR_ENABLED": "contours"}
NODE_FLAGS = ("--accept-any", "--quiet-seconds", "2", "--ae-title", "NADIR")


@dataclass(frozen=True)
class Round:
    """What came back from one round through the whole."""

    node: NodeProcess
    pacs: OrthancServer
    segs: list[Path]
    srs: list[Path]

    def of(self, plugin: str) -> tuple[list[Path], list[Path]]:
        """Return the SEG and SR files that one plugin wrote."""
        return tuple(
            [f for f in files if plugin in str(dcmread(f).SeriesDescription)]
            for files in (self.segs, self.srs)
        )  # type: ignore[return-value]


@pytest.fixture(scope="module")
def study_files(data: Path) -> list[Path]:
    return sorted((data / "ct_4dlung").rglob("*.dcm"))


@pytest.fixture(scope="module")
def through_orthanc(study_files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Round]:
    """Send the study by storescu into Orthanc; the hook, the node and the PACS do the rest."""
    folder = tmp_path_factory.mktemp("through_orthanc")
    http_port = free_port()
    with orthanc(node_url=f"http://127.0.0.1:{http_port}", stable_seconds=2) as pacs:
        process = NodeProcess(
            folder / "home",
            *NODE_FLAGS,
            "--destination",
            f"ORTHANC@127.0.0.1:{pacs.dicom_port}",
            "--pacs-url",
            pacs.dicomweb,
            environment=ENABLED,
        )
        process.http_port = http_port
        try:
            process.start()
            _storescu(study_files, pacs.dicom_port, "ORTHANC")
            process.wait_until_idle()
            yield Round(process, pacs, *_read_back(pacs, dcmread(study_files[0]).StudyInstanceUID, folder))
        finally:
            process.kill()


def _storescu(files: list[Path], port: int, ae_title: str) -> None:
    ct = [str(f) for f in files if "CT" in f.parts]
    other = [str(f) for f in files if "CT" not in f.parts]
    for flags, group in ((["-xt"], ct), ([], other)):
        if not group:
            continue
        command = [
            "/usr/bin/storescu",
            "-R",
            "-aet",
            "SCANNER",
            "-aec",
            ae_title,
            *flags,
            "127.0.0.1",
            str(port),
            *group,
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=120)


def _read_back(pacs: OrthancServer, study_uid: str, folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the SEG and SR files of a study, found by QIDO and fetched by WADO."""
    found: dict[str, list[Path]] = {"SEG": [], "SR": []}
    for modality, files in found.items():
        url = f"{pacs.dicomweb}/studies/{study_uid}/instances"
        answer = httpx.get(url, params={"Modality": modality}, headers={"Accept": "application/dicom+json"})
        for instance in answer.json() if answer.status_code == 200 else []:
            series, uid = instance["0020000E"]["Value"][0], instance["00080018"]["Value"][0]
            path = folder / f"{modality}-{uid}.dcm"
            whole = f"{pacs.dicomweb}/studies/{study_uid}/series/{series}/instances/{uid}"
            wado = httpx.get(whole, headers={"Accept": 'multipart/related; type="application/dicom"'})
            path.write_bytes(_only_part(wado.raise_for_status()))
            files.append(path)
    return found["SEG"], found["SR"]


def _only_part(answer: httpx.Response) -> bytes:
    """Return the one part of a multipart answer."""
    boundary = answer.headers["content-type"].split("boundary=")[1].split(";")[0].strip('"').encode()
    part = answer.content.split(b"--" + boundary)[1]
    return part.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n")


def _voxels(seg: Path) -> dict[str, np.ndarray]:
    """Return the voxel counts per slice of each segment, read by highdicom."""
    read = highdicom.seg.segread(seg)
    volume = read.get_volume(combine_segments=False, rescale_fractional=True)
    return {
        read.get_segment_description(n).segment_label: volume.array[..., n - 1].astype(bool)
        for n in read.segment_numbers
    }


def test_tumour_and_node_volumes_come_back_in_sql(through_orthanc: Round) -> None:
    rows = through_orthanc.node.ask("findings")
    volumes = {r["label"]: r["value"] for r in rows if r["name"] == "volume" and r["plugin"] == "contours"}
    assert volumes["Tumor_c40"] == pytest.approx(67.557, rel=0.03)
    assert volumes["LN_c40"] == pytest.approx(6.406, rel=0.03)
    assert {r["unit"] for r in rows if r["name"] == "volume"} == {"ml"}


def test_the_seg_in_the_pacs_holds_every_voxel_of_the_drawn_regions(
    through_orthanc: Round, study_files: list[Path]
) -> None:
    (seg,), _ = through_orthanc.of("contours")
    study = read_study(study_files).study
    drawn = {d.label: d.mask for d in study.drawn}
    voxels = _voxels(seg)
    assert set(voxels) == set(drawn)
    for label, mask in drawn.items():
        assert int(voxels[label].sum()) == mask.count
        kept = voxels[label][np.argwhere(voxels[label]).min(0)[0] : np.argwhere(voxels[label]).max(0)[0] + 1]
        rows, columns = mask.box[1:]
        assert np.array_equal(kept[:, rows, columns], mask.voxels) or np.array_equal(
            kept[::-1, rows, columns], mask.voxels
        )


def test_both_reports_carry_the_segments_tracking_uids_and_pass_the_rule_check(
    through_orthanc: Round,
) -> None:
    segs, srs = through_orthanc.of("contours")
    assert len(segs) == 1
    assert len(srs) == 2
    done = nadir("check", *map(str, segs), *map(str, srs))
    assert done.returncode == 0, done.stdout
    segments = {s.TrackingUID for s in dcmread(segs[0]).SegmentSequence}
    for sr in srs:
        assert _tracking_uids(dcmread(sr)) == segments


def _tracking_uids(dataset: Dataset) -> set[str]:
    found = set()
    for item in dataset.get("ContentSequence", []):
        if item.ValueType == "UIDREF" and item.ConceptNameCodeSequence[0].CodeValue == "112040":
            found.add(str(item.UID))
        found |= _tracking_uids(item)
    return found


def test_independent_readers_find_no_error(through_orthanc: Round, tmp_path: Path) -> None:
    segs, srs = through_orthanc.of("contours")
    for path in (*segs, *srs):
        done = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, check=False)
        errors = [line for line in done.stderr.splitlines() if line.startswith("Error")]
        assert not errors, (path.name, errors)
    out = tmp_path / "nrrd"
    out.mkdir()
    command = [BIN / "segimage2itkimage", "--inputDICOM", segs[0], "--outputDirectory", out, "-t", "nrrd"]
    subprocess.run(command, check=True, capture_output=True)
    assert len(list(out.glob("*.nrrd"))) == 4
    for number, sr in enumerate(srs):
        target = tmp_path / f"{number}.json"
        done = subprocess.run(
            [BIN / "tid1500reader", "--inputDICOM", sr, "--outputMetadata", target],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(target.read_text())["Measurements"]


def test_results_that_come_back_are_not_analysed(through_orthanc: Round) -> None:
    jobs = through_orthanc.node.ask("jobs", "list")
    segs, _ = through_orthanc.of("contours")
    _storescu([segs[0]], through_orthanc.node.dicom_port, "NADIR")
    through_orthanc.node.wait_until_idle()
    assert through_orthanc.node.ask("jobs", "list") == jobs


def test_sigterm_ends_the_node_with_status_zero(tmp_path: Path) -> None:
    with node(tmp_path / "home", *NODE_FLAGS) as process:
        assert process.ready_line.count("\n") == 1
        assert process.stop() == 0


@pytest.mark.long  # the order of arrival is property-tested in test_studies and test_series
def test_four_shuffled_associations_give_the_same_result_once(
    through_orthanc: Round, study_files: list[Path], tmp_path: Path
) -> None:
    files = list(study_files)
    random.Random(7).shuffle(files)
    port = through_orthanc.pacs.dicom_port
    flags = (*NODE_FLAGS, "--destination", f"ORTHANC@127.0.0.1:{port}")
    with node(tmp_path / "home", *flags, environment=ENABLED) as straight:
        senders = []
        for part in range(4):
            folder = tmp_path / f"part{part}"
            folder.mkdir()
            for number, file in enumerate(files[part::4]):
                shutil.copy(file, folder / f"{number:04d}.dcm")
            command = [
                "dcmsend",
                "-aec",
                "NADIR",
                "--scan-directories",
                "127.0.0.1",
                str(straight.dicom_port),
            ]
            senders.append(subprocess.Popen([*command, str(folder)], stdout=subprocess.DEVNULL))
        assert [s.wait(120) for s in senders] == [0, 0, 0, 0]
        jobs = straight.wait_until_idle()
        assert [j["plugin"] for j in jobs] == ["contours"]
        expected = {(r["label"], r["name"]): r["value"] for r in through_orthanc.node.ask("findings")}
        got = {(r["label"], r["name"]): r["value"] for r in straight.ask("findings")}
        assert got == expected
        tracking = {r["tracking_uid"] for r in through_orthanc.node.ask("findings")}
        assert {r["tracking_uid"] for r in straight.ask("findings")} == tracking
