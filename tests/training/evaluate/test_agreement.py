from __future__ import annotations

import numpy as np
import pytest

from training.evaluate.agreement import reader_agreement
from training.evaluate.judged import DrawnCase


def bar(first: int, length: int) -> np.typing.NDArray[np.bool_]:
    out = np.zeros((3, 5, 40), dtype=np.bool_)
    out[1, 2, first : first + length] = True
    return out


def case(drawn: np.typing.NDArray[np.bool_], readers: list[np.typing.NDArray[np.bool_]]) -> DrawnCase:
    return DrawnCase(
        case_id="a",
        patient_id="P",
        drawn=drawn,
        truth=readers[0],
        spacing_mm=(1.0, 1.0, 1.0),
        readers=tuple(readers),
    )


def test_readers_and_model_are_compared_in_pairs() -> None:
    # bars of 10, 20 and 30 pixels that begin together; the model draws 20
    found = reader_agreement([case(bar(5, 20), [bar(5, 10), bar(5, 20), bar(5, 30)])], resamples=100)
    assert found is not None
    value = {name: one.value for name, one in found.items() if one is not None}
    assert value["readers_dice"] == pytest.approx(np.mean([20 / 30, 20 / 40, 40 / 50]))
    assert value["model_dice"] == pytest.approx(np.mean([20 / 30, 1.0, 40 / 50]))
    assert value["readers_volume_cv"] == pytest.approx(10 / 20)
    assert value["readers_long_axis_mm"] == pytest.approx(np.mean([10, 20, 10]))
    assert value["model_long_axis_mm"] == pytest.approx(np.mean([10, 0, 10]))


def test_one_reader_alone_agrees_with_nobody() -> None:
    assert reader_agreement([case(bar(5, 20), [bar(5, 10)])]) is None
