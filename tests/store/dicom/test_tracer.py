"""What was injected by a PET header: the dose in its unit, the half-life by the nuclide, one tracer alone."""

from __future__ import annotations

import pytest
from pet_headers import AN_HOUR, factor, flags, header
from pydicom.dataset import Dataset

from plugins.errors import Refused
from store.dicom.suv import suv_scale


def test_a_dose_in_megabecquerel_is_recognised() -> None:
    small = header({"RadionuclideTotalDose": "368.08"})
    assert factor(small) == pytest.approx(AN_HOUR, rel=1e-9)
    assert flags(small) == ["suv-dose-in-mbq"]


@pytest.mark.parametrize(
    "stated",
    ["370000", "10000", "9999", "5001", "0.37", "999999", "5.01e9", "370000000000"],
    ids=["kBq", "uCi", "uCi below 1e4", "MBq", "GBq", "just below", "just above", "mBq"],
)
def test_a_dose_that_nobody_injects_is_refused_by_its_value_and_tag(stated: str) -> None:
    with pytest.raises(Refused) as refused:
        suv_scale([header({"RadionuclideTotalDose": stated})])
    assert refused.value.code == "suv-bad-dose"
    assert f"RadionuclideTotalDose (0018,1074) {float(stated):.10g}" in refused.value.sentence
    assert "state it in Bq" in refused.value.sentence


@pytest.mark.parametrize(
    ("stated", "dose_bq"), [("1e6", 1e6), ("5e9", 5e9), ("1", 1e6), ("5000", 5e9), ("1850", 1.85e9)]
)
def test_a_small_and_a_large_dose_that_people_inject_is_taken(stated: str, dose_bq: float) -> None:
    assert suv_scale([header({"RadionuclideTotalDose": stated})]).provenance["dose_bq"] == dose_bq


JUST = {"RadiopharmaceuticalStartTime": "105900", "RadiopharmaceuticalStartDateTime": "20250101105900"}
"""An injection a minute before the scan, as of the shortest-lived tracers."""


@pytest.mark.parametrize(
    ("code", "meaning", "half_life"),
    [
        ("C-111A1", "18F", 6586.2),
        ("77004003", "^18^Fluorine", 6586.2),
        ("1", "Fluorine F^18^", 6586.2),
        ("1", "F-18", 6586.2),
        ("C-131A3", "^68^Gallium", 4057.0),
        ("1", "Gallium-68", 4057.0),
        ("1", "Ga-68", 4057.0),
        ("1", "^11^Carbon", 1223.0),
        ("1", "N-13", 598.0),
        ("C-B1038", "", 122.24),
        ("1", "^82^Rubidium", 76.38),
        ("C-127A2", "^64^Copper", 45720.0),
        ("3932008", "^64^Copper", 45720.0),
        ("1", "Copper Cu 64", 45720.0),
        ("10738001", "^86^Yttrium", 53064.0),
        ("C-168A4", "^89^Zirconium", 282276.0),
        ("1", "Zr-89", 282276.0),
        ("40937006", "^124^Iodine", 360806.4),
    ],
)
def test_the_half_life_comes_from_the_nuclide_when_it_is_not_stated(
    code: str, meaning: str, half_life: float
) -> None:
    coded = Dataset()
    coded.CodeValue, coded.CodeMeaning = code, meaning
    scale = suv_scale([header(JUST | {"RadionuclideHalfLife": None, "RadionuclideCodeSequence": [coded]})])
    assert scale.provenance["half_life_s"] == half_life


def test_a_half_life_that_is_not_the_nuclides_is_flagged() -> None:
    coded = Dataset()
    coded.CodeValue, coded.CodeMeaning = "C-131A3", "^68^Gallium"
    assert flags(header({"RadionuclideCodeSequence": [coded]})) == ["suv-half-life-differs"]


@pytest.mark.parametrize("half_life_h", ["78.4", "78.42", "78.36"])
def test_a_half_life_as_another_table_has_it_is_not_doubted(half_life_h: str) -> None:
    coded = Dataset()
    coded.CodeValue, coded.CodeMeaning = "C-168A4", "^89^Zirconium"
    half_life = str(float(half_life_h) * 3600)
    tracer = JUST | {"RadionuclideHalfLife": half_life, "RadionuclideCodeSequence": [coded]}
    assert flags(header(tracer)) == []


@pytest.mark.parametrize("meaning", ["^89^Zirconium", "^64^Copper", "^124^Iodine", "^15^Oxygen"])
def test_the_half_life_of_fluorine_is_refused_for_another_nuclide(meaning: str) -> None:
    coded = Dataset()
    coded.CodeValue, coded.CodeMeaning = "1", meaning
    with pytest.raises(Refused, match=r"suv-bad-half-life.*RadionuclideHalfLife 6586\.2"):
        suv_scale([header({"RadionuclideCodeSequence": [coded]})])


@pytest.mark.parametrize("stated", ["109.77", "6586200"], ids=["minutes", "milliseconds"])
def test_a_half_life_that_cannot_be_the_nuclides_is_refused_by_its_name(stated: str) -> None:
    coded = Dataset()
    coded.CodeValue, coded.CodeMeaning = "C-111A1", "^18^Fluorine"
    wrong = header({"RadionuclideHalfLife": stated, "RadionuclideCodeSequence": [coded]})
    with pytest.raises(Refused, match=r"suv-bad-half-life.*RadionuclideHalfLife.*6586\.2 s"):
        suv_scale([wrong])


def test_two_tracers_are_refused() -> None:
    two = header()
    two.RadiopharmaceuticalInformationSequence = [*two.RadiopharmaceuticalInformationSequence, Dataset()]
    with pytest.raises(Refused, match="suv-several-tracers"):
        suv_scale([two])
