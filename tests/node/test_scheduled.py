"""The processes that the schedule starts: what they know, where they print, and that they end with the node."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from alive import is_alive
from patience import eventually

from node.scheduled import Children, environment_of
from node.settings import Settings


def test_the_environment_of_a_command_gives_the_settings_and_no_secret_of_another_role(
    tmp_path: Path,
) -> None:
    url = "postgresql://u:secret@db/nadir"
    retrain = {
        "families": ["nodule_segmenter"],
        "margins": {"dice_gain": 0.02},
        "data": ["/a", "/b"],
        "steps": 7,
    }
    given = Settings(home=tmp_path, database_url=url, hook_token="t0ken", retrain=retrain)
    environment = environment_of(given, {"PATH": "/bin", "NADIR_HOOK_TOKEN": "t0ken", "NADIR_HOME": "/else"})
    assert "t0ken" not in " ".join(environment.values())
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        read = Settings.load()
    assert (read.home, read.sql_url, read.retrain) == (tmp_path, url, given.retrain)


def test_what_a_command_prints_is_in_a_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    assert Children(Settings(home=tmp_path)).run("drift", ["jobs", "--help"]) == 0
    log = tmp_path / "training" / "drift.log"
    assert "ledger of analyses" in log.read_text()
    assert log.stat().st_mode & 0o077 == 0


ORPHAN = """
import os, sys, time
from node.scheduled import main
sys.argv = ["x", sys.argv[1], str(8 << 30), "told"]
import node.cli
def told():
    print(os.nice(0), os.getsid(0) == os.getpid(), flush=True)
    time.sleep(60)
node.cli.main = told
main()
"""


PARENT = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid())], start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_command_runs_at_the_lowest_priority_and_is_gone_with_the_node() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, ORPHAN],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": "."},
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert parent.stdout.readline().split() == ["19", "True"]
    if (share := Path(f"/proc/{pid}/autogroup")).exists():
        assert share.read_text().endswith("nice 19\n")
    parent.kill()
    parent.wait(60)
    assert eventually(lambda: not is_alive(pid))
    parent.stdout.close()
