"""What is kept of an evaluation (`training.evaluate.kept`), as it has to be to be shown: for page and OpenAPI."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field


class Part(BaseModel):
    """What all parts are: read, never changed; fields of newer releases are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Headline(Part):
    """A figure that stands at the top."""

    name: str
    value: str
    between: str = Field(description="Its 95 % interval over patients; empty where there is none")


class Table(Part):
    """Rows of texts."""

    head: list[str]
    rows: list[list[str]]
    note: str = ""
    words: bool = Field(
        default=False, description="Whether all columns are words; else all but the first are numbers"
    )


class Chart(Part):
    """The numbers of a chart."""

    kind: Literal["scatter", "diagonal", "froc", "intervals"]
    caption: str
    x_label: str
    y_label: str
    x: list[float]
    y: list[float]
    log_x: bool = False
    level: float | None = Field(default=None, description="A line to compare with")
    limits: list[float] = Field(default=[], description="Limits of agreement")
    steps: list[tuple[float, float, float]] = Field(
        default=[], description="Means of groups in x: from, to, mean"
    )
    points: list[tuple[float, float]] = Field(default=[], description="Operating points of a FROC curve")
    low: list[float | None] = Field(default=[], description="Lower ends of intervals")
    high: list[float | None] = Field(default=[], description="Upper ends of intervals")


class Section(Part):
    """A part of the report under one heading."""

    title: str
    text: str = ""
    points: list[str] = Field(default=[], description="Sentences that are a list")
    tables: list[Table] = []
    charts: list[Chart] = []


class Column(Part):
    """A column of the table of cases."""

    name: str
    words: str
    digits: int | None = Field(description="Decimals that people are shown; null for words")
    scale: float = Field(default=1.0, description="What people are shown, for 1")


class Cases(Part):
    """Every case of one task in its first setting."""

    task: str
    setting: str = ""
    columns: list[Column]
    rows: list[list[bool | int | float | str | None]]


class Report(Part):
    """One model judged on one data set, without pictures."""

    format: Literal[1]
    research_use: str
    model: dict[str, str] = Field(
        description="`name`, `version`, and in `sha256` the manifest of its weights"
    )
    data: dict[str, str] = Field(description="`name`, `sha256` of the manifest, and counts of the data")
    made: dict[str, str] = Field(description="How it was judged: folds, seed, resamples, commit, packages")
    made_at: AwareDatetime
    limits: list[str] = Field(description="What is not known, in sentences")
    card_limits: list[str] = Field(
        default_factory=list,
        description="Those of the limits that the model's card tells, of the data that it was made from",
    )
    headlines: list[Headline]
    figures: dict[str, Any] = Field(
        description="Every figure by task and setting, with its interval, and groups"
    )
    sections: list[Section]
    cases: list[Cases]


__all__ = ["Cases", "Chart", "Column", "Headline", "Part", "Report", "Section", "Table"]
