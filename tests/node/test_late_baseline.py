"""By PERCIST the first PET with a SULpeak is the baseline, which reports and cohorts know too."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from courses import ordinary
from seen_courses import START, history, lesion
from typer.testing import CliRunner

from node.cli import app
from node.report.longitudinal import words
from node.report.longitudinal.cohort import cohort_of, followed
from node.report.longitudinal.page import write_html
from node.report.longitudinal.report import build
from node.report.longitudinal.sums import sums_of
from store.response.history import Reference
from store.response.percist import judge
from store.response.verdict import Response

NOW = datetime(2026, 7, 1, 9, 0, tzinfo=UTC)
LIVER = Reference(liver_mean=1.6, liver_sd=0.2)
TABLE = """patient,lesion,date,role,status,suv_peak,liver_mean,liver_sd
LATE,T,2025-01-01,target,present,,,
LATE,T,2025-03-02,target,measured,6.0,1.6,0.2
LATE,T,2025-05-01,target,measured,2.0,1.6,0.2
"""


def nowhere(name: str) -> Path:
    raise KeyError(name)


@pytest.fixture
def late() -> Response:
    """Return the verdicts of three PETs, 60 days apart, the first of which has no SUL."""
    visits = (lesion("T", 20),), (lesion("T", 20, suv_peak=6.0),), (lesion("T", 20, suv_peak=2.0),)
    return judge(history(*visits, references=(None, LIVER, LIVER), days=60))


def test_the_sums_are_those_since_the_first_pet_with_a_sul(late: Response) -> None:
    assert (late.before_baseline, late.baseline.date) == (1, date(2025, 3, 2))
    points = sums_of(late, ()).points
    assert [(p.days, p.verdict, p.sum) for p in points] == [
        (-60, "none", None), (0, "baseline", 6.0), (60, "PMR", 2.0),
    ]  # fmt: skip


def test_a_cohort_follows_since_that_pet_and_leaves_out_who_has_none_after_it(late: Response) -> None:
    one = followed(late)
    assert (one.baseline, one.days, one.verdicts) == (date(2025, 3, 2), 60, ((60, "PMR"),))
    assert one.best_percent == pytest.approx(-200 / 3)
    early = replace(late, patient="EARLY", time_points=late.time_points[:2])
    assert words.headline(early)[0] == "Baseline"
    cohort = cohort_of([late, early], criteria="percist", made_at=NOW)
    assert (cohort.followed, cohort.left_out) == ((one,), ("EARLY",))


def test_the_page_and_the_command_call_that_pet_the_baseline(late: Response) -> None:
    html = write_html(build(ordinary()[0], [late], nowhere, made_at=NOW, software="Nadir 0"))
    assert f"<li><strong>{START}, none:</strong> No SULpeak at this visit." in html
    assert "<li><strong>2025-03-02, baseline:</strong> 1 lesion; hottest T with SULpeak 6.00 g/ml" in html
    assert html.count("\N{MINUS SIGN}66.6 %") == 2, "to the baseline and to the nadir"
    said = CliRunner().invoke(app, ["response", "--csv", "-", "--criteria", "percist"], input=TABLE).output
    assert "2025-01-01 none: No SULpeak at this visit." in said
    assert "2025-03-02 baseline: 1 lesion" in said
    assert "2025-05-01 PMR: SULpeak of the hottest lesion" in said
