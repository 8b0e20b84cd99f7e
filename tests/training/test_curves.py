from __future__ import annotations

import json
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from training.curves import draw_curves


@pytest.mark.parametrize(
    ("steps", "points", "label"),
    [
        (1, 1, "loss"),
        (10, 10, "loss"),
        (60, 55, "loss (mean of 6 steps)"),
        (1000, 951, "loss (mean of 50 steps)"),
    ],
)
def test_the_loss_is_seen_in_the_curves_of_a_run_of_any_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int, points: int, label: str
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    judged = [{"step": steps, "dice open": 0.5, "dice within": 0.5}]
    draw_curves([1.0] * steps, judged, tmp_path, "tiny")
    left, right = drawn[0].axes
    (loss,) = left.get_lines()
    assert (len(loss.get_xdata()), loss.get_label()) == (points, label)
    assert loss.get_xdata()[-1] == steps and loss.get_ydata() == pytest.approx(1.0)
    assert points > 1 or loss.get_marker() == "."
    one, other = right.get_lines()
    assert one.get_linestyle() != other.get_linestyle() and one.get_marker() != other.get_marker()
    assert {one.get_fillstyle(), other.get_fillstyle()} == {"none"}, "what lies below is seen too"
    assert json.loads((tmp_path / "curves.json").read_text()) == {"loss": [1.0] * steps, "judged": judged}
