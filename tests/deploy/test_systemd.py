"""The systemd units: verified and scored by systemd itself, and what the node tells it."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest
from programs import ROOT, program

from node.notify import notify
from node.secrets import WITH_PASSWORDS, is_secret
from node.serve import ROLES, STOP_SECONDS
from node.settings import Settings

FOLDER = ROOT / "systemd"
UNIT = (FOLDER / "nadir@.service").read_text()
MOST_EXPOSED = 2.0


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the units, with a program that is there instead of the node's."""
    folder = tmp_path_factory.mktemp("units")
    shutil.copytree(FOLDER, folder, dirs_exist_ok=True)
    for role in ROLES:
        (folder / f"nadir@{role}.service").write_text(UNIT.replace("/opt/nadir/bin/nadir", "/bin/true"))
    return folder


def analyse(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [program("systemd-analyze", "systemd"), "--no-pager", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=folder)


def test_the_units_are_as_systemd_wants_them(units: Path) -> None:
    done = analyse("verify", "./nadir.target", *(f"./nadir@{role}.service" for role in ROLES), folder=units)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_bad_unit_is_told(units: Path) -> None:
    bad = units / "bad.service"
    bad.write_text("[Service]\nExecStart=/no/such/program\nProtectSystem=strictly\n")
    done = analyse("verify", "./bad.service", folder=units)
    assert "strictly" in done.stderr and done.returncode != 0


def test_a_unit_is_hardly_exposed(units: Path) -> None:
    said = analyse("security", "--offline=yes", "./nadir@web.service", folder=units).stdout
    found = re.search(r"exposure level for \S+: ([\d.]+)", said)
    assert found is not None and float(found[1]) <= MOST_EXPOSED, said


def test_the_target_has_every_role_and_each_has_time_to_drain() -> None:
    target = (FOLDER / "nadir.target").read_text()
    assert re.findall(r"nadir@(\w+)\.service", target) == list(ROLES)
    stop = re.search(r"^TimeoutStopSec=(\d+)$", UNIT, re.MULTILINE)
    assert stop is not None and int(stop[1]) >= 2 * STOP_SECONDS + 20
    ports = {(FOLDER / f"{role}.env").read_text() for role in ROLES}
    assert len(ports) == len(ROLES)


def test_every_setting_in_the_units_is_one_and_every_secret_is_handed_over_as_a_file() -> None:
    known = Settings.model_fields
    for path in [FOLDER / "nadir@.service", *FOLDER.glob("*.d/*.conf")]:
        text = path.read_text()
        credentials = re.findall(r"^LoadCredential=(\w+):/etc/nadir/secrets/\1$", text, re.MULTILINE)
        assert text.count("LoadCredential=") == len(credentials)
        for name, value in re.findall(r"NADIR_(\w+)=(\S+)", text):
            setting = name.lower()
            if setting.endswith("_file"):
                setting = setting.removesuffix("_file")
                assert is_secret(known[setting]) or setting in WITH_PASSWORDS
                assert value.removeprefix("%d/") in credentials
            assert setting in known, (path, name)


def test_the_settings_file_is_one(tmp_path: Path) -> None:
    assert Settings.load(FOLDER / "nadir.toml", home=tmp_path).ae_title == "NADIR"


def test_systemd_is_told_when_the_node_is_ready() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as abstract,
    ):
        address = str(Path(folder) / "notify")
        systemd.bind(address)
        abstract.bind("\0nadir-test-notify")
        assert notify({"NOTIFY_SOCKET": address}, "READY=1") and systemd.recv(99) == b"READY=1"
        assert notify({"NOTIFY_SOCKET": "@nadir-test-notify"}, "STOPPING=1")
        assert abstract.recv(99) == b"STOPPING=1"
    assert not notify({}, "READY=1")
    assert not notify({"NOTIFY_SOCKET": "/no/such/socket"}, "READY=1")
