"""The documentation builds without a broken link, asks no other host, and its commands do what it says."""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from demo_run import DemoRun

from node.cli import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(?P<kind>\w*)[^\n]*\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = typer.main.get_command(app)
OPTION = re.compile(r"(?<!\S)--[a-z][a-z-]*")
pytestmark = pytest.mark.xdist_group("demo")


def blocks(page: Path, *kinds: str) -> list[str]:
    return [found["text"] for found in FENCE.finditer(page.read_text()) if found["kind"] in kinds]


RUN = [page for page in PAGES if blocks(page, "console")]
QUICK = ("index",)
"""Pages whose commands are run in the quick tier too."""


@pytest.fixture
def place(demo: DemoRun, tmp_path: Path) -> Path:
    """Return a folder as the pages suppose it: what `nadir demo` left is in `demo-out`."""
    for name in ("dicom", "input", "node"):
        shutil.copytree(demo.out / name, tmp_path / "demo-out" / name, copy_function=linked)
    return tmp_path


def linked(source: str, target: str) -> str:
    """Link what nothing ever changes, and copy the rest."""
    return os.link(source, target) or target if source.endswith(".dcm") else shutil.copy2(source, target)


@pytest.mark.parametrize(
    "page",
    [pytest.param(p, id=p.stem, marks=() if p.stem in QUICK else pytest.mark.long) for p in RUN],
)
def test_every_command_of_a_page_does_what_the_page_shows(page: Path, place: Path) -> None:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COLUMNS": "160",
    }
    for block in blocks(page, "console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *shown = part.splitlines()
            command = in_this_demo(command, place)
            done = subprocess.run(
                ["bash", "-euc", command],
                cwd=place,
                env=environment,
                capture_output=True,
                text=True,
                timeout=300,
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
            said = " ".join(done.stdout.split())
            for line in shown:
                assert " ".join(line.split()) in said, f"{command}: '{line}' is not in\n{done.stdout}"


def in_this_demo(command: str, place: Path) -> str:
    """Return a command with the folder of a study as it is called in this demo: its end is made from its UID."""

    def here(found: re.Match[str]) -> str:
        (folder,) = (place / "demo-out" / "dicom").glob(f"{found[1]}_*")
        return f"demo-out/dicom/{folder.name}"

    return re.sub(r"demo-out/dicom/(\d{4}-\d\d-\d\d)_\d+", here, command)


def options_of(words: list[str]) -> tuple[list[str], set[str]]:
    """Return the words of a command line that are commands, and the options that the last of them has."""
    command = COMMAND
    named = []
    for word in words:
        if not hasattr(command, "commands") or word not in command.commands:
            break
        command = command.commands[word]
        named.append(word)
    parameters = command.get_params(typer.Context(command))
    return named, {name for one in parameters for name in (*one.opts, *one.secondary_opts)}


def test_every_command_that_the_pages_name_exists_with_its_options() -> None:
    seen = 0
    for page in PAGES:
        texts = blocks(page, "", "sh", "console")
        texts += re.findall(r"`(nadir [^`]+)`", FENCE.sub("", page.read_text()))
        for line in "\n".join(texts).splitlines():
            found = re.match(r"^(?:\$ )?(?:\.venv/bin/)?nadir (.+)$", line.strip())
            if found is None or found[1].startswith("--"):
                continue
            text = found[1].partition(" #")[0]
            named, known = options_of(text.split())
            assert named, f"{page.name}: there is no command `nadir {text}`"
            assert set(OPTION.findall(text)) <= known, f"{page.name}: nadir {text}"
            seen += 1
    assert seen > 60


def test_the_site_builds_without_a_broken_link_and_asks_no_other_host(tmp_path: Path) -> None:
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    pages = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*.html")}
    assert len(pages) >= 14
    for path, text in pages.items():
        loaded = re.findall(r'<(?:script|link|img|iframe)[^>]*\b(?:src|href)="(https?://[^"]+)"', text)
        assert loaded == [], path
        shown = html.unescape(re.sub(r"<[^>]+>", "", text))
        assert "--8" not in shown and "<!-- routes -->" not in text, path
    plugin = html.unescape(re.sub(r"<[^>]+>", "", pages[Path("plugins/index.html")]))
    assert "class CalcifiedFoci:" in plugin and "def run(self, study: Study)" in plugin
    assert "GET /api/jobs" in pages[Path("api/index.html")]
    assert "nodule_segmenter" in pages[Path("methods/index.html")]
