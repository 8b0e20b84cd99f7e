"""A node's home that the demo filled, on a coarse CT: made once for all tests that only read it."""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

import node.demo
from node.demo import run_demo
from training.phantom import PET_GRID, Grid, phantom

CT_GRID = Grid(shape=(100, 256, 256), spacing_mm=(3.0, 1.5625, 1.5625))


@dataclass(frozen=True, kw_only=True)
class DemoRun:
    """What a demo left, said and answered."""

    out: Path
    text: str
    code: int

    @property
    def home(self) -> Path:
        """Return the node's home: one patient at two dates, CT and PET, with results and a course."""
        return self.out / "node"


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> DemoRun:
    """Return a demo's run; tests that use it stand in the xdist group `demo`, so that one process makes one."""
    if given := pytestconfig.getoption("--demo"):
        return DemoRun(out=Path(given), text="", code=0)
    out, text = tmp_path_factory.mktemp("demo") / "out", io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(node.demo, "phantom", functools.partial(phantom, ct_grid=CT_GRID, pet_grid=PET_GRID))
        code = run_demo(out, console=Console(file=text, width=100, no_color=True), quiet_seconds=1.0)
    return DemoRun(out=out, text=text.getvalue(), code=code)
