"""What is installed: pinned, and judged by an advisory database or not judged at all."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from models.extras import how_to_install

ROOT = Path(__file__).parents[1]
ROOMS = ("models", "plugins", "store", "training", "node", "docs", "examples")
OTHERS = re.compile(r"\bnadir\[[a-z]|pip install '?nadir")
PINS = (ROOT / "constraints.txt").read_text().splitlines()


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.sec
def test_every_package_that_may_be_installed_is_pinned_to_one_version() -> None:
    assert [pin for pin in PINS if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.+!]*", pin)] == []
    pinned = {plain(pin.partition("==")[0]) for pin in PINS}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(w for extra in project["optional-dependencies"].values() for w in extra),
    ]
    names = {plain(re.split(r"[\[<>=~!; ]", requirement)[0]) for requirement in wanted}
    assert names - pinned == set()


@pytest.mark.sec
def test_nobody_is_told_to_install_the_package_that_is_called_nadir_on_pypi() -> None:
    files = [
        path for room in ROOMS for path in (ROOT / room).rglob("*") if path.suffix in (".py", ".md", ".toml")
    ]
    assert len(files) > 300
    told = [path for path in (*files, *ROOT.glob("[!C]*.md")) if OTHERS.search(path.read_text())]
    assert told == []
    example = tomllib.loads((ROOT / "examples" / "calcified_foci" / "pyproject.toml").read_text())
    assert example["project"]["dependencies"] == []


@pytest.mark.sec
def test_an_extra_is_installed_out_of_the_folder_with_the_pins() -> None:
    assert how_to_install("oidc") == "pip install -c constraints.txt '.[oidc]' in Nadir's folder"
    assert how_to_install() == "pip install -c constraints.txt . in Nadir's folder"


@pytest.mark.sec
@pytest.mark.parametrize(
    ("program", "says", "status"),
    [
        ("exit 0", "no known vulnerability in the", 0),
        ('echo "h11 0.1 CVE-2025-43859"; exit 1', "CVE-2025-43859", 1),
        ('echo "cannot resolve" >&2; exit 1', "not audited: no advisory database", 1),
        ('case "$*" in *osv*) exit 0;; esac; exit 1', "(osv)", 0),
    ],
)
def test_the_audit_fails_when_nothing_could_be_asked(
    tmp_path: Path, program: str, says: str, status: int
) -> None:
    tool = tmp_path / "pip-audit"
    tool.write_text(f"#!/bin/sh\n{program}\n")
    tool.chmod(0o755)
    done = subprocess.run(
        [ROOT / ".ci" / "audit", tmp_path], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (status, "")
    assert says in done.stdout and len(done.stdout.splitlines()) == 1
