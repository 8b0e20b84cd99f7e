"""The way from a table of measurements to verdicts, by the command."""

from __future__ import annotations

import csv
import inspect
import io
import json
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from node.cli import app
from node.cli_response import response
from node.cli_rules import OPTIONS
from plugins.errors import Refused
from store.response.row import NEEDED, NUMBERS, WORDS
from store.response.rules import Rules

HEADER = "patient,lesion,date,role,site,node,long_axis_mm,short_axis_mm,status"


def told(table: str | bytes, *flags: str) -> Result:
    """Return what the command says of a table on standard input."""
    return CliRunner().invoke(app, ["response", "--csv", "-", *flags], input=table)


def judged(table: str | bytes, *flags: str) -> list[dict[str, Any]]:
    said = told(table, "--json", *flags)
    assert said.exit_code == 0, (said.output, said.exception)
    return json.loads(said.stdout)


def targets(*lengths: float, node: int = 0) -> str:
    """Return the table of a patient whose only target has these lengths, one on the first of each month of 2024."""
    axes = [f",{length}" if node else f"{length}," for length in lengths]
    rows = [f"P,T1,2024-{month:02}-01,target,,{node},{axis},measured" for month, axis in enumerate(axes, 1)]
    return "\n".join([HEADER, *rows])


@pytest.mark.parametrize(
    ("lengths", "node", "last"),
    [
        ((100, 70), 0, "PR"),
        ((100, 70.1), 0, "SD"),
        ((40, 20, 24), 0, "PR"),
        ((20, 24), 0, "SD"),
        ((25, 30), 0, "PD"),
        ((50, 60), 0, "PD"),
        ((50, 59.9), 0, "SD"),
        ((20, 0, 5), 0, "PD"),
        ((15, 9.9), 1, "CR"),
        ((15, 10), 1, "PR"),
        ((15, 10.6), 1, "SD"),
    ],
)
def test_the_boundaries_hold_from_text_to_verdict(lengths: tuple[float, ...], node: int, last: str) -> None:
    (patient,) = judged(targets(*lengths, node=node))
    point = patient["time_points"][-1]
    assert point["overall"] == last
    assert point["sum"] == lengths[-1]
    assert point["nadir"] == min(lengths[:-1])


def test_the_help_names_every_column_and_that_uptake_is_sul() -> None:
    said = inspect.getdoc(response) or ""
    assert set(re.findall(r"[a-z]\w+", said)) >= {*NEEDED, *WORDS, *NUMBERS}
    assert "All uptake is SUL" in said
    shown = CliRunner().invoke(app, ["response", "--help"], env={"COLUMNS": "200"})
    assert "volume_sd_ml" in shown.output


def test_a_target_that_is_missing_does_not_hide_progression() -> None:
    first = "P,T1,2024-01-01,target,,0,50,,measured\nP,T2,2024-01-01,target,,0,10,,measured"
    then = "P,T1,2024-03-01,target,,0,{},,measured\nP,T2,2024-03-01,target,,0,,,NE"
    for length, overall in ((72, "PD"), (71.9, "NE")):
        (patient,) = judged("\n".join([HEADER, first, then.format(length)]))
        assert (patient["time_points"][1]["overall"], patient["time_points"][1]["sum"]) == (overall, None)


def test_every_name_that_a_program_reads_is_there() -> None:
    (patient,) = judged(targets(100, 70))
    names = {"patient", "criteria", "unit", "time_points", "best_overall", "best_overall_confirmed"}
    assert names < patient.keys()
    of_point = {
        "date",
        "sum",
        "nadir",
        "target",
        "non_target",
        "new",
        "overall",
        "because",
        "margins",
        "doubts",
    }
    baseline, last = patient["time_points"]
    assert baseline.keys() == of_point == last.keys()
    assert (patient["patient"], patient["criteria"], patient["unit"]) == ("P", "recist1.1", "mm")
    assert (baseline["date"], baseline["sum"], baseline["nadir"], baseline["overall"]) == (
        "2024-01-01",
        100,
        None,
        None,
    )
    assert (last["target"], last["non_target"], last["new"]) == ("PR", None, False)
    assert "70.0 mm" in last["because"]


def test_a_partial_response_persists_when_the_protocol_says_so(data: Path) -> None:
    case = json.loads((data / "response" / "eortc_sticky_pr.json").read_text())
    table = targets(*case["sums"])
    (sticky,) = judged(table, "--pr-persistence", "eortc")
    assert [point["overall"] for point in sticky["time_points"][1:]] == case["eortc_tp_response"][1:]
    (strict,) = judged(table, "--pr-persistence", "strict")
    assert [point["overall"] for point in strict["time_points"][1:]] == ["PR", "PR", "SD", "SD", "SD"]


@pytest.mark.parametrize(
    ("flags", "lengths", "best", "confirmed"),
    [
        ((), (100, 60, 60), "PR", "PR"),
        (("--confirm-days", "30"), (100, 60, 60), "PR", "SD"),
        (("--confirm-days", "30", "--min-stable-days", "61"), (100, 60, 60), "PR", "NE"),
        ((), (100, 90), "NE", "NE"),
        (("--min-stable-days", "28"), (100, 90), "SD", "SD"),
        (("--accept-stable",), (100, 60, 90, 60), "PR", "PD"),
        ((), (100, 68, 75, 68), "PR", "SD"),
        (("--accept-stable",), (100, 68, 75, 68), "PR", "PR"),
        ((), (100, 120, 60), "PD", "PD"),
        (("--after-progression",), (100, 120, 60, 60), "PR", "PR"),
        ((), (100,), None, None),
        (("--missing-as-ne",), (100,), "NE", "NE"),
    ],
)
def test_a_protocol_sets_what_the_best_response_needs(
    flags: tuple[str, ...], lengths: tuple[float, ...], best: str | None, confirmed: str | None
) -> None:
    (patient,) = judged(targets(*lengths), *flags)
    assert (patient["best_overall"], patient["best_overall_confirmed"]) == (best, confirmed)


def as_table(folder: Path) -> tuple[str, dict[tuple[str, str], str]]:
    """Return the lesions of pharmaversesdtm as a table, a patient for each reader, and the verdicts by date."""

    def rows_of(name: str) -> list[dict[str, str]]:
        return list(csv.DictReader((folder / f"{name}_onco_recist.csv").read_text().splitlines()))

    def who(row: Mapping[str, str], domain: str) -> str:
        return "/".join((row["USUBJID"], row[f"{domain}EVAL"], row[f"{domain}EVALID"]))

    def day(text: str) -> str:
        return text if len(text) == 10 else f"{text}-13"  # one visit has a month only

    site = {(who(row, "TU"), row["TULNKID"]): row["TULOC"] for row in rows_of("tu")}
    found: dict[tuple[str, str, str], dict[str, str]] = {}
    for row in rows_of("tr"):
        patient, lesion, date = who(row, "TR"), row["TRLNKID"], day(row["TRDTC"])
        one = found.setdefault(
            (patient, lesion, date), {"role": row["TRGRPID"], "site": site[patient, lesion]}
        )
        one["node"] = str(int(one["site"] == "LYMPH NODE"))
        name = {"LDIAM": "long_axis_mm", "LPERP": "short_axis_mm", "TUMSTATE": "status"}[row["TRTESTCD"]]
        one[name] = row["TRSTRESC"]
    out = io.StringIO()
    writer = csv.DictWriter(out, HEADER.split(","))
    writer.writeheader()
    writer.writerows(
        {"patient": patient, "lesion": lesion, "date": date, **one}
        for (patient, lesion, date), one in found.items()
    )
    return out.getvalue(), {(who(row, "RS"), day(row["RSDTC"])): row["RSSTRESC"] for row in rows_of("rs")}


def test_published_lesion_tables_give_the_published_responses(data: Path) -> None:
    table, expected = as_table(data / "response")
    said = {
        (patient["patient"], point["date"]): point["overall"]
        for patient in judged(table)
        for point in patient["time_points"][1:]
    }
    assert len(expected) == 33
    assert said == expected
    german = io.StringIO()
    rows = [[cell.replace(".", ",") for cell in row] for row in csv.reader(table.splitlines())]
    csv.writer(german, delimiter=";").writerows(rows)
    in_german = judged(b"\xef\xbb\xbf" + german.getvalue().encode())
    assert [one["time_points"] for one in in_german] == [one["time_points"] for one in judged(table)]


OF_ALL = """patient,lesion,date,role,node,long_axis_mm,short_axis_mm,volume_ml,suv_peak,deauville,liver_mean,liver_sd
P,T1,2024-01-01,target,1,40,20,20,9,5,2.0,0.2
P,T1,2024-03-01,target,1,20,10,2.5,4.5,4,2.1,0.2
P,T1,2024-06-01,target,1,40,20,20,12,5,2.0,0.2
P,A,2024-06-01,new,0,15,12,1.5,6,5,,
"""


@pytest.mark.parametrize(
    ("criteria", "unit", "sums", "verdicts", "best"),
    [
        ("recist1.1", "mm", [20, 10, 20], ["PR", "PD"], ("PR", "SD")),
        ("irecist", "mm", [20, 10, 20], ["iPR", "iUPD"], ("iPR", "iSD")),
        ("who", "mm2", [800, 200, 800], ["PR", "PD"], ("PR", "SD")),
        ("volume", "mm3", [20_000, 2_500, 20_000], ["PR", "PD"], ("PR", "SD")),
        ("percist", "g/ml", [9, 4.5, 12], ["PMR", "PMD"], ("PMR", "SMD")),
        ("lugano", "1", [5, 4, 5], ["PMR", "PMD"], ("PMR", "NMR")),
    ],
)
def test_one_table_is_judged_by_each_set_of_criteria(
    criteria: str, unit: str, sums: list[float], verdicts: list[str], best: tuple[str, str]
) -> None:
    (patient,) = judged(OF_ALL, "--criteria", criteria)
    points = patient["time_points"]
    assert (patient["criteria"], patient["unit"]) == (criteria, unit)
    assert [point["sum"] for point in points] == sums
    assert [point["overall"] for point in points] == [None, *verdicts]
    assert [point["new"] for point in points] == [False, False, True]
    assert (patient["best_overall"], patient["best_overall_confirmed"]) == best


def test_a_long_axis_without_a_short_one_is_told_where_a_product_is_asked_for() -> None:
    (patient,) = judged(targets(100, 70), "--criteria", "who")
    assert "T1 has a long axis and no short one, so no product." in patient["time_points"][1]["because"]
    (patient,) = judged(targets(100, 70), "--criteria", "lugano")
    assert "not measured by both axes: T1." in patient["time_points"][1]["because"]


def test_disease_that_is_not_measured_needs_no_column_of_lengths() -> None:
    table = (
        "patient,lesion,date,role,status\nP,A,2024-01-01,non-target,present\nP,A,2024-03-01,non-target,absent"
    )
    (patient,) = judged(table)
    assert (patient["time_points"][1]["overall"], patient["time_points"][1]["sum"]) == ("CR", None)


def test_a_person_reads_a_table_and_the_reason() -> None:
    said = told(targets(100, 70) + "\nQ[red],T1,2024-01-01,target,,0,12.34,,")
    assert said.exit_code == 0
    lines = [line.rstrip() for line in said.stdout.splitlines()]
    assert lines[0] == "P: recist1.1, sum of diameters"
    assert "2024-02-01   70   -30.0 %    100  -30.0 %  PR                  no   PR" in lines
    assert next(line for line in lines if line.startswith("2024-02-01 PR: ")).count("PR:") == 2
    assert "best overall response: PR; confirmed: NE" in lines
    assert "Q[red]: recist1.1, sum of diameters" in lines
    assert "note: lengths rounded to tenths of a millimetre: 1, first 12.34 on line 4" in lines


@pytest.mark.parametrize(
    ("lengths", "change", "verdict"),
    [
        ((333, 233.2), "-29.9 %", "SD"),
        ((100, 70), "-30.0 %", "PR"),
        ((250.1, 300.1), "+19.9 %", "SD"),
        ((1500, 1499.9), "+0.0 %", "SD"),
    ],
)
def test_a_change_in_the_table_never_seems_to_reach_what_it_misses(
    lengths: tuple[float, float], change: str, verdict: str
) -> None:
    line = next(one for one in told(targets(*lengths)).stdout.splitlines() if one.startswith("2024-02-01"))
    assert change in line and line.split()[-1] == verdict


def test_what_is_passed_over_is_told_and_the_answer_stays_json(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("reader," + targets(100, 70).replace("\nP", "\nMe,P"))
    said = CliRunner().invoke(app, ["response", "--csv", str(tmp_path / "in.csv"), "--json"])
    assert said.stderr == "nadir: columns that are not known were ignored: reader\n"
    assert json.loads(said.stdout)[0]["best_overall"] == "PR"


@pytest.mark.parametrize(
    ("table", "criteria", "code"),
    [
        ("", "recist1.1", "empty-table"),
        (targets(100, -70), "recist1.1", "negative"),
        (targets(100, 70), "percist", "missing-column"),
        (targets(100, 70), "volume", "missing-column"),
        (targets(100, 70).replace("short_axis_mm", "comment"), "who", "missing-column"),
        (targets(100, 70).replace("short_axis_mm", "comment"), "lugano", "missing-column"),
    ],
)
def test_a_table_that_cannot_be_judged_is_refused(table: str, criteria: str, code: str) -> None:
    said = told(table, "--criteria", criteria)
    assert said.exit_code == 1 and said.stdout == ""
    assert isinstance(said.exception, Refused) and said.exception.code == code


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--csv", "-", "--patient", "P"),
        ("--csv", "-", "--criteria", "recist"),
        ("--csv", "-", "--confirm-days", "-1"),
        ("--csv", "-", "--pr-persistence", "sometimes"),
        ("--csv", "-", "--volume-change", "nan"),
    ],
)
def test_a_command_line_that_is_wrong_ends_with_2(flags: tuple[str, ...]) -> None:
    assert CliRunner().invoke(app, ["response", *flags], input=targets(100, 70)).exit_code == 2


def test_every_parameter_of_a_protocol_is_an_option_with_a_help() -> None:
    assert OPTIONS.keys() == {field.name for field in fields(Rules)}


def test_a_file_that_is_not_there_is_no_traceback(tmp_path: Path) -> None:
    said = CliRunner().invoke(app, ["response", "--csv", str(tmp_path / "none.csv")])
    assert isinstance(said.exception, FileNotFoundError)


def test_growth_rates_are_told_when_they_are_asked_for() -> None:
    shrinking = targets(*(100 * 0.8**month for month in range(5)))
    (found,) = judged(shrinking, "--growth")
    assert found["growth"]["chosen"]["model"] == "dx"
    assert found["growth"]["chosen"]["estimates"]["d"]["value"] == pytest.approx(0.0073, rel=0.03)
    assert "growth of the sum of diameters: model dx on 5 points" in told(shrinking, "--growth").stdout
    assert "growth" not in judged(shrinking)[0]
