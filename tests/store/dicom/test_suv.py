"""SUV factors: the vendors' headers, the reference objects, units and bodies worked by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pet_headers import AN_HOUR, DOSE, LAMBDA, factor, flags, header
from pydicom.dataset import Dataset

from plugins.errors import Refused
from store.dicom.body_size import body_size
from store.dicom.series import read_study
from store.dicom.suv import suv_scale

VENDORS = (
    "SIEMENS",
    "GE_MEDICAL_AND_BQML",
    "PHILIPS_BQML",
    "PHILIPS_CNTS_AND_SUV",
    "BQML_AC_DT_lessThan_S_DT_SIEMENS",
    "RADIOPHARM_DATETIME_UNDEFINED",
)
DROS = [
    "DRO_0_0",
    "DRO_1_0",
    "DRO_2_0",
    "DRO_2_1",
    "DRO_2_3",
    "DRO_2_4",
    "DRO_3_1",
    "DRO_3_2",
    "DRO_3_3",
    "DRO_3_4",
    "DRO_4_0",
    "DRO_4_1",
]
TRACER = {
    "RadionuclideTotalDose",
    "RadionuclideHalfLife",
    "RadiopharmaceuticalStartTime",
    "RadiopharmaceuticalStartDateTime",
}


def from_json(values: dict[str, Any]) -> Dataset:
    dataset, tracer = Dataset(), Dataset()
    dataset.Modality = "PT"
    for keyword, value in values.items():
        if keyword in TRACER:
            setattr(tracer, keyword, value.strip() if isinstance(value, str) else value)
        elif keyword != "PhilipsPETPrivateGroup":
            setattr(dataset, keyword, value)
    block = dataset.private_block(0x7053, "Philips PET Private Group", create=True)
    for name, element in (("SUVScaleFactor", 0x00), ("ActivityConcentrationScaleFactor", 0x09)):
        if stated := values["PhilipsPETPrivateGroup"].get(name):
            block.add_new(element, "DS", stated.strip())
    dataset.RadiopharmaceuticalInformationSequence = [tracer]
    return dataset


@pytest.mark.parametrize("vendor", VENDORS)
def test_the_factor_of_each_vendor_is_the_published_one(data: Path, vendor: str) -> None:
    folder = data / "suv_headers"
    expected = json.loads((folder / "expected.json").read_text())["expected"][f"{vendor}-instances.json"]
    instances = json.loads((folder / f"{vendor}-instances.json").read_text())
    scale = suv_scale([from_json(instance) for instance in instances])
    assert scale.factors[0] == pytest.approx(expected, abs=1e-6, rel=1e-6)


@pytest.mark.parametrize("name", DROS)
def test_the_suv_of_each_reference_object_is_the_published_one(data: Path, name: str) -> None:
    expected = json.loads((data / "suv_dro" / "expected.json").read_text())["expected"][name]
    study = read_study((data / "suv_dro" / name / "PET").iterdir()).study
    volume = study.by_role("pet_suv")[0]
    mask = np.asarray(nibabel.load(data / "suv_dro" / name / "mask.nii.gz").dataobj) > 0
    values = volume.array[mask.transpose(2, 1, 0)]
    tolerance = expected["absolute_tolerance"]
    assert values.min() == pytest.approx(expected["suv_min"], abs=tolerance)
    assert np.median(values) == pytest.approx(expected["suv_median"], abs=tolerance)
    assert values.max() == pytest.approx(expected["suv_max"], abs=tolerance)
    assert volume.suv["path"]


def test_a_real_ge_series_has_its_published_factor_and_maximum(data: Path) -> None:
    expected = json.loads((data / "pet_ge_sts001" / "expected.json").read_text())
    volume = read_study((data / "pet_ge_sts001" / "PET").iterdir()).study.volumes[0]
    assert volume.suv["factor_first"] == pytest.approx(expected["suvbw_factor"], rel=1e-6)
    assert volume.suv["seconds_after_injection"] == expected["seconds_injection_to_series"]
    assert float(volume.array.max()) == pytest.approx(expected["suv_max_whole_series"], rel=1e-6)
    assert [f.code for f in volume.flags] == ["uneven-slices", "suv-reference-times-differ"]
    # Its tumour has SUVmax 7.911, and 5.8 to 5.9 by Janmahasatian (MIRP, pet_suv_conversion_test.py).
    assert 5.8 < 7.911 * float(volume.suv["sul_factor"]) < 5.9


def test_an_image_in_suv_is_not_scaled_again(data: Path) -> None:
    expected = json.loads((data / "sts_dicom" / "expected.json").read_text())["STS_002"]["PET"]
    study = read_study((data / "sts_dicom" / "STS_002").rglob("*.dcm")).study
    (region,) = [d for d in study.drawn if d.label == "GTV_Mass_PET"]
    pet = study.by_role("pet_suv")[0]
    assert pet.suv["factor_first"] == 1.0
    assert region.series_instance_uid == pet.series_instance_uid
    values = pet.array[region.mask.box][region.mask.voxels]
    assert float(values.max()) == pytest.approx(expected["rois"]["GTV_Mass_PET"]["max"], abs=1e-4)


def test_a_weight_in_grams_is_recognised() -> None:
    assert factor(header(PatientWeight="70000")) == pytest.approx(AN_HOUR, rel=1e-12)


def test_counts_become_activity_by_philips_private_factor() -> None:
    counts = header(Units="CNTS")
    counts.private_block(0x7053, "Philips PET Private Group", create=True).add_new(0x09, "DS", "2.5")
    assert factor(counts) == pytest.approx(2.5 * AN_HOUR, rel=1e-12)


def test_philips_suv_factor_comes_before_its_activity_factor() -> None:
    counts = header(Units="CNTS")
    block = counts.private_block(0x7053, "Philips PET Private Group", create=True)
    block.add_new(0x00, "DS", "0.0005")
    block.add_new(0x09, "DS", "2.5")
    assert factor(counts) == 0.0005


def test_philips_factors_are_read_from_the_block_of_their_creator_only() -> None:
    counts = header(Units="CNTS")
    counts.private_block(0x7053, "Somebody else", create=True).add_new(0x00, "DS", "9")
    with pytest.raises(Refused, match="suv-counts"):
        factor(counts)
    counts.private_block(0x7053, "Philips PET Private Group", create=True).add_new(0x00, "DS", "0.0005")
    assert factor(counts) == 0.0005
    bare = header(Units="CNTS")  # de-identification may take the creator away and leave the values
    bare.add_new((0x7053, 0x1000), "DS", "0.0007")
    assert factor(bare) == 0.0007


@pytest.mark.parametrize(
    ("changes", "tracer"),
    [
        ({"PatientWeight": "60"}, {}),
        ({}, {"RadionuclideTotalDose": "1e8"}),
        ({}, {"RadionuclideHalfLife": "4057"}),
        ({}, {"RadiopharmaceuticalStartTime": "093000"}),
    ],
)
def test_slices_that_disagree_on_what_was_given_to_whom_are_refused(
    changes: dict[str, Any], tracer: dict[str, Any]
) -> None:
    with pytest.raises(Refused, match="suv-inputs-differ"):
        suv_scale([header(), header(tracer, **changes)])


@pytest.mark.parametrize(
    ("changes", "tracer"),
    [
        ({"PatientWeight": "70.0"}, {}),
        ({"PatientWeight": "7.0e1"}, {}),
        ({}, {"RadionuclideTotalDose": "3.6808E8"}),
        ({}, {"RadionuclideHalfLife": "6586.20"}),
        ({}, {"RadiopharmaceuticalStartTime": "100000.000000"}),
        ({}, {"RadiopharmaceuticalStartTime": "1000"}),
    ],
)
def test_one_number_or_time_that_slices_write_in_two_ways_is_one(
    changes: dict[str, Any], tracer: dict[str, Any]
) -> None:
    assert suv_scale([header(), header(tracer, **changes)]).factors == pytest.approx([AN_HOUR] * 2, rel=1e-12)


def test_one_date_and_time_of_injection_that_slices_write_in_two_ways_is_one() -> None:
    one, other = "20250101100000", "20250101100000.00"
    slices = [header({"RadiopharmaceuticalStartDateTime": words}) for words in (one, other)]
    assert suv_scale(slices).factors == pytest.approx([AN_HOUR] * 2, rel=1e-12)
    slices[1] = header({"RadiopharmaceuticalStartDateTime": "20250101100000+0100"})
    with pytest.raises(Refused, match=r"suv-inputs-differ.*RadiopharmaceuticalStartDateTime"):
        suv_scale(slices)


def test_one_height_with_more_digits_is_one() -> None:
    lean = [header(Units="GML", SUVType="LBM", PatientSize=size) for size in ("1.75", "1.750")]
    assert suv_scale(lean).factors == pytest.approx([70 / (1.10 * 70 - 120 * 0.16)] * 2, rel=1e-12)


def test_slices_that_disagree_on_the_kind_of_suv_or_its_body_size_are_refused() -> None:
    lean = header(Units="GML", SUVType="LBM")
    for other in (header(Units="GML", SUVType="BW"), header(Units="GML", SUVType="LBM", PatientSize="1.9")):
        with pytest.raises(Refused, match="suv-inputs-differ"):
            suv_scale([lean, other])


def test_a_calibrated_count_rate_is_divided_by_the_voxel() -> None:
    rate = header(Units="CPS", CorrectedImage=["ATTN", "DECY", "DCAL"])
    assert factor(rate, voxel_ml=0.064) == pytest.approx(AN_HOUR / 0.064, rel=1e-12)


def test_an_uncalibrated_count_rate_takes_the_dose_calibration_factor() -> None:
    assert factor(header(Units="CPS", DoseCalibrationFactor="3.5")) == pytest.approx(3.5 * AN_HOUR, rel=1e-12)


@pytest.mark.parametrize(
    ("kind", "gender", "size"),
    [
        ("LBM", "M", 1.10 * 70 - 120 * 0.16),
        ("LBM", "F", 1.07 * 70 - 148 * 0.16),
        ("LBMJAMES128", "M", 1.10 * 70 - 128 * 0.16),
        ("LBMJANMA", "M", 9270 * 70 / (6680 + 216 * 70 / 1.75**2)),
        ("LBMJANMA", "F", 9270 * 70 / (8780 + 244 * 70 / 1.75**2)),
        ("IBW", "M", 48.0 + 1.06 * 23),
        ("IBW", "F", 45.5 + 0.91 * 23),
        ("IBW", "O", (48.0 + 1.06 * 23 + 45.5 + 0.91 * 23) / 2),
    ],
)
def test_an_image_normalised_to_another_mass_becomes_suv_by_weight(
    kind: str, gender: str, size: float
) -> None:
    lean = header(Units="GML", SUVType=kind, PatientSex=gender)
    assert factor(lean) == pytest.approx(70 / size, rel=1e-12)


def test_an_image_normalised_to_body_surface_becomes_suv_by_weight() -> None:
    surface = 0.007184 * 175**0.725 * 70**0.425
    assert factor(header(Units="CM2ML", SUVType="BSA")) == pytest.approx(
        70 * 1e3 / (surface * 1e4), rel=1e-12
    )
    assert factor(header(Units="CM2ML", PatientSize="175")) == pytest.approx(
        70 * 1e3 / (surface * 1e4), rel=1e-12
    )


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        (header(Units=None), "suv-no-units"),
        (header(Units="1CM"), "suv-units"),
        (header(Units="CPS"), "suv-counts"),
        (header(Units="CNTS"), "suv-counts"),
        (header(Units="GML", SUVType="BSA"), "suv-unknown-type"),
        (header(Units="GML", SUVType="MAGIC"), "suv-unknown-type"),
        (header(Units="GML", SUVType="LBM", PatientSize=None), "suv-no-height"),
        (header(Units="GML", SUVType="LBM", PatientSize="900"), "suv-bad-height"),
        (header(Units="GML", SUVType="LBM", PatientSex=None), "suv-no-sex"),
        (header(Units="GML", SUVType="LBM", PatientWeight="0"), "suv-no-weight"),
        (header(CorrectedImage=["DECY"]), "suv-not-attenuation-corrected"),
        (header(CorrectedImage=["ATTN"]), "suv-not-decay-corrected"),
        (header(RescaleIntercept="-10"), "suv-intercept"),
        (header(DecayCorrection="SOON"), "suv-no-decay-correction"),
        (header({"RadionuclideTotalDose": "0"}), "suv-no-dose"),
        (header({"RadionuclideTotalDose": "-5"}), "suv-no-dose"),
        (header({"RadionuclideHalfLife": None}), "suv-no-half-life"),
        (header({"RadiopharmaceuticalStartTime": None}), "suv-no-injection-time"),
        (header({"RadiopharmaceuticalStartTime": ""}), "suv-no-injection-time"),
        (header(DecayCorrection="NONE"), "suv-decay-correction-contradicts"),
        (header(DecayCorrection="NONE", CorrectedImage=["ATTN"]), "suv-no-frame-duration"),
        (
            header(DecayCorrection="NONE", CorrectedImage=["ATTN"], AcquisitionTime=None),
            "suv-no-scan-time",
        ),
        (header(Modality="CT"), "suv-not-pet"),
    ],
)
def test_what_cannot_become_suv_is_refused_with_its_code(changed: Dataset, code: str) -> None:
    with pytest.raises(Refused) as refused:
        suv_scale([changed])
    assert refused.value.code == code


@pytest.mark.parametrize("word", ["DECY", "DECAY"])
def test_slices_of_which_one_names_a_decay_correction_that_none_says_it_lacks_are_refused(word: str) -> None:
    beds = [
        header(DecayCorrection="NONE", CorrectedImage=done, ActualFrameDuration=120000)
        for done in (["ATTN"], ["ATTN", word])
    ]
    assert suv_scale(beds[:1]).provenance["corrected_to"] == "none"
    with pytest.raises(Refused, match=r"suv-decay-correction-contradicts.*DecayCorrection.*CorrectedImage"):
        suv_scale(beds)


def test_a_decay_correction_in_doubt_is_no_matter_where_the_vendor_states_the_suv() -> None:
    counts = header(Units="CNTS", DecayCorrection="NONE")
    counts.private_block(0x7053, "Philips PET Private Group", create=True).add_new(0x00, "DS", "0.0005")
    assert factor(counts) == 0.0005
    assert factor(header(Units="GML", DecayCorrection="NONE")) == 1.0


def test_an_suv_image_that_lists_no_corrections_is_flagged() -> None:
    assert flags(header(Units="GML", CorrectedImage=None)) == ["suv-corrections-unknown"]


def test_every_number_that_went_in_is_kept() -> None:
    kept = suv_scale([header()]).provenance
    assert kept == {
        "units": "BQML",
        "path": "BQML",
        "decay_correction": "START",
        "weight_kg": 70.0,
        "dose_bq": DOSE,
        "half_life_s": 6586.2,
        "injected_at": "2025-01-01T10:00:00",
        "corrected_to": "2025-01-01T11:00:00",
        "reference_rule": "series time",
        "seconds_after_injection": 3600.0,
        "factor_first": kept["factor_first"],
        "factor_min": kept["factor_first"],
        "factor_max": kept["factor_first"],
    }


@given(
    weight=st.floats(1, 200),
    dose=st.floats(1e6, 1e9),
    minutes=st.integers(0, 300),
)
def test_the_factor_grows_with_weight_and_delay_and_falls_with_dose(
    weight: float, dose: float, minutes: int
) -> None:
    def at(w: float, d: float, m: int) -> float:
        when = f"{10 + m // 60:02d}{m % 60:02d}00"
        return factor(
            header(
                {"RadionuclideTotalDose": f"{d:.8g}"},
                PatientWeight=f"{w:.8g}",
                SeriesTime=when,
                AcquisitionTime=when,
            )
        )

    one = at(weight, dose, minutes)
    assert at(weight * 2, dose, minutes) == pytest.approx(one * 2, rel=1e-6)
    assert at(weight, dose * 2, minutes) == pytest.approx(one / 2, rel=1e-6)
    assert at(weight, dose, minutes + 60) == pytest.approx(one * math.exp(LAMBDA * 3600), rel=1e-6)


def test_a_kind_of_body_size_that_is_not_known_is_refused() -> None:
    with pytest.raises(Refused, match="suv-unknown-type"):
        body_size("BW", weight=70, height=175, gender="O")
