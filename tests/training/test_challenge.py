from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from nodule_crops import write_crops

from plugins.errors import Refused
from training.challenge import challenge, read_challenge
from training.evaluate.crops import AS_GIVEN
from training.evaluate.data import Data, open_data
from training.evaluate.families import FAMILIES, Family
from training.evaluate.judged import Case, DrawnCase
from training.evaluate.subject import Subject
from training.gate import Margins, Outcome
from training.lidc import load_nodule
from training.manifest import patient_key

MARGINS = Margins(fewest_patients=4, fewest_cases=4, group_patients=2, resamples=100)
ORDER: list[str] = []


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return open_data(write_crops(tmp_path_factory.mktemp("crops"), patients=5))


@pytest.fixture
def shifted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let models draw the truth, moved by as many voxels as their version says."""

    def cases(subject: Subject, data: Data, brief: bool) -> Iterator[Case]:
        for case in data.cases:
            ORDER.append(subject.version)
            nodule = load_nodule(case, data.root)
            yield DrawnCase(
                case_id=case.case_id,
                patient_id=case.patient_id,
                known=dict(case.tags),  # type: ignore[arg-type]
                drawn=np.roll(nodule.mask, int(subject.version), axis=2),
                truth=nodule.mask,
                spacing_mm=nodule.spacing_mm,
                setting=AS_GIVEN,
                image=nodule.image,
            )

    ORDER.clear()
    monkeypatch.setitem(FAMILIES, "nodule_segmenter", Family(cases=cases, limits=(), window=(-1350.0, 150.0)))


def model(version: str, **also: object) -> Subject:
    return Subject(name="m", version=version, family="nodule_segmenter", sha256=version, **also)  # type: ignore[arg-type]


@pytest.mark.usefixtures("shifted")
def test_both_answer_every_case_in_turn_and_the_better_one_is_proposed(crops: Data) -> None:
    told: list[str] = []
    ticks = count()
    found = challenge(
        model("2"), model("1"), crops, MARGINS, progress=told.append, clock=lambda: float(next(ticks))
    )
    assert ORDER == ["2", "1", "1", "2", "2", "1", "1", "2", "2", "1", "1", "2"]
    assert told == [case.case_id for case in crops.cases]
    assert [row.case_id for row in found.challenger] == [row.case_id for row in found.champion] == told
    assert set(found.seconds.champion) == set(found.seconds.challenger) == {1.0}
    assert found.verdict.is_proposed, found.verdict.because
    assert (found.verdict.cases, found.verdict.patients) == (6, 5)
    back = challenge(model("1"), model("2"), crops, MARGINS)
    assert not back.verdict.is_proposed


@pytest.mark.usefixtures("shifted")
def test_the_model_that_counts_is_refused_against_itself(crops: Data) -> None:
    found = challenge(model("1"), model("1"), crops, MARGINS)
    assert not found.verdict.is_proposed and found.shown == ()
    assert "identical" in {one.name for one in found.verdict.checks if one.outcome is Outcome.FAILED}


@pytest.mark.usefixtures("shifted")
def test_the_cases_that_changed_most_are_shown_and_read_back(crops: Data, tmp_path: Path) -> None:
    found = challenge(model("2"), model("1"), crops, MARGINS)
    found.write(tmp_path / "run")
    verdict, shown = read_challenge(tmp_path / "run")
    assert verdict == found.verdict
    assert [(one.case_id, one.change, one.picture.png, one.picture.caption) for one in shown] == [
        (one.case_id, one.change, one.picture.png, one.picture.caption) for one in found.shown
    ]
    assert len(shown) == 3 and all(one.change > 0 for one in shown)
    gains = sorted(
        ((b.figures["dice"] or 0) - (a.figures["dice"] or 0), a.case_id)
        for a, b in zip(found.champion, found.challenger, strict=True)
    )
    assert {one.case_id for one in shown} == {name for _, name in gains[-3:]}
    with pytest.raises(Refused, match="holds no judgement"):
        read_challenge(tmp_path)


@pytest.mark.usefixtures("shifted")
@pytest.mark.parametrize("name", ["P03", patient_key("P03")])
def test_a_hold_out_with_a_patient_whom_either_learned_from_is_refused(crops: Data, name: str) -> None:
    learned = model("1", held_out={name: 0}, folds=(0,))
    for pair in ((learned, model("2")), (model("2"), learned)):
        with pytest.raises(Refused, match="learned from patient P03") as refused:
            challenge(*pair, crops, MARGINS)
        assert refused.value.code == "learned-from"
    assert ORDER == []


def test_models_of_two_families_are_not_compared(crops: Data) -> None:
    other = Subject(name="m", version="1", family="petct_multitask", sha256="0")
    with pytest.raises(Refused, match="not judged against"):
        challenge(model("1"), other, crops, MARGINS)
