"""The longitudinal report as one page that stands alone: charts and pictures inside, nothing fetched, no script."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image
from reportlab.graphics import renderSVG
from reportlab.graphics.shapes import Drawing

from node.markup import bdi
from node.report.longitudinal import words
from node.report.longitudinal.charts import curve, spider
from node.report.longitudinal.cohort import Cohort
from node.report.longitudinal.cohort_charts import MOST_BARS, MOST_LANES, parts, swimmer, waterfall
from node.report.longitudinal.view import LongitudinalReport
from node.report.page import CONTROL
from node.report.pdf import BOLD, PLAIN
from node.report.shown import RESEARCH_USE
from node.zone import UTC

MOST_VISITS = 6
"""Visits beside each other in a table."""
STYLE = re.compile(r'style="([^"]*)"')
FAMILY = "DejaVu Sans, Verdana, sans-serif"


def write_html(report: LongitudinalReport, zone: ZoneInfo = UTC) -> str:
    """Return the page as HTML text, with times of corrections in the zone. What came from outside is escaped."""
    chart = (
        svg(
            spider(report.lesions, report.visits),
            "spider",
            "Change of each lesion",
            words.spider_words(report),
        )
        if words.changes(report)
        else None
    )
    return _rendered(
        "longitudinal.html",
        f"{report.patient.patient_id} {report.patient.issuer}",
        report=report,
        curves=[
            svg(curve(course), f"curve{number}", words.sentence(course.quantity), words.curve_words(course))
            if any(point.sum is not None for point in course.points)
            else None
            for number, course in enumerate(report.sums)
        ],
        spider=chart,
        picture=png_uri,
        zone=zone,
        groups=words.chunks(range(len(report.visits)), MOST_VISITS),
        made_at=report.made_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def write_cohort_html(cohort: Cohort) -> str:
    """Return the page of a cohort as HTML text."""
    last = max((one.days for one in cohort.followed), default=0)
    told = "; ".join(
        f"{one.patient} {words.percent(one.best_percent)} {one.best_overall}" for one in cohort.by_change
    )
    lanes = "; ".join(
        f"{one.patient} {', '.join(f'day {d} {v}' for d, v in one.verdicts)}" for one in cohort.by_time
    )
    return _rendered(
        "cohort.html",
        "",
        cohort=cohort,
        waterfalls=[
            svg(
                waterfall(group, cohort.largest_percent), f"waterfall{n}", "Best change of each patient", told
            )
            for n, group in enumerate(parts(cohort.by_change, MOST_BARS))
        ],
        swimmers=[
            svg(swimmer(group, last), f"swimmer{n}", "Follow-up of each patient", lanes)
            for n, group in enumerate(parts(cohort.by_time, MOST_LANES))
        ],
        made_at=cohort.made_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _rendered(template: str, header: str, **values: Any) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(bdi=bdi)
    html = environment.get_template(template).render(
        words=words, research_use=RESEARCH_USE, header=css_text(header.strip()), **values
    )
    return CONTROL.sub(" ", html)


def css_text(text: str) -> Markup:
    """Return text as the inside of a CSS string: every character as its number, so that none has a meaning."""
    safe = CONTROL.sub(" ", text)[:80]
    return Markup("".join(f"\\{ord(c):x} " for c in safe if not 0xD800 <= ord(c) < 0xE000))  # noqa: S704


def svg(drawing: Drawing, key: str, title: str, description: str) -> Markup:
    """Return a chart as SVG to stand in a page; `key` keeps its identifiers apart from those of other charts.

    It has no style attribute, so that it may stand on pages whose policy allows none.
    """
    text = renderSVG.drawToString(drawing)
    text = text[text.index("<svg") :]
    text = text.replace('id="clip"', f'id="{key}-clip"').replace("url(#clip)", f"url(#{key}-clip)")
    text = text.replace('id="group"', f'id="{key}-group"')
    text = text.replace(f"font-family: {BOLD};", f"font-family: {FAMILY}; font-weight: bold;")
    text = text.replace(f"font-family: {PLAIN};", f"font-family: {FAMILY};")
    text = STYLE.sub(lambda found: " ".join(_attributes(found[1])), text)
    for element, told in (("title", title), ("desc", description)):
        before, _, rest = text.partition(f"<{element}>")
        text = f'{before}<{element} id="{key}-{element}">{escape(told)}{rest[rest.index(f"</{element}>") :]}'
    head = f'<svg role="img" aria-labelledby="{key}-title {key}-desc"'
    return Markup(text.replace("<svg", head, 1))  # noqa: S704


def _attributes(style: str) -> Iterator[str]:
    """Yield the properties of a style attribute as attributes of their own (SVG 1.1, 6.1)."""
    for one in filter(str.strip, style.split(";")):
        name, _, value = one.partition(":")
        yield f'{name.strip()}="{value.strip()}"'


def png_uri(image: Image.Image) -> str:
    """Return a picture as a data URI."""
    buffer = BytesIO()
    image.save(buffer, format="PNG", compress_level=6)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


__all__ = ["css_text", "png_uri", "svg", "write_cohort_html", "write_html"]
