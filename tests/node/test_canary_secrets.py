"""Secrets of a running node, searched for in everything that it shows, writes and keeps."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from node_process import nadir, node
from outbox_rows import waiting_results
from small_node import SmallNode

from node.deliveries import key_of

pytestmark = pytest.mark.sec
CANARIES = {
    "NADIR_HOOK_TOKEN": "canary-hook-3f1a",
    "NADIR_PACS_URL": "http://nadir:canary-pacs-77d2@127.0.0.1:9/dicom-web",
    "NADIR_AUDIT_KEY": "canary-key-91c4",
    "NADIR_TLS_KEY_PASSPHRASE": "canary-pass-0b3e",
}
DESTINATION = "http://nadir:canary-dest-5ac8@127.0.0.1:9/dicom-web"


def test_canary_secrets_are_in_no_output_log_metric_row_or_argument(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    small = SmallNode.make(home)
    waiting_results(small.database, small.objects, tmp_path, [key_of(DESTINATION)], count=2)
    small.database.dispose()
    file = tmp_path / "destinations"
    file.write_text(DESTINATION)
    file.chmod(0o600)
    environment = {**CANARIES, "NADIR_DESTINATIONS_FILE": str(file), "NADIR_LOG_LEVEL": "DEBUG"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    shown: list[str] = []
    with node(home, "--reconcile-seconds", "1", environment=environment) as running:
        assert running._process is not None
        shown.append(Path(f"/proc/{running._process.pid}/cmdline").read_text())
        bearer = {"Authorization": f"Bearer {CANARIES['NADIR_HOOK_TOKEN']}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{running.http_port}", trust_env=False) as client:
            told = client.post("/intake/study", json={"study_instance_uid": "1.2.3"}, headers=bearer)
            assert told.status_code == 202
            for path in ("/metrics", "/api/jobs", "/api/findings", "/nothing", "/login"):
                for headers in ({}, bearer, {"Authorization": "Bearer wrong"}):
                    shown.append(client.get(path, headers=headers).text)
        for command in (("doctor",), ("doctor", "--json"), ("jobs", "list", "--json"), ("jobs", "show", "1")):
            done = nadir(*command, "--home", str(home))
            shown += [done.stdout, done.stderr]
        assert running.stop() == 0
        shown += [running.ready_line, *running.log]
        assert any("delivery" in line for line in running.log)
    for path in home.rglob("*"):
        if path.is_file():
            shown.append(path.read_bytes().decode("latin-1"))
    text = "\n".join(shown)
    assert "127.0.0.1:9/dicom-web" in text
    assert "canary-" not in text
