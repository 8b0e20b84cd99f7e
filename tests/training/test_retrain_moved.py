"""A run of retraining that was stopped goes on, or begins anew at once, in a home that lies elsewhere now."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ball_nodules import write_crops
from label_crops import FAMILY, RECIPE, database_of, make_node, retrain

from training.fit import Progress

STEPS = 6


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a node whose run was stopped at its third step; beside it is `curated`, which it replays."""
    torch.set_num_threads(1)
    home = tmp_path_factory.mktemp("moved") / "home"
    make_node(home, 2)
    with pytest.raises(KeyboardInterrupt):
        _retrain(home, write_crops(home.parent / "curated"))
    return home


def _retrain(home: Path, curated: Path) -> tuple[list[int], list[str]]:
    """Retrain up to the third step; return the steps taken and what was told when all of them were taken."""
    steps: list[int] = []
    told: list[str] = []
    is_first = not (home / "training").exists()

    def tell(now: Progress) -> None:
        steps.append(now.step)
        if is_first and now.step == 3:
            raise KeyboardInterrupt

    recipe = replace(RECIPE, steps=STEPS, replay=(curated,))
    database = database_of(home)
    try:
        assert retrain(home, database, recipe=recipe, tell=tell, say=told.append).model
    finally:
        database.dispose()
    return steps, told


def _restored(stopped: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Return a copy of the home without its links, as a backup makes it, and its run that was stopped."""
    shutil.copytree(stopped, home := tmp_path / "again", symlinks=True)
    run = home / "training" / FAMILY / "1"
    (run / "learn" / "replay0").unlink()
    return home, run


def test_a_stopped_run_goes_on_in_a_restored_home_from_its_checkpoint(stopped: Path, tmp_path: Path) -> None:
    home, run = _restored(stopped, tmp_path)
    steps, told = _retrain(home, stopped.parent / "curated")
    assert (steps[0], "going on with what 1 left" in told) == (4, True)
    assert (run / "learn" / "replay0").readlink() == stopped.parent / "curated"


def test_a_copy_of_what_a_link_led_to_is_a_link_again(stopped: Path, tmp_path: Path) -> None:
    home, run = _restored(stopped, tmp_path)
    (run / "learn" / "replay0" / "images").mkdir(parents=True)
    assert _retrain(home, stopped.parent / "curated")[0][0] == 4
    assert (run / "learn" / "replay0").is_symlink()


def test_a_restored_run_that_lacks_files_is_begun_anew_at_once(stopped: Path, tmp_path: Path) -> None:
    home, run = _restored(stopped, tmp_path)
    gone = next((run / "learn" / "masks").iterdir())
    gone.unlink()
    steps, told = _retrain(home, stopped.parent / "curated")
    assert steps[0] == 1
    (line,) = (line for line in told if line.startswith("beginning anew"))
    assert line.startswith(f"beginning anew, not with what 1 left: masks/{gone.name} of case ")
    assert [path.name for path in run.parent.iterdir()] == ["2"]


def test_networks_that_another_release_began_are_begun_anew_at_once(stopped: Path, tmp_path: Path) -> None:
    home, run = _restored(stopped, tmp_path)
    record = run / "fit" / "fold0" / "run.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "experiment_sha256": "0" * 64}))
    steps, told = _retrain(home, stopped.parent / "curated")
    assert (steps[0], steps[-1]) == (1, STEPS)
    assert "beginning anew, not with the networks that are left (another-run)" in told
