"""The node's image, built by buildah and run as compose.yaml runs it."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from programs import ROOT, program

ROLES = {"listener", "worker", "sender", "web", "scheduler"}


def measured(folder: Path) -> dict[tuple[str, str, str], tuple[float, str]]:
    """Return value and unit of each measurement of a finding."""
    with (folder / "measurements.csv").open(newline="") as lines:
        return {
            (row["plugin"], row["label"], row["name"]): (float(row["value"]), row["unit"])
            for row in csv.DictReader(lines)
        }


def test_the_stand_ins_have_the_names_that_the_dockerfile_begins_with() -> None:
    dockerfile = (ROOT / "node" / "Dockerfile").read_text()
    script = (ROOT / ".ci" / "image-bases").read_text()
    bases = dict(re.findall(r"^ARG (\w+)=(\S+:\S+)$", dockerfile, re.MULTILINE))
    asked = re.findall(r"^image=\$\(named (\w+)\)", script, re.MULTILINE)
    assert {f"${{{name}}}" for name in asked} == set(re.findall(r"^FROM (\$\S+)", dockerfile, re.MULTILINE))
    assert set(asked) <= set(bases) and not any(base in script for base in bases.values())


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_an_image_of_the_checkout_serves_every_role_and_measures_what_the_checkout_measures(
    tmp_path: Path,
) -> None:
    if "IMAGE_FLAGS" not in os.environ:
        pytest.skip("IMAGE_FLAGS does not say from where packages come: docs/deploy.md, Images")
    if os.geteuid() != 0:
        pytest.skip("building without an engine needs root")
    for name in ("buildah", "debootstrap"):
        program(name, name)
    data = tmp_path / "data"
    data.mkdir()
    for command in (["image-bases"], ["image", "localhost/nadir:test", str(data)]):
        done = subprocess.run(
            [ROOT / ".ci" / command[0], *command[1:]], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    ready = re.findall(r"ready in [\d.]+ s; roles (\S+);", done.stdout)
    assert [set(roles.split(",")) for roles in ready[:1]] == [ROLES] and set(ready[1:]) == ROLES
    assert re.search(r"^uid=10001\b", done.stdout, re.MULTILINE)
    assert re.search(r"^CapBnd:\s+0+$", done.stdout, re.MULTILINE)
    assert {path.name for path in (data / ".cache").iterdir()} == {
        "nadir"
    }  # no package left a trace of its own
    # at home in the image's folder, so that both compute by the runtime which the image's trial chose
    subprocess.run(
        [Path(sys.executable).with_name("nadir"), "analyse", data / "phantom", "--out", tmp_path / "results"],
        env={**os.environ, "HOME": str(data)},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    ours, its = measured(tmp_path / "results"), measured(data / "results")
    assert len(ours) > 50 and its == {
        key: (pytest.approx(value, rel=1e-3), unit) for key, (value, unit) in ours.items()
    }
