"""What `docker compose up` starts, without an engine: every role by itself, PostgreSQL, Orthanc, secrets by file."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from composed import running
from dicom_series import make_series
from drawn_regions import make_seg
from orthanc_server import require_orthanc
from postgres_server import running_postgres

pytestmark = [pytest.mark.long, pytest.mark.postgres]


def test_a_study_that_orthanc_gets_comes_back_with_results_through_roles_that_share_only_disk_and_database(
    tmp_path: Path,
) -> None:
    require_orthanc()
    slices = make_series(tmp_path / "ct", np.random.default_rng(1).normal(40, 5, (6, 32, 32)))
    drawn = np.zeros((32, 32), bool)
    drawn[8:16, 10:20] = True
    seg = make_seg(tmp_path / "seg", [(k, 1, drawn) for k in range(1, 5)], dz=0.0)
    with (
        running_postgres() as postgres,
        running(tmp_path, postgres, NADIR_QUIET_SECONDS="1", NADIR_ENABLED="contours") as node,
        node.pacs() as pacs,
    ):
        assert httpx.get(f"{pacs.base_url}/studies", trust_env=False).status_code == 401
        for path in (*slices, seg):
            pacs.post("/instances", content=path.read_bytes()).raise_for_status()
        deadline = time.monotonic() + 120
        while len(pacs.get("/series").json()) < 4:
            assert time.monotonic() < deadline, "\n".join(
                f"--- {name}\n{log.read_text()[-1500:]}" for name, log in node.logs.items()
            )
            time.sleep(0.5)
        told = node.told()
        assert 'nadir_pulls{state="pulled"} 1.0' in told
        assert 'nadir_http_requests_total{method="POST",route="/intake/study",status="202"}' in told
        secrets = [path.read_text().strip() for path in node.secrets.iterdir() if path.suffix != ".json"]
        for log in node.logs.values():
            assert not [secret for secret in secrets if secret in log.read_text()], log.name
