from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ball_nodules import ball_nodule
from thorax import ct_volume
from tiny_segmenter import bright_segmenter

from models.covariates import Covariate, Covariates
from models.malignancy import Combination, LinearVotes, MalignancyRater, Member, RatedView
from models.nodule_features import FEATURES
from models.segmenter import ClassicalNoduleSegmenter
from plugins import codes
from plugins.contract import Finding, Mask, Patient
from plugins.errors import Refused
from plugins.lung_nodule import LungNodule
from plugins.nodule_rating import FLAG, choose_rater, clinical_facts, rated

WOMAN_OF_70 = Patient(patient_id="p", sex="F", age_years=70.0)
RATER = MalignancyRater(
    view=RatedView(shape=(16, 16, 16), voxel_mm=1.0, window_hu=(-1000.0, 400.0)),
    members=(
        Member(
            votes=LinearVotes(
                low=np.full(len(FEATURES), -1e6),
                high=np.full(len(FEATURES), 1e6),
                weights=np.ones((3, len(FEATURES))) * 1e-3,
                intercepts=np.array([-0.5, 0.0, 0.5]),
            ),
            network=lambda patches: patches[:, :1].mean(axis=(2, 3, 4)),
            combination=Combination(intercept=0.0, linear=1.0, network=1.0),
        ),
    ),
)


def test_a_finding_carries_likelihood_interval_and_what_it_is_not() -> None:
    ball = ball_nodule(9.0, (1.25, 0.7, 0.7), seed=1)
    wide = [
        np.pad(a, [(6, 3), (20, 0), (0, 11)], constant_values=v)
        for a, v in ((ball.image, -850), (ball.mask, False))
    ]
    affine = np.array([[0, 0, 0.7, 0], [0, 0.7, 0, 0], [1.25, 0, 0, 0], [0, 0, 0, 1.0]])
    volume = ct_volume(wide[0], affine)
    plain = Finding(
        key="nodule-1",
        label="Nodule 1",
        series_instance_uid=volume.series_instance_uid,
        mask=Mask.from_full(wide[1]),
        category=codes.MORPHOLOGICALLY_ABNORMAL,
        type=codes.NODULE,
        measurements=(),
    )
    finding = rated(plain, volume, RATER, WOMAN_OF_70)
    found = finding.measurement("malignancy")
    whole = RATER.rate(wide[0], wide[1], volume.spacing_mm)
    assert found.value == pytest.approx(whole.probability, abs=1e-6)
    assert found.concept == codes.MALIGNANT_RATING and "ratings are not pathology" in found.method
    assert found.uncertainty == pytest.approx((whole.high - whole.low) / 3.92, abs=1e-6)
    (flag,) = finding.flags
    assert flag.sentence.startswith(f"'Nodule 1': malignancy {whole.low:.2f} to {whole.high:.2f}")
    assert "not pathology" in FLAG.sentence
    assert "beside the image" not in flag.sentence  # of which this model knows nothing
    age = Covariate(name="age_years", mean=60.0, spread=10.0, weight=1.0)
    taught = replace(RATER, covariates=Covariates(image=1.0, intercept=0.0, facts=(age,)))
    older = rated(plain, volume, taught, WOMAN_OF_70)
    logit = np.log([p / (1 - p) for p in (found.value, older.measurement("malignancy").value)])
    assert logit[1] - logit[0] == pytest.approx(1, abs=1e-4)
    assert older.flags[0].sentence.endswith("; beside the image counted age")
    sex = Covariate(name="is_female", mean=0.5, spread=0.5, weight=0.2)
    taught_both = replace(RATER, covariates=Covariates(image=1.0, intercept=0.0, facts=(age, sex)))
    both = rated(plain, volume, taught_both, WOMAN_OF_70)
    assert both.flags[0].sentence.endswith("; beside the image counted age and sex")
    ageless = rated(plain, volume, taught, Patient(patient_id="p", sex="F"))
    assert ageless.measurement("malignancy").value == found.value and ageless.flags == finding.flags


def test_a_study_tells_age_and_sex_where_they_are_known() -> None:
    assert clinical_facts(WOMAN_OF_70) == {"age_years": 70.0, "is_female": 1.0}
    assert clinical_facts(Patient(patient_id="p", sex="M")) == {"is_female": 0.0}
    assert clinical_facts(Patient(patient_id="p", sex="O")) == {}


def test_nodules_are_rated_where_it_is_calibrated_or_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.shipped.VOUCHED", {})
    learned, classical = bright_segmenter(), ClassicalNoduleSegmenter()
    assert choose_rater("off", learned) is None
    assert choose_rater("calibrated", classical) is None
    assert choose_rater("calibrated", learned) is None
    with pytest.raises(Refused, match="no-rater"):
        choose_rater("on", classical)


def test_a_card_decides_whether_it_is_calibrated(monkeypatch: pytest.MonkeyPatch) -> None:
    for calibrated in (True, False, None):
        model = bright_segmenter(calibrated=calibrated).model
        monkeypatch.setattr("plugins.nodule_rating.open_current", lambda *_, model=model: model)
        monkeypatch.setattr("plugins.nodule_rating.open_rater", lambda _: RATER)
        assert choose_rater("calibrated", bright_segmenter()) is (RATER if calibrated else None)
        assert choose_rater("on", ClassicalNoduleSegmenter()) is RATER


def test_a_setting_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="malignancy is one of calibrated, on, off, not 'sometimes'"):
        LungNodule(malignancy="sometimes")  # type: ignore[arg-type]
