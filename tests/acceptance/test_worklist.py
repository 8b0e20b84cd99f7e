"""A worklist drives a real node: input from and results into a real Orthanc, cancelled by an event, killed, resumed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import pytest
import trouble_plugin
from dicom_series import make_series
from node_process import NodeProcess
from orthanc_server import OrthancServer, orthanc
from pydicom import dcmread
from worklist_manager import Item, WorklistManager, code, dataset, value, values

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def pacs() -> Iterator[OrthancServer]:
    with orthanc() as running:
        yield running


@pytest.fixture
def manager() -> Iterator[WorklistManager]:
    made = WorklistManager()
    with made.events(), made.serving() as url:
        made.url = url  # type: ignore[attr-defined]  # where the node finds it
        yield made


def upload(pacs: OrthancServer, folder: Path, patient_id: str) -> str:
    """Put a CT of 6 slices into the PACS; returns its Study Instance UID."""
    voxels = np.random.default_rng(1).integers(-100, 100, (6, 20, 20)).astype(float)
    paths = make_series(folder / patient_id, voxels, patient_id=patient_id)
    for path in paths:
        pacs.upload(path)
    return str(dcmread(paths[0], stop_before_pixels=True).StudyInstanceUID)


def process(folder: Path, pacs: OrthancServer, manager: WorklistManager, **settings: str) -> NodeProcess:
    plugin = (
        trouble_plugin.install(folder / "plugin") if not (folder / "plugin").exists() else folder / "plugin"
    )
    return NodeProcess(
        folder / "home",
        *("--quiet-seconds", "1", "--lease-seconds", "4", "--destination", pacs.dicomweb),
        *("--pacs-url", pacs.dicomweb, "--reconcile-seconds", "0"),
        environment={
            **trouble_plugin.environment(plugin, **settings),
            "NADIR_WORKLIST__URL": manager.url,  # type: ignore[attr-defined]
            "NADIR_WORKLIST__SECONDS": "1",
            "NADIR_WORKLIST__EVENTS_URL": manager.socket_url.removesuffix("/ws"),
        },
    )


def schedule(manager: WorklistManager, study: str, pacs: OrthancServer) -> Item:
    reference = dataset(
        TypeOfInstances="DICOM",
        StudyInstanceUID=study,
        ReferencedSOPSequence=[],
        WADORSRetrievalSequence=dataset(RetrieveURL=f"{pacs.dicomweb}/studies/{study}"),
    )
    asked = [code("a box", "trouble", "99NADIR")]
    return manager.schedule(
        "1.2.3.4.5", study, codes=asked, InputInformationSequence=[reference], PatientID=[]
    )


def wait_for(condition: Callable[[], bool], running: NodeProcess, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "".join(running.log[-30:])
        time.sleep(0.1)


def made_in(pacs: OrthancServer, study: str) -> list[str]:
    """Return the SOP Instance UIDs of all that the PACS holds of a study beside its images."""
    url = f"{pacs.dicomweb}/studies/{study}/instances"
    rows = httpx.get(url, headers={"Accept": "application/dicom+json"}, trust_env=False).json()
    return sorted(row["00080018"]["Value"][0] for row in rows if row["00080060"]["Value"][0] != "CT")


def test_a_worklist_has_a_study_analysed_and_finds_every_result_where_it_is_told(
    tmp_path: Path, pacs: OrthancServer, manager: WorklistManager
) -> None:
    study = upload(pacs, tmp_path, "WORKLIST")
    item = schedule(manager, study, pacs)
    node = process(tmp_path, pacs, manager)
    try:
        node.start()
        wait_for(lambda: item.state == "COMPLETED", node)
        assert item.history == ["SCHEDULED", "IN PROGRESS", "COMPLETED"]
        assert sorted(uid for uid, _ in item.outputs) == made_in(pacs, study)
        assert len(item.outputs) == 3  # a SEG and two reports
        done = value(item.row, "UnifiedProcedureStepPerformedProcedureSequence")
        for reference in values(done, "OutputInformationSequence"):
            url = value(value(reference, "WADORSRetrievalSequence"), "RetrieveURL")
            accept = {"Accept": 'multipart/related; type="application/dicom"'}
            assert httpx.get(url, headers=accept, trust_env=False).status_code == 200
        (row,) = node.ask("workitems", "list")
        assert (row["state"], row["progress"], row["asked"]) == ("completed", 100, ["trouble"])
        assert node.stop() == 0
    finally:
        node.kill()


def test_what_is_scheduled_is_claimed_at_once_when_the_worklist_tells_of_it(
    tmp_path: Path, pacs: OrthancServer, manager: WorklistManager
) -> None:
    study = upload(pacs, tmp_path, "TRIGGER")
    node = process(tmp_path, pacs, manager)
    node._environment |= {"NADIR_WORKLIST__SECONDS": "3600", "NADIR_WORKLIST__TRIGGERED": "true"}
    try:
        node.start()
        wait_for(lambda: bool(manager._sockets.get("NADIR")), node)
        item = schedule(manager, study, pacs)
        wait_for(lambda: item.state == "COMPLETED", node)
    finally:
        node.kill()


def test_a_request_to_cancel_comes_as_an_event_and_stops_what_runs(
    tmp_path: Path, pacs: OrthancServer, manager: WorklistManager
) -> None:
    study = upload(pacs, tmp_path, "CANCEL")
    item = schedule(manager, study, pacs)
    node = process(tmp_path, pacs, manager, mode="wait", gate=str(tmp_path / "gate"))
    try:
        node.start()
        node.wait_for("trouble", ("running",))
        wait_for(lambda: bool(item.subscribers) and bool(manager._sockets.get("NADIR")), node)
        body = json.dumps(dataset(ReasonForCancellation="Patient has gone home.")).encode()
        status, _, _ = manager.handle("POST", "/rs/workitems/1.2.3.4.5/cancelrequest", {}, body)
        assert status == 202
        wait_for(lambda: item.state == "CANCELED", node)
        assert "Patient has gone home." in item.progress("ReasonForCancellation")
        assert item.outputs == []
        assert node.wait_for("trouble", ("superseded",))["error_code"] == "workitem-cancelled"
        (tmp_path / "gate").touch()
        time.sleep(2)
        assert made_in(pacs, study) == []
    finally:
        node.kill()


@pytest.mark.fault
@pytest.mark.parametrize(
    "place",
    [
        "workitem-written",
        "workitem-claimed",
        "worker-stored",
        "workitem-made",
        "workitem-told",
        "workitem-ended",
    ],
)
def test_a_node_that_is_killed_between_two_steps_ends_its_workitem_once(
    tmp_path: Path, pacs: OrthancServer, manager: WorklistManager, place: str
) -> None:
    study = upload(pacs, tmp_path, f"KILLED-{place}")
    item = schedule(manager, study, pacs)
    node = process(tmp_path, pacs, manager)
    try:
        node._environment["NADIR_FAILPOINT"] = f"{place}:1"
        with suppress(RuntimeError):  # it may be gone before it could say that it is ready
            node.start()
        assert node._process is not None
        assert node._process.wait(120) == 137
        node.kill()
        del node._environment["NADIR_FAILPOINT"]
        node.start()
        wait_for(lambda: item.state == "COMPLETED", node)
        assert item.history == ["SCHEDULED", "IN PROGRESS", "COMPLETED"]
        assert sorted(uid for uid, _ in item.outputs) == made_in(pacs, study)
        assert len(item.outputs) == 3
        wait_for(lambda: node.look("workitems", "list")[0]["state"] == "completed", node)
    finally:
        node.kill()
