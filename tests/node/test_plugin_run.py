"""What a plugin does wrong is told with its name and reaches neither other analyses nor what is published."""

from __future__ import annotations

from collections.abc import Callable

from node.pipeline import analyse
from node.task import Analysed, Task

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
