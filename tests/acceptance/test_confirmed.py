"""The command line all the way: results that wait are delivered, and Orthanc confirms them to the running node."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
from node_process import NodeProcess, nadir
from orthanc_server import orthanc
from outbox_rows import waiting_results
from ports import free_port
from small_node import SmallNode


def test_what_orthanc_commits_to_is_confirmed_in_ledger_and_metrics(tmp_path: Path) -> None:
    port = free_port()
    modality = {"AET": "NADIR", "Host": "127.0.0.1", "Port": port, "AllowStorageCommitment": True}
    with orthanc(modalities={"node": modality}) as pacs:
        destination = f"ORTHANC@127.0.0.1:{pacs.dicom_port}"
        home = tmp_path / "home"
        small = SmallNode.make(home)
        waiting_results(small.database, small.objects, tmp_path, [destination])
        small.database.dispose()
        settings = f"{destination}.confirm_seconds=0"
        node = NodeProcess(home, "--destination", destination, "--delivery-setting", settings)
        node.dicom_port = port
        try:
            node.start()
            deadline = time.monotonic() + 60
            while True:
                job = node.look("jobs", "show", "1")
                if {d["state"] for d in job["deliveries"]} == {"confirmed"}:
                    break
                assert time.monotonic() < deadline, (job["deliveries"], node.log[-20:])
                time.sleep(0.3)
            metrics = httpx.get(f"http://127.0.0.1:{node.http_port}/metrics", trust_env=False).text
        finally:
            node.kill()
    assert job["state"] == "done"
    assert {d["confirmed_by"] for d in job["deliveries"]} == {"commitment"}
    assert f'nadir_deliveries{{destination="{destination}",state="confirmed"}} 3.0' in metrics
    shown = nadir("jobs", "show", "1", "--home", str(home)).stdout
    assert shown.count(f" to {destination}: confirmed by commitment, 1 attempt, 0x0000") == 3
