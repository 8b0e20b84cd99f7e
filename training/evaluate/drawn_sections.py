"""What a report shows of a segmenter: figures by setting, groups, calibration, uncertainty, readers, pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from operator import add
from typing import Any

import numpy as np

from training.evaluate import charts
from training.evaluate.bootstrap import RESAMPLES, Interval, summary
from training.evaluate.drawn import (
    MOST_UNSURE,
    TOLD,
    TOLD_OF_GROUPS,
    UNSURE,
    Row,
    Told,
    told,
    unsure_of,
)
from training.evaluate.overlays import Plane, picture
from training.evaluate.section import Chart, Headline, Picture, Section, Table, between, ends, number
from training.evaluate.subgroups import EDGES, groups

SHOWN_EACH = 4
SIZES = (
    "Groups by size go by the size that the data give of a case (of crops in a table, its diameter_mm), the charts by "
    "the long axis of its truth."
)
READERS = {
    "readers_dice": "Dice, reader with reader",
    "model_dice": "Dice, model with each reader",
    "readers_volume_cv": "Volume, coefficient of variation between readers",
    "readers_long_axis_mm": "Long axis, mm apart, reader and reader",
    "model_long_axis_mm": "Long axis, mm apart, model and each reader",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class DrawnJudgement:
    """Everything that was found of a segmenter."""

    rows: tuple[Row, ...]
    """Every case in every setting; the first row's setting is the one that pictures and groups are of."""
    cuts: Mapping[str, tuple[Plane, Plane, Plane]]
    """Planes of cases in the first setting, by case."""
    readers: Mapping[str, Interval | None] | None
    """Agreement of readers, where there were several."""
    window: tuple[float, float]
    """Grey scale of the pictures."""


def drawn_part(
    found: DrawnJudgement, *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[tuple[Headline, ...], tuple[Section, ...], dict[str, Any]]:
    """Return headlines, sections and the JSON of a segmenter's judgement."""
    settings = tuple(dict.fromkeys(row.setting for row in found.rows))
    by_setting = {name: [row for row in found.rows if row.setting == name] for name in settings}
    figures = {name: told(rows, resamples=resamples, seed=seed) for name, rows in by_setting.items()}
    first, first_rows = figures[settings[0]], by_setting[settings[0]]
    group_rows, group_table = _groups(by_setting, resamples, seed)
    sections = (
        _figures_section(figures, by_setting),
        Section(
            title="By kind of case",
            text=f"Means, {settings[0]} unless a column says otherwise; a group of few patients says little. {SIZES}",
            tables=(group_table,) if group_table.rows else (),
            charts=(*_size_charts(first_rows), *_volume_chart(first_rows)),
        ),
        _uncertainty_section(first, first_rows),
        _reader_section(found.readers),
        *_picture_sections(first_rows, found),
    )
    plain = {
        "settings": {
            name: {key: None if one is None else one.plain() for key, one in of.items()}
            for name, of in figures.items()
        },
        "groups": group_rows,
        "readers": None
        if found.readers is None
        else {key: None if one is None else one.plain() for key, one in found.readers.items()},
        "cases": [row.plain() for row in found.rows],
    }
    return _headlines(figures), sections, plain


def _headlines(figures: Mapping[str, Mapping[str, Interval | None]]) -> tuple[Headline, ...]:
    """Return the figures of the first setting that matter most, and the lowest open Dice of all settings."""
    first = next(iter(figures.values()))
    opened = [(one.value, name) for name, of in figures.items() if (one := of["open_dice"]) is not None]
    chosen: list[tuple[str, Interval | None, int, bool, float]] = [
        ("Mean Dice", first["dice"], 3, False, 1.0)
    ]
    if opened:
        worst = min(opened)[1]
        chosen.append((f"Mean Dice, open, {worst}", figures[worst]["open_dice"], 3, False, 1.0))
    chosen += [
        ("Long axis, median error, mm", first["long_axis_error_median_mm"], 2, False, 1.0),
        ("Volume, mean error, %", first["volume_bias"], 1, True, 100.0),
        ("Calibration error at the lesion", first["ece"], 3, False, 1.0),
    ]
    return tuple(
        Headline(
            name=words,
            value=number(one.value * scale, digits, signed=signed),
            between=ends(one, digits, signed=signed, scale=scale),
        )
        for words, one, digits, signed, scale in chosen
        if one is not None
    )


def _figures_section(
    figures: Mapping[str, Mapping[str, Interval | None]], rows: Mapping[str, Sequence[Row]]
) -> Section:
    lines = tuple(
        (
            line.words,
            *(
                between(of[line.name], line.digits, signed=line.signed, scale=line.scale)
                for of in figures.values()
            ),
        )
        for line in TOLD
    )
    missing = {name: sum(row.figures["hd95_mm"] is None for row in of) for name, of in rows.items()}
    empty = {name: sum(row.figures["drawn_ml"] == 0 for row in of) for name, of in rows.items()}
    last = (
        ("Cases, patients", *(f"{len(of)}, {len({r.patient_id for r in of})}" for of in rows.values())),
        ("Cases in which nothing was drawn", *(str(n) for n in empty.values())),
        ("Cases without HD95 (one side empty)", *(str(n) for n in missing.values())),
    )
    return Section(
        title="Figures",
        text=(
            "Each figure is made of each case and then summarised over cases; nothing is pooled. In brackets: the 95 % "
            "interval over patients. Where both regions are empty Dice, IoU and surface Dice are 1, where one is they "
            "are 0; the long axis of an empty region is 0 mm."
        ),
        tables=(Table(head=("Figure", *figures), rows=(*lines, *last)),),
    )


def _groups(
    by_setting: Mapping[str, Sequence[Row]], resamples: int, seed: int
) -> tuple[list[dict[str, Any]], Table]:
    """Return groups of the first setting's cases, with the open Dice of every setting that has one."""
    first = next(iter(by_setting.values()))
    columns = [(first, line) for line in TOLD_OF_GROUPS]
    columns += [
        (rows, Told(f"open_dice: {name}", f"Dice, open, {name}", "open_dice"))
        for name, rows in by_setting.items()
        if any(row.figures["open_dice"] is not None for row in rows)
    ]
    plain: list[dict[str, Any]] = []
    lines: list[tuple[str, ...]] = []
    for group in groups([_known(row) for row in first]):
        names = {first[i].case_id for i in group.cases}
        patients = {first[i].patient_id for i in group.cases}
        found: dict[str, Interval | None] = {}
        cells: list[str] = []
        for rows, line in columns:
            members = [row for row in rows if row.case_id in names]
            values, whose = [row.figures[line.of] for row in members], [row.patient_id for row in members]
            found[line.name] = summary(values, whose, resamples=resamples, seed=seed)
            cells.append(between(found[line.name], line.digits, signed=line.signed, scale=line.scale))
        plain.append(
            {
                "by": group.by,
                "name": group.name,
                "cases": len(names),
                "patients": len(patients),
                "figures": {name: None if one is None else one.plain() for name, one in found.items()},
            }
        )
        lines.append((group.title, f"{len(names)}, {len(patients)}", *cells))
    head = ("Group", "Cases, patients", *(line.words for _, line in columns))
    return plain, Table(head=head, rows=tuple(lines))


def _known(row: Row) -> Mapping[str, float | str]:
    return row.known if row.fold is None else {**row.known, "fold": str(row.fold)}


def _size_charts(rows: Sequence[Row]) -> tuple[Chart, ...]:
    kept = [row for row in rows if row.figures["truth_long_axis_mm"]]
    if len(kept) < 2:
        return ()
    sizes = [float(row.figures["truth_long_axis_mm"] or 0) for row in kept]
    dices = [float(row.figures["dice"] or 0) for row in kept]
    errors = [float(row.figures["long_axis_error_mm"] or 0) for row in kept]
    cuts = (min(sizes), *(edge for edge in EDGES["size_mm"] if min(sizes) < edge < max(sizes)), max(sizes))
    means = [
        (low, high, [i for i, s in enumerate(sizes) if low <= s < high or (s == high == cuts[-1])])
        for low, high in pairwise(cuts)
    ]
    size_words = "long axis of the truth, mm"
    *edges, last = (f"{edge:g}" for edge in EDGES["size_mm"])
    bars = f"bars are means between {', '.join(edges)} and {last} mm of long axis."

    def steps(values: Sequence[float]) -> list[tuple[float, float, float]]:
        return [
            (low, high, float(np.mean([values[i] for i in inside]))) for low, high, inside in means if inside
        ]

    return (
        charts.scatter(
            sizes,
            dices,
            x_label=size_words,
            y_label="Dice",
            log_x=True,
            steps=steps(dices),
            caption=f"Dice of each case against the long axis of its truth; {bars}",
        ),
        charts.scatter(
            sizes,
            errors,
            x_label=size_words,
            y_label="drawn minus true, mm",
            log_x=True,
            level=0.0,
            steps=steps(errors),
            caption=f"Error of the long axis against the long axis of the truth; {bars}",
        ),
    )


def _volume_chart(rows: Sequence[Row]) -> tuple[Chart, ...]:
    """Return how volumes agree, in per cent of the mean of both (Bland and Altman, Lancet 1986); none below two."""
    both = [(float(row.figures["truth_ml"] or 0), float(row.figures["drawn_ml"] or 0)) for row in rows]
    pairs = np.array([pair for pair in both if min(pair) > 0], dtype=np.float64)
    if len(pairs) < 2:
        return ()
    means = pairs.mean(axis=1)
    apart = 100 * (pairs[:, 1] - pairs[:, 0]) / means
    bias, half = float(apart.mean()), 1.96 * float(apart.std(ddof=1))
    return (
        charts.scatter(
            means.tolist(),
            apart.tolist(),
            x_label="mean of drawn and true volume, ml",
            y_label="drawn minus true, % of the mean",
            log_x=True,
            level=0.0,
            steps=((float(means.min()), float(means.max()), bias),),
            limits=(bias - half, bias + half),
            caption=(
                f"Agreement of volumes (Bland-Altman) in {len(pairs)} of {len(rows)} cases, those where something was "
                f"drawn: bias {number(bias, 1, signed=True)} %, 95 % limits of agreement "
                f"{number(bias - half, 1, signed=True)} to {number(bias + half, 1, signed=True)} % (dashed)."
            ),
        ),
    )


def _uncertainty_section(first: Mapping[str, Interval | None], rows: Sequence[Row]) -> Section:
    measures = unsure_of(rows)
    names = {
        "ece": "Expected calibration error within 5 mm of the lesion",
        "volume_covered": "Volume intervals that hold the true volume",
        "diameter_covered": "Diameter intervals that hold the true long axis",
        **{
            f"uncertainty_error: {name}": f"{name} against 1 \N{MINUS SIGN} Dice, Spearman"
            for name in measures
        },
    }
    lines = tuple(
        (words if one.cases == len(rows) else f"{words}, in {one.cases} of {len(rows)} cases", between(one))
        for name, words in names.items()
        if (one := first[name]) is not None
    )
    if not lines:
        text = "The model gave no probabilities, uncertainties or intervals, so nothing can be said of them."
        return Section(title="Uncertainty", text=text)
    drawings = []
    said = [row.reliability for row in rows if row.reliability is not None]
    if said:
        points = reduce(add, said).points
        drawings.append(
            charts.diagonal(
                points[:, 0].tolist(),
                points[:, 1].tolist(),
                x_label="probability said",
                y_label="part that was lesion",
                caption="Reliability of all voxels within 5 mm of a lesion: on the line it means what it says.",
            )
        )
    for name in measures:
        pairs = [(row.figures[f"{UNSURE}{name}"], row.figures["dice"]) for row in rows]
        known = [(unsure, 1 - dice) for unsure, dice in pairs if unsure is not None and dice is not None]
        drawings.append(
            charts.scatter(
                [unsure for unsure, _ in known if unsure < MOST_UNSURE],
                [error for unsure, error in known if unsure < MOST_UNSURE],
                x_label=name,
                y_label="1 \N{MINUS SIGN} Dice",
                caption=f"Uncertainty ({name}) against error, case by case.",
            )
        )
    return Section(
        title="Uncertainty", tables=(Table(head=("Figure", "Value"), rows=lines),), charts=tuple(drawings)
    )


def _reader_section(readers: Mapping[str, Interval | None] | None) -> Section:
    if readers is None:
        text = "The data hold one truth per case, so how far readers agree with each other is not known."
        return Section(title="Readers", text=text)
    some = next(one for one in readers.values() if one is not None)
    rows = tuple((words, between(readers[name])) for name, words in READERS.items())
    text = f"On the {some.cases} cases of {some.patients} patients that several readers drew."
    return Section(title="Readers", text=text, tables=(Table(head=("Agreement", "Value"), rows=rows),))


def _picture_sections(rows: Sequence[Row], found: DrawnJudgement) -> tuple[Section, ...]:
    ranked = sorted(
        (row for row in rows if row.case_id in found.cuts),
        key=lambda row: (row.figures["dice"] or 0.0, row.case_id),
    )
    if not ranked:
        return ()
    n = min(SHOWN_EACH, max(1, len(ranked) // 3))
    middle = (len(ranked) - n) // 2
    chosen = (
        ("Worst cases", ranked[:n]),
        ("Median cases", ranked[middle : middle + n]),
        ("Best cases", ranked[-n:][::-1]),
    )
    key = "Blue, solid: truth. Orange, dashed: drawn by the model."
    return tuple(
        Section(title=title, text=key, pictures=tuple(_pictured(row, found) for row in of))
        for title, of in chosen
    )


def _pictured(row: Row, found: DrawnJudgement) -> Picture:
    own = row.figures
    caption = (
        f"{row.case_id}: Dice {number(own['dice'])}, HD95 {number(own['hd95_mm'], 1)} mm; long axis true "
        f"{number(own['truth_long_axis_mm'], 1)}, drawn {number(own['drawn_long_axis_mm'], 1)} mm; volume true "
        f"{number(own['truth_ml'], 2)}, drawn {number(own['drawn_ml'], 2)} ml"
    )
    return Picture(png=picture(found.cuts[row.case_id], found.window), caption=caption)


__all__ = ["DrawnJudgement", "drawn_part"]
