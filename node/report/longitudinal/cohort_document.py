"""The charts and the table of a cohort as a PDF document on A4."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from reportlab.graphics.shapes import Drawing
from reportlab.lib.units import mm
from reportlab.platypus import Flowable, Spacer

from node.report.longitudinal import words
from node.report.longitudinal.cohort import Cohort
from node.report.longitudinal.cohort_charts import MOST_BARS, MOST_LANES, parts, swimmer, waterfall
from node.report.longitudinal.sheet import BANNER, CAPTION, built, table, text_of
from node.report.pdf import HEADING, TEXT, TITLE, register_typefaces
from node.report.scripts import in_order_on
from node.report.shown import RESEARCH_USE
from training.evaluate.paragraph import Paragraph


def write_cohort_pdf(cohort: Cohort) -> bytes:
    """Return the charts and the table of a cohort as PDF; equal input gives equal bytes."""
    register_typefaces()
    return built(list(_cohort_story(cohort)), "", "cohort", cohort.software, cohort.made_at)


def _cohort_story(cohort: Cohort) -> Iterator[Flowable]:
    yield Paragraph("Cohort", TITLE)
    yield Spacer(1, 2 * mm)
    name = words.CRITERIA.get(cohort.criteria, cohort.criteria)
    yield Paragraph(f"{text_of(name)}: {len(cohort.followed)} patients with a visit after the baseline", TEXT)
    yield Paragraph(f"{RESEARCH_USE}. {words.UNVERIFIED}", BANNER)
    yield Paragraph(f"Best change of the {text_of(cohort.quantity or 'sum')}", HEADING)
    bars = [waterfall(group, cohort.largest_percent) for group in parts(cohort.by_change, MOST_BARS)]
    yield from _charts(bars, words.WATERFALL, "No patient has a sum at the baseline and later.")
    yield Paragraph("Time under observation", HEADING)
    last = max((one.days for one in cohort.followed), default=0)
    lanes = [swimmer(group, last) for group in parts(cohort.by_time, MOST_LANES)]
    yield from _charts(lanes, words.SWIMMER, "No patient has a visit after the baseline.")
    yield Paragraph("Patients", HEADING)
    rows = [
        [
            one.patient, one.baseline.isoformat(), str(one.days), words.percent(one.best_percent), one.best_overall,
            one.best_overall_confirmed, ", ".join(f"{day} {verdict}" for day, verdict in one.verdicts),
        ]
        for one in cohort.followed
    ]  # fmt: skip
    heads = ("Patient", "Baseline", "Days", "Best change", "Best response", "Confirmed", "Verdicts by day")
    yield table(heads, rows, [32, 19, 11, 21, 23, 19, 0], numbers=(2, 3))
    if cohort.left_out:
        yield Paragraph(
            text_of(f"Without a visit after the baseline: {', '.join(cohort.left_out)}.", 4000), CAPTION
        )


def _charts(drawings: Sequence[Drawing], caption: str, nothing: str) -> Iterator[Flowable]:
    if not drawings:
        yield Paragraph(nothing, TEXT)
        return
    yield from map(in_order_on, drawings)
    yield Paragraph(caption, CAPTION)


__all__ = ["write_cohort_pdf"]
