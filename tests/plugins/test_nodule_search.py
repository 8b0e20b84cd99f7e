from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from models.files import BadModel
from models.nodule_detector import Search
from plugins import nodule_search
from plugins.errors import Refused
from plugins.nodule_search import choose_detector, spots

SPACING = (1.0, 1.0, 1.0)
SEARCH = Search(diameters_mm=(5.0, 9.0), lowest_response_hu=100.0, lowest_roundness=0.2, at_most=50)
MIDDLES = [(12, 12, 12), (12, 36, 36), (36, 12, 36)]


@pytest.fixture
def balls() -> np.ndarray:
    hu = np.full((48, 48, 48), -850, dtype=np.float32)
    at = np.moveaxis(np.indices(hu.shape), 0, -1)
    for middle in MIDDLES:
        hu[np.linalg.norm(at - middle, axis=-1) <= 4] = 30
    return np.asarray(ndimage.gaussian_filter(hu, 0.5))


def detector(level: float) -> Any:
    """Return networks that are surer the further along the rows a point lies."""
    return SimpleNamespace(
        search=SEARCH,
        level=level,
        probabilities=lambda hu, spacing_mm, points: np.array([p[1] / 48 for p in points]),
    )


def test_without_networks_every_blob_is_a_place_without_probability(balls: np.ndarray) -> None:
    found = spots(balls, np.ones(balls.shape, bool), SPACING, SEARCH, None, 400)
    assert {one.candidate.index for one in found} >= set(MIDDLES)
    assert all(one.probability is None for one in found)


def test_networks_leave_those_above_their_level_the_surest_first(balls: np.ndarray) -> None:
    inside = np.ones(balls.shape, bool)
    (best,) = [one for one in spots(balls, inside, SPACING, SEARCH, detector(0.7), 400)]
    assert best.candidate.index == (12, 36, 36)
    assert best.probability == 0.75
    given = [one.probability for one in spots(balls, inside, SPACING, SEARCH, detector(0.1), 400)]
    assert given == sorted(given, reverse=True)
    assert len(spots(balls, inside, SPACING, SEARCH, detector(0.1), 2)) == 2


def test_the_best_detector_is_none_where_none_is_shipped_and_a_wanted_one_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def not_shipped(name: str, *_: object) -> None:
        raise BadModel("not-shipped", f"this installation has no model '{name}'")

    monkeypatch.setattr(nodule_search, "open_current", not_shipped)
    assert choose_detector("best") is None
    assert choose_detector("classical") is None
    with pytest.raises(Refused, match="no-detector"):
        choose_detector("learned")
    monkeypatch.setattr(nodule_search, "runs_here", lambda: False)
    assert choose_detector("best") is None
    with pytest.raises(Refused, match="torch or monai is not installed"):
        choose_detector("learned")
    with pytest.raises(ValueError, match="detector is one of"):
        choose_detector("psychic")  # type: ignore[arg-type]
