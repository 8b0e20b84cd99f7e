"""Where nothing was drawn there is no interval that could hold, and an evaluation counts none."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from nodule_crops import write_crops

from models.uncertainty import CaseUncertainty
from training.evaluate.data import Data, open_data
from training.evaluate.families import FAMILIES, Family
from training.evaluate.judged import Case, DrawnCase
from training.evaluate.judging import judge_model
from training.evaluate.nodules import Answer, asker
from training.evaluate.subject import Subject

NOON = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
SIDE = 8


class Segmenter:
    """Draws a cube of so many voxels on a side, or nothing."""

    side = 2

    def __init__(self, **_: object) -> None:
        self.doubt = SimpleNamespace(
            volume_interval_mm3=lambda mm3, _: (mm3 / 2, mm3 * 2),
            long_axis_interval_mm=lambda mm, _: (mm / 2, mm * 2),
        )

    def answer(self, image: np.ndarray[Any, Any], *_: object) -> SimpleNamespace:
        mask = np.zeros(image.shape, dtype=np.bool_)
        mask[: self.side, :2, :2] = True
        unsure = CaseUncertainty(
            entropy=0.1, mutual_information=0.0, volume_cv=0.0, disagreement=0.0, dice_deficit=0.0
        )
        return SimpleNamespace(
            box=(slice(None),) * 3,
            mask=mask,
            probability=mask.astype(np.float32),
            uncertainty=unsure,
        )


def asked(monkeypatch: pytest.MonkeyPatch, side: int) -> Answer:
    monkeypatch.setattr("models.nodule_segmenter.LearnedNoduleSegmenter", Segmenter)
    monkeypatch.setattr(Segmenter, "side", side)
    subject = Subject(
        name="m", version="1", family="nodule_segmenter", sha256="0", model=SimpleNamespace()  # type: ignore[arg-type]
    )  # fmt: skip
    return asker(subject, (0,))(np.zeros((SIDE,) * 3, dtype=np.float32), (10.0, 10.0, 10.0), (1, 1, 1))


def test_there_is_no_interval_where_nothing_was_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    found = asked(monkeypatch, side=0)
    assert found.volume_interval_ml is found.long_axis_interval_mm is None
    assert found.uncertainties["entropy"] == 0.1 and found.probability is not None
    cube = asked(monkeypatch, side=2)
    assert cube.volume_interval_ml == (4.0, 16.0) and cube.long_axis_interval_mm is not None


def test_the_report_says_of_how_many_cases_there_was_an_interval(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = open_data(write_crops(tmp_path_factory.mktemp("crops"), patients=1))

    def drawn(_: Subject, __: Data, ___: bool) -> Iterator[Case]:
        truth = np.zeros((4, 4, 4), dtype=np.bool_)
        truth[1:3, 1:3, 1:3] = True
        for n in range(4):
            yield DrawnCase(
                case_id=str(n), patient_id=str(n), drawn=truth if n else ~truth & truth, truth=truth,
                spacing_mm=(1.0, 1.0, 1.0), volume_interval_ml=(0.0, 1.0) if n else None,
                diameter_interval_mm=(0.0, 9.0),
            )  # fmt: skip

    monkeypatch.setitem(FAMILIES, "drawn", Family(cases=drawn, limits=()))  # type: ignore[arg-type]
    subject = Subject(name="m", version="1", family="drawn", sha256="0")
    found = judge_model(subject, data, made_at=NOON, resamples=50)
    (settings,) = found.figures["segmentation"]["settings"].values()
    assert (settings["volume_covered"]["value"], settings["volume_covered"]["cases"]) == (1.0, 3)
    (section,) = [one for one in found.sections if one.title == "Uncertainty"]
    assert [row[0] for row in section.tables[0].rows] == [
        "Volume intervals that hold the true volume, in 3 of 4 cases",
        "Diameter intervals that hold the true long axis",
    ]
