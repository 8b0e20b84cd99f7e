"""What a plugin does wrong is told with its name and reaches neither other analyses nor what is published."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from node.pipeline import analyse
from node.task import Analysed, Task
from plugins.registry import config_sha256, load_plugins

MakeTask = Callable[..., Task]


def _one(task: Task) -> Analysed:
    (analysed,) = analyse(task).analysed
    return analysed


def test_a_plugin_that_writes_into_the_image_fails_and_the_next_sees_it_as_it_came(
    make_task: MakeTask,
) -> None:
    alone = _one(make_task("box"))
    settings = {"trouble": {"mode": "scribble"}, "second": {"mode": "box"}}
    task = make_task(plugins=("trouble", "second"), plugin_settings=settings, out="both")
    bad, good = analyse(task).analysed
    assert bad.error_code == "broken"
    assert "plugin 'trouble' 1 failed: ValueError at" in (bad.error_text or "")
    assert good.error_code is None
    assert good.results.series == alone.results.series
    assert [f.measurements for f in good.results.found] == [f.measurements for f in alone.results.found]


@pytest.mark.parametrize("mode", ["transposed", "wrong_number"])
def test_what_is_refused_is_neither_in_the_table_nor_on_the_page_nor_in_pictures(
    make_task: MakeTask, tmp_path: Path, mode: str
) -> None:
    settings = {"trouble": {"mode": mode}, "second": {"mode": "box"}}
    task = make_task(plugins=("trouble", "second"), plugin_settings=settings, pages=True)
    bad, _ = analyse(task).analysed
    assert (bad.error_code, bad.results.found) == ("broken", ())
    with (tmp_path / "out" / "measurements.csv").open(newline="", encoding="utf-8") as stream:
        assert {row["plugin"] for row in csv.DictReader(stream)} == {"second"}
    assert (tmp_path / "out" / "report.html").read_text().count("Box box") == page_of_second_alone(
        make_task, tmp_path
    ).count("Box box")


def page_of_second_alone(make_task: MakeTask, tmp_path: Path) -> str:
    settings = {"second": {"mode": "box"}}
    analyse(make_task(plugins=("second",), plugin_settings=settings, pages=True, out="alone"))
    return (tmp_path / "alone" / "report.html").read_text()


def test_a_mask_on_another_grid_is_told_with_the_plugin_and_both_shapes(make_task: MakeTask) -> None:
    error = _one(make_task("transposed")).error_text or ""
    assert "plugin 'trouble' 1 gave" in error
    assert "mask has the shape (20, 20, 6); its series has (6, 20, 20)" in error


def test_the_table_and_the_page_tell_which_version_and_settings_made_the_numbers(
    make_task: MakeTask, tmp_path: Path
) -> None:
    task = make_task("box", pages=True)
    (analysed,) = analyse(task).analysed
    with (tmp_path / "out" / "measurements.csv").open(newline="", encoding="utf-8") as stream:
        assert {row["plugin_version"] for row in csv.DictReader(stream)} == {"1"}
    page = (tmp_path / "out" / "report.html").read_text()
    (plugin,) = load_plugins(task.plugin_settings, ["trouble"])
    assert config_sha256(plugin) in page
    assert analysed.job_key in page
