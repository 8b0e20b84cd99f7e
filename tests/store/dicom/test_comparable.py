"""What is read of a PET's headers beside its SUV: lean body mass, activity, uptake time; and SUL in the reports."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_checkers import dcmqi_report, iod_errors
from dicom_series import make_series
from pydicom.dataset import Dataset
from small_results import balls, case_of, saved

from plugins import codes
from store.dicom.comparable import comparable
from store.dicom.measured import read_measured
from store.dicom.rules import check
from store.dicom.series import read_study

ADULT = {"PatientSex": "M", "PatientWeight": "80", "PatientSize": "1.80"}
BMI = 80 / 1.8**2
TRACER = {
    "RadionuclideTotalDose": "300000000",
    "RadionuclideHalfLife": "6586.2",
    "RadiopharmaceuticalStartDateTime": "20250101100000",
}


def header(tracer: dict[str, str] | None = None, **changes: Any) -> Dataset:
    dataset, item = Dataset(), Dataset()
    times = {"SeriesDate": "20250101", "AcquisitionDate": "20250101", "AcquisitionTime": "110300"}
    for target, values in ((dataset, ADULT | times | changes), (item, TRACER | (tracer or {}))):
        for keyword, value in values.items():
            if value is not None:
                setattr(target, keyword, value)
    dataset.RadiopharmaceuticalInformationSequence = [item]
    return dataset


def test_numbers_and_times_that_slices_write_in_two_ways_are_one() -> None:
    other = header(
        {"RadionuclideTotalDose": "3.0E8", "RadiopharmaceuticalStartDateTime": "20250101100000.000"},
        PatientWeight="80.0",
    )
    told = comparable([header(), other])
    assert told == comparable([header()])
    assert (told["injected_mbq"], told["uptake_minutes"]) == (300.0, 63.0)
    assert told["lean_body_mass_kg"] == pytest.approx(9270 * 80 / (6680 + 216 * BMI))


@pytest.mark.parametrize(
    ("changes", "factor"),
    [
        ({}, 9270 / (6680 + 216 * BMI)),
        ({"PatientSex": "F"}, 9270 / (8780 + 244 * BMI)),
        ({"PatientSize": "180"}, 9270 / (6680 + 216 * BMI)),
        ({"PatientWeight": "80000"}, 9270 / (6680 + 216 * BMI)),
        ({"PatientSex": "O"}, (9270 / (6680 + 216 * BMI) + 9270 / (8780 + 244 * BMI)) / 2),
        ({"PatientSex": None}, None),
        ({"PatientSize": None}, None),
        ({"PatientSize": "0"}, None),
        ({"PatientSize": "71"}, None),
        ({"PatientWeight": None}, None),
        ({"PatientWeight": "4"}, None),
    ],
)
def test_sul_is_by_lean_body_mass_after_janmahasatian_where_the_body_is_known(
    changes: dict[str, Any], factor: float | None
) -> None:
    found = comparable([header(**changes)])
    assert found.get("sul_factor") == (None if factor is None else pytest.approx(factor))
    assert (found["injected_mbq"], found["uptake_minutes"]) == (300.0, 63.0)


def test_what_slices_disagree_on_is_not_told() -> None:
    assert "sul_factor" not in comparable([header(), header(PatientSize="1.7")])
    assert "injected_mbq" not in comparable([header(), header({"RadionuclideTotalDose": "310000000"})])
    assert comparable([header(AcquisitionTime="110800"), header()])["uptake_minutes"] == 63.0


def test_without_times_or_tracer_the_rest_is_told() -> None:
    no_time = comparable([header(), header(AcquisitionTime=None)])
    assert "uptake_minutes" not in no_time and no_time["injected_mbq"] == 300.0
    assert "uptake_minutes" not in comparable(
        [header({"RadiopharmaceuticalStartDateTime": "20250102100000"})]
    )
    bare = header()
    del bare.RadiopharmaceuticalInformationSequence
    assert set(comparable([bare])) == {"lean_body_mass_kg", "sul_factor"}
    for dose in ("0", "370000"):
        assert "injected_mbq" not in comparable([header({"RadionuclideTotalDose": dose})])


@pytest.mark.parametrize("name", ["DRO_0_0", "DRO_2_1"])
def test_the_reference_objects_tell_their_lean_body_mass(data: Path, name: str) -> None:
    study = read_study((data / "suv_dro" / name / "PET").iterdir()).study
    (volume,), patient = study.volumes, study.patient
    assert patient.weight_kg and patient.height_m
    index = patient.weight_kg / patient.height_m**2
    male, female = 9270 / (6680 + 216 * index), 9270 / (8780 + 244 * index)
    expected = {"M": male, "F": female, "O": (male + female) / 2}[patient.sex or ""]
    assert volume.suv["sul_factor"] == pytest.approx(expected)


def test_sul_stands_in_both_reports_by_the_codes_of_the_standard(tmp_path: Path) -> None:
    shape = (12, 40, 36)
    regions = balls(shape)
    suv = np.where(regions[0], 9.0, np.where(regions[1], 6.0, 0.8))
    activity = suv * 368080000 * math.exp(-math.log(2) / 6586.2 * 3600) / 70000
    read = read_study(make_series(tmp_path, activity, modality="PT", PatientSex="F"))
    case = case_of(read.study.volumes[0], dict(read.headers), regions)
    seg = case.seg()
    factor = 9270 / (8780 + 244 * 70 / 1.75**2)
    for name, report in (("volumetric", case.volumetric(seg)), ("planar", case.planar(seg))):
        path = tmp_path / f"{name}.dcm"
        numbers = {n.name: n for n in read_measured(saved(report, path)).groups[0].numbers}
        assert check(report) == ()
        assert iod_errors(path) == []
        assert numbers["sul_peak"].value == pytest.approx(9 * factor, rel=1e-4)
        assert numbers["sul_peak"].unit == "g/ml{SUVlbm(Janma)}"
        assert numbers["suv_peak"].value == pytest.approx(9, rel=1e-4)
    others = json.loads(dcmqi_report(tmp_path / "volumetric.dcm", tmp_path / "report.json"))
    items = others["Measurements"][0]["measurementItems"]
    (sul,) = [item for item in items if item["quantity"]["CodeValue"] == codes.SUV_LBM_JANMA.value]
    assert sul["units"]["CodeValue"] == "g/ml{SUVlbm(Janma)}"
    assert float(sul["value"]) == pytest.approx(9 * factor, rel=1e-4)
