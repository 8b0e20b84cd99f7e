"""The report of one judgement: `report.json` for programs, `report.html` and `report.pdf` for people, in one folder.

The page stands alone: pictures and style inside, no script, nothing fetched from anywhere.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from training.evaluate.charts import svg
from training.evaluate.data import REPORT
from training.evaluate.section import Headline, Section

FORMAT = 1
RESEARCH_USE = "For research use only"
OF_THE_CARD = "What the card of the model says of its limits"
FROM_CARD = "This is of the data that the model was made from and judged on then, not of those judged here."


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """One model judged on one data set."""

    model: Mapping[str, str]
    """Name, version, hash and whatever else tells which model it was."""
    data: Mapping[str, str]
    """Name, hash, and counts of the data."""
    made: Mapping[str, str]
    """How it was judged: folds, seed, resamples, commit, packages."""
    made_at: datetime
    """When."""
    headlines: tuple[Headline, ...]
    """The figures at the top."""
    sections: tuple[Section, ...]
    """Everything else."""
    limits: tuple[str, ...]
    """What is not known, in sentences."""
    figures: Mapping[str, Any]
    """Every figure and every case, as JSON has them."""
    card_limits: tuple[str, ...] = ()
    """Those of the limits that the model's card tells: of the data that it was made from, whatever it is judged on."""

    @property
    def own_limits(self) -> tuple[str, ...]:
        """Return the limits of this judgement."""
        return tuple(sentence for sentence in self.limits if sentence not in self.card_limits)

    def plain(self, *, cases: bool = True) -> dict[str, Any]:
        """Return it as JSON has it, with or without the rows of the cases; no NaN and no infinity is in it."""
        figures = {
            task: {key: value for key, value in part.items() if cases or key != "cases"}
            if isinstance(part, Mapping)
            else part
            for task, part in self.figures.items()
        }
        return {
            "format": FORMAT,
            "research_use": RESEARCH_USE,
            "model": dict(self.model),
            "data": dict(self.data),
            "made": dict(self.made),
            "made_at": self.made_at.astimezone(UTC).isoformat(timespec="seconds"),
            "limits": list(self.limits),
            "card_limits": list(self.card_limits),
            **figures,
        }


def write_report(
    evaluation: Evaluation, folder: Path, beside: Mapping[str, str] = MappingProxyType({})
) -> tuple[Path, ...]:
    """Write the three files, and texts `beside` them by name, and return their paths in this order.

    What an earlier report left under these names is replaced: it stays whole until all files of this one are made, and
    none of it is left beside the first of them.
    """
    from training.evaluate.paper import report_pdf

    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        REPORT: (json.dumps(evaluation.plain(), indent=1, allow_nan=False) + "\n").encode(),
        "report.html": report_html(evaluation).encode(),
        "report.pdf": report_pdf(evaluation),
        **{name: text.encode() for name, text in beside.items()},
    }
    paths = tuple(folder / name for name in contents)
    halves = tuple(folder / f".{name}.half" for name in contents)
    try:
        for half, content in zip(halves, contents.values(), strict=True):
            half.write_bytes(content)
        for path in reversed(paths):
            path.unlink(missing_ok=True)
        for half, path in zip(halves, paths, strict=True):
            half.replace(path)
    finally:
        for half in halves:
            half.unlink(missing_ok=True)
    return paths


def report_html(evaluation: Evaluation) -> str:
    """Return the page as HTML text; everything that came from outside is escaped."""
    return (
        pages(Path(__file__).parent)
        .get_template("page.html")
        .render(
            evaluation=evaluation,
            title=title(evaluation),
            research_use=RESEARCH_USE,
            of_the_card=(OF_THE_CARD, FROM_CARD),
            made_at=evaluation.made_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        )
    )


def pages(*folders: Path) -> Environment:
    """Return the templates in some folders, which are given charts as SVG and pictures as data of the page itself."""
    environment = Environment(
        loader=FileSystemLoader(folders), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.globals["svg"] = lambda chart: Markup(svg(chart))  # noqa: S704  drawn by matplotlib; its texts are paths
    environment.globals["data_uri"] = lambda png: (
        "data:image/png;base64," + base64.b64encode(png).decode("ascii")
    )
    return environment


def title(evaluation: Evaluation) -> str:
    """Return the heading of the report."""
    return f"{evaluation.model['name']} judged on {evaluation.data['name']}"


__all__ = [
    "FORMAT", "FROM_CARD", "OF_THE_CARD", "RESEARCH_USE", "Evaluation", "pages", "report_html", "title", "write_report",
]  # fmt: skip
