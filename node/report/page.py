"""One page that stands alone: pictures and style inside, no script, nothing fetched from anywhere."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from node.markup import bdi
from node.report.overlays import pretty_unit, rounded
from node.report.shown import RESEARCH_USE, ShownFinding, StudyReport, Truth
from node.report.table import Change, Compared, caveat, changes, compare, days_between, without_counterpart
from store.charset import STEERS

COLUMN_ORDER = (
    "long_axis",
    "short_axis",
    "volume",
    "malignancy",
    "suv_max",
    "suv_peak",
    "suv_mean",
    "suv_sd",
    "liver_threshold",
    "mtv",
    "hu_mean",
    "mean_lung_density",
    "laa_950",
    "perc_15",
)
MOST_COLUMNS = 8
NAMES = {
    "long_axis": "Long axis",
    "short_axis": "Short axis",
    "volume": "Volume",
    "malignancy": "Rated malignant (no pathology)",
    "suv_max": "SUVmax",
    "suv_mean": "SUVmean",
    "suv_peak": "SUVpeak",
    "sul_peak": "SULpeak",
    "sul_mean": "SUL, mean",
    "sul_sd": "SUL, standard deviation",
    "uptake_time": "Uptake time",
    "injected_activity": "Injected activity",
    "suv_sd": "SUV, standard deviation",
    "suv_min": "Lowest SUV",
    "suv_median": "Median SUV",
    "liver_threshold": "Liver threshold (SUV)",
    "mtv": "MTV",
    "tlg": "TLG",
    "hu_mean": "Mean density",
    "hu_median": "Median density",
    "hu_sd": "Density, standard deviation",
    "hu_min": "Lowest density",
    "hu_max": "Highest density",
    "mean_lung_density": "Mean lung density",
    "laa_950": "LAA-950",
    "laa_910": "LAA-910",
    "perc_15": "Perc15",
}
CONTROL = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f{STEERS}]")


@dataclass(frozen=True, kw_only=True, eq=False)
class StudySection:
    """What the page shows of one study."""

    report: StudyReport
    """The study."""
    montage: Image.Image | None
    """Its overview picture."""
    pictures: Mapping[str, Image.Image]
    """Picture of each finding, by Tracking UID."""
    compared: tuple[Compared, ...]
    """Truth beside measurement; empty when no truth is known."""
    extra: tuple[ShownFinding, ...]
    """Lesions found where the truth has none."""

    @property
    def lesions(self) -> tuple[ShownFinding, ...]:
        """Return the findings with axes."""
        return tuple(f for f in self.report.findings if f.measurement("long_axis"))

    @property
    def regions(self) -> tuple[ShownFinding, ...]:
        """Return the other findings."""
        return tuple(f for f in self.report.findings if not f.measurement("long_axis"))


def section(
    report: StudyReport,
    *,
    montage: Image.Image | None,
    pictures: Mapping[str, Image.Image],
    truth: Truth | None = None,
) -> StudySection:
    """Return what the page shows of one study."""
    compared = compare(report, truth) if truth is not None else ()
    extra = without_counterpart(report, compared) if truth is not None else ()
    return StudySection(report=report, montage=montage, pictures=pictures, compared=compared, extra=extra)


def page(
    sections: Sequence[StudySection],
    *,
    title: str,
    made_at: datetime,
    software: str,
    truth: Sequence[Truth] | None = None,
) -> str:
    """Return the page as HTML text. Everything that came from outside is escaped."""
    reports = [s.report for s in sections]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(
        rounded=rounded, unit=pretty_unit, named=lambda n: NAMES.get(n, n), signed=signed, bdi=bdi
    )
    html = environment.get_template("page.html").render(
        title=title,
        research_use=RESEARCH_USE,
        made_at=made_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        software=software,
        sections=sections,
        patients=patients(reports),
        changes=_by_thing(changes(reports, truth)),
        dates=[r.date for r in reports],
        days=days_between(reports[0].study.study_date, reports[-1].study.study_date) if reports else None,
        picture=data_uri,
        columns=columns,
        with_truth=truth is not None,
        worst=worst(sections),
        caveat=caveat(reports),
    )
    return CONTROL.sub(" ", html)


def patients(reports: Sequence[StudyReport]) -> list[tuple[str, str]]:
    """Return name and PatientID of everybody on the page, once."""
    return list(
        dict.fromkeys((r.patient_name.replace("^", " "), r.study.patient.patient_id) for r in reports)
    )


def columns(found: Sequence[ShownFinding]) -> tuple[str, ...]:
    """Return the names of the measurements that a table of findings has columns for, the well-known ones first."""
    there = list(dict.fromkeys(m.name for finding in found for m in finding.measurements))
    known = [name for name in COLUMN_ORDER if name in there]
    return tuple([*known, *(name for name in there if name not in known)][:MOST_COLUMNS])


def _by_thing(all_changes: Sequence[Change]) -> dict[str, dict[str, Change]]:
    grouped: dict[str, dict[str, Change]] = {}
    for change in all_changes:
        grouped.setdefault(f"{change.thing}", {})[f"{change.name} {change.dates[0]} {change.dates[1]}"] = (
            change
        )
    return grouped


def signed(value: float, digits: int = 1) -> str:
    """Return a number with its sign and a real minus; no sign when it rounds to zero."""
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")


def worst(sections: Sequence[StudySection]) -> dict[str, float]:
    """Return the largest distance from truth among the nodules that were found, by measurement.

    Lengths in mm; volumes and uptakes in per cent of the truth.
    """
    largest: dict[str, float] = {}
    for row in (r for s in sections for r in s.compared if r.kind == "nodule"):
        if row.difference is not None:
            off = abs(row.difference) if row.name.endswith("axis") else 100 * abs(row.difference) / row.true
            largest[row.name] = max(largest.get(row.name, 0.0), off)
    return largest


def data_uri(image: Image.Image) -> str:
    """Return a picture as a data URI (JPEG, so that the page stays small)."""
    buffer = BytesIO()
    image.save(buffer, format="JPEG", quality=88, optimize=True, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
