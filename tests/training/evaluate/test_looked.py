from __future__ import annotations

import numpy as np

from training.evaluate.judged import Looked, RatedCase
from training.evaluate.looked import looked_section


def looked() -> Looked:
    flat = np.zeros((4, 4, 4), dtype=np.float32)
    return Looked(patch=flat, mask=flat, heat=flat, slope=flat)


def rated(name: str, positive: bool, probability: float) -> RatedCase:
    return RatedCase(
        case_id=name, patient_id=name, positive=positive, probability=probability, explain=looked
    )


def captions(cases: list[RatedCase], threshold: float = 0.5) -> list[str]:
    section = looked_section(cases, threshold)
    return [] if section is None else [picture.caption for picture in section.pictures]


def test_a_caption_says_what_a_case_is_called_from_the_threshold_on() -> None:
    right = [rated("a", True, 0.51), rated("b", True, 0.9), rated("c", False, 0.2), rated("d", False, 0.4)]
    assert captions(right) == [
        "b: probability 0.90; surest of those rightly called positive.",
        "c: probability 0.20; surest of those rightly called negative.",
    ]
    wrong = [rated("e", False, 0.5), rated("f", True, 0.3)]
    assert captions([*right, *wrong])[2:] == [
        "e: probability 0.50; negative, surest called positive.",
        "f: probability 0.30; positive, surest called negative.",
    ]
    assert captions(right, threshold=0.95) == [
        "c: probability 0.20; surest of those rightly called negative.",
        "a: probability 0.51; positive, surest called negative.",
    ]


def test_nothing_is_shown_where_no_case_can_be_explained() -> None:
    assert (
        looked_section([RatedCase(case_id="a", patient_id="a", positive=True, probability=0.9)], 0.5) is None
    )
