"""Dockerfiles, workflows and the scripts they call."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from programs import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
MAKEFILE = (ROOT / "Makefile").read_text()
DOCKERFILES = [ROOT / "node" / "Dockerfile", ROOT / "orthanc" / "Dockerfile"]
HADOLINT = Path(sys.executable).with_name("hadolint")


def read(path: Path) -> dict[str, Any]:
    """Return a workflow; YAML 1.1 reads its key `on` as True."""
    whole = yaml.safe_load(path.read_text())
    return {"on" if key is True else key: value for key, value in whole.items()}


def steps_of(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_has_the_form_of_one_and_may_only_read(path: Path) -> None:
    workflow = read(path)
    assert {"name", "on", "permissions", "jobs"} <= set(workflow) <= {
        "name", "on", "permissions", "jobs", "concurrency", "env"
    }  # fmt: skip
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        assert {"runs-on", "steps", "timeout-minutes"} <= set(job), name
        assert "latest" not in str(job["runs-on"]) and ":latest" not in str(job.get("container")), name
        assert set(job.get("needs", "").split()) <= set(workflow["jobs"]), name
    for step in steps_of(workflow):
        assert len({"uses", "run"} & set(step)) == 1, step
        assert set(step) <= {"name", "uses", "with", "run", "if", "env"}, step
        if "uses" in step:
            assert re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]), step
        # what a stranger writes (a title, a branch) must not become a command
        assert not re.search(r"\$\{\{\s*github\.(event|head_ref)", step.get("run", "")), step
        assert set(re.findall(r"\bmatrix\.(\w+)", str(step))) <= {"name", "context", "dockerfile", "index"}


def test_the_workflow_runs_the_commands_that_everybody_runs() -> None:
    workflow = read(ROOT / ".github" / "workflows" / "test.yml")
    commands = [step["run"] for step in steps_of(workflow) if "run" in step]
    assert "make test" in commands and "make test-long" in commands
    assert {"push", "pull_request", "schedule"} <= set(workflow["on"])
    for target in {target for text in commands for target in re.findall(r"make ((?:[\w-]+ ?)+)", text)}:
        for name in target.split():
            assert re.search(rf"^{name}:", MAKEFILE, re.MULTILINE), name
    for script in {word for text in commands for word in re.findall(r"\.ci/\w+", text)}:
        assert (ROOT / script).stat().st_mode & 0o111, script


def test_the_dockerfiles_are_clean() -> None:
    done = subprocess.run([HADOLINT, *DOCKERFILES], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_a_bad_dockerfile_is_told(tmp_path: Path) -> None:
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM debian:latest\nRUN apt-get install curl\nUSER root\n")
    done = subprocess.run([HADOLINT, bad], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0 and "DL3007" in done.stdout


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_an_image_is_pinned_labelled_watched_and_nobodys(path: Path) -> None:
    text = path.read_text()
    for name, value in re.findall(r"^ARG (\w+)=(\S+:\S+)$", text, re.MULTILINE):
        if f"FROM ${{{name}}}" in text:
            assert re.fullmatch(r"[\w/]+:\d+\.\d+[\w.-]*", value), value
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) <= {
        "${PYTHON}",
        "${NODE}",
        "${BASE}",
        "packages",
    }
    assert re.findall(r"^USER (\d+):\d+$", text, re.MULTILINE)[-1] != "0"
    assert "HEALTHCHECK" in text and "org.opencontainers.image.licenses" in text
    final = text[text.rindex("\nFROM ") :]
    assert not re.search(r"\b(gcc|build-essential|make|git)\b", final)
    # what changes seldom comes first: packages, then our own code
    if path.parent.name == "node":
        assert text.index("COPY constraints.txt pyproject.toml") < text.index("COPY node node")
        assert final.index("--from=lean") < final.index("--from=code") < final.index("REVISION")


def test_what_the_image_is_made_of_is_there_and_nothing_else_is_sent() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    sent = {line[1:] for line in lines if line.startswith("!")}
    assert lines[1] == "*" and all((ROOT / name).exists() for name in sent)
    copied = re.findall(r"^COPY ((?!--)[^\n]+) \S+$", DOCKERFILES[0].read_text(), re.MULTILINE)
    assert {name for names in copied for name in names.split()} == sent


@pytest.mark.parametrize("script", sorted((ROOT / ".ci").iterdir()), ids=lambda path: path.name)
def test_a_script_can_be_read_by_its_shell(script: Path) -> None:
    shell = script.read_text().partition("\n")[0].rpartition("/")[2].split()[-1]
    done = subprocess.run([shell, "-n", script], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
