"""The units that the headings of a table name, and those that nobody should take for another."""

from __future__ import annotations

import pytest
from written_tables import HEADER, refusal, table

from store.response.table import read_table


@pytest.mark.parametrize("status", ["", "measured"])
def test_a_length_in_a_column_that_is_not_known_is_told_by_its_name(status: str) -> None:
    row = f"P1,T1,2024-01-02,target,,0,5,,{status}"
    error = refusal(table(row, header=HEADER.replace("long_axis_mm", "long_axis_cm")))
    assert error.code == ("no-number" if status else "no-status")
    assert "no number in that row (long_axis_mm, short_axis_mm, volume_mm3, " in error.sentence
    assert error.sentence.endswith("; columns that are not known were ignored: long_axis_cm")


OTHER_UNITS = [
    ("Long axis (cm)", "names cm;", "in mm and name the column long_axis_mm"),
    ("Long axis (inch)", "names inch;", "in mm and"),
    ("Long axis (in)", "names in;", "in mm and"),
    ("Long axis [cm]", "names cm;", "in mm and"),
    ("Longest diameter mm (measured, cm)", "names cm;", "in mm and"),
    ("Volume (L)", "names l;", "in mm3 and name the column volume_mm3"),
    ("volume_mm3 (ml)", "names ml;", "in mm3 and"),
    ("volume_ml (mm\N{SUPERSCRIPT THREE})", "names mm3;", "in ml and"),
    ("SUVpeak (SUVbw)", "names suvbw;", "in SUL, g/ml and name the column suv_peak"),
    ("SUVpeak (g/ml{SUVbw})", "names suvbw;", "in SUL, g/ml and"),
    ("liver_mean (kBq/ml)", "names kbq/ml;", "in SUL, g/ml and"),
    ("uptake_minutes (h)", "names h;", "in minutes and"),
    ("injected_mbq (mCi)", "names mci;", "in MBq and"),
    ("TLG (kg)", "names kg;", "in g and"),
]


@pytest.mark.parametrize(("heading", "named", "asked"), OTHER_UNITS)
def test_a_heading_in_another_unit_than_that_of_its_column_is_refused(
    heading: str, named: str, asked: str
) -> None:
    header = f'patient,lesion,date,role,"{heading}"'
    error = refusal(table("P1,T1,2024-01-02,target,2", header=header))
    assert (error.code, heading in error.sentence) == ("other-unit", True)
    assert named in error.sentence and asked in error.sentence


OWN_UNITS = [
    ("Long axis (mm)", "long_axis_mm"),
    ("Longest diameter mm (mm, RECIST)", "long_axis_mm"),
    ("Long axis (longest in lung)", "long_axis_mm"),
    ("Volume (mm\N{SUPERSCRIPT THREE})", "volume_mm3"),
    ("Volume (mm^3)", "volume_mm3"),
    ("Volume [mm3]", "volume_mm3"),
    ("Volume (mL)", "volume_ml"),
    ("Volume (cm\N{SUPERSCRIPT THREE})", "volume_ml"),
    ("Volume (cc)", "volume_ml"),
    ("SUVpeak (g/ml)", "suv_peak"),
    ("SUVpeak (SUL)", "suv_peak"),
    ("SUVpeak (g/ml, SUVlbm)", "suv_peak"),
    ("TLG (g)", "tlg"),
    ("Deauville (1-5)", "deauville"),
]


@pytest.mark.parametrize(("heading", "column"), OWN_UNITS)
def test_a_heading_may_say_the_unit_of_its_column_and_words_that_are_none(heading: str, column: str) -> None:
    read = read_table(
        table("P1,T1,2024-01-02,target,2", header=f'patient,Lesion (name),date,role,"{heading}"')
    )
    assert column in read.columns and "lesion" in read.columns
    assert read.notes == ()


def test_volumes_in_two_units_have_to_agree() -> None:
    header = "patient,lesion,date,role,volume_mm3,volume_ml"
    same = read_table(table("P1,T1,2024-01-02,target,1500,1.5", header=header))
    assert same.histories[0].visits[0].seen[0].volume_mm3 == 1500.0
    assert refusal(table("P1,T1,2024-01-02,target,1500,1500", header=header)).code == "contradiction"
    without = read_table(
        table("P1,T1,2024-01-02,target,1500", header=header.replace("volume_mm3,volume_ml", "volume"))
    )
    assert without.histories[0].visits[0].seen[0].volume_mm3 == 1500.0
    assert without.notes == ("a column of volumes names no unit and was taken as mm3",)
