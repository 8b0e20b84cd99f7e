"""What a report shows of detectors, classifiers and survival heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from training.evaluate import charts, classify, followed, froc
from training.evaluate.bootstrap import RESAMPLES, Interval
from training.evaluate.judged import FollowedCase, RatedCase, SearchedCase
from training.evaluate.looked import looked_section
from training.evaluate.section import Chart, Headline, Section, Table, between, ends, number
from training.evaluate.subgroups import groups

Part = tuple[tuple[Headline, ...], tuple[Section, ...], dict[str, Any]]

RATED = {
    "auc": "AUC",
    "average_precision": "Average precision",
    "precision": "Precision",
    "recall": "Recall (sensitivity)",
    "specificity": "Specificity",
    "f1": "F1",
    "accuracy": "Accuracy",
    "brier": "Brier score",
    "ece": "Expected calibration error",
}
NO_CANDIDATE = -1e300
"""Lower than any score but that of a lesion without candidate."""
FOLLOWED = {
    "c_index": "C-index of the model",
    "true_c_index": "C-index of the true hazard",
    "of_true": "Part of the true hazard's C-index",
}


def searched_part(cases: Sequence[SearchedCase], *, resamples: int = RESAMPLES, seed: int = 0) -> Part:
    """Return headlines, section and JSON of a detector."""
    points = froc.operating_points(cases, resamples=resamples, seed=seed)
    scans = [froc.hits(case) for case in cases]
    lesions = sum(scan.found.size for scan in scans)
    rows = tuple((f"{rate:g}", between(found)) for rate, found in points.items())
    text = (
        f"{lesions} lesions in {len(cases)} scans. A candidate finds a lesion when it lies within its radius; a lesion "
        "counts once. In brackets: the 95 % interval over patients."
    )
    drawings: tuple[Chart, ...] = ()
    if lesions:
        rate, sensitivity = froc.curve(scans)
        shown = [(at, found.value) for at, found in points.items() if found is not None]
        drawings = (charts.froc(rate, sensitivity, shown, "Sensitivity against false positives per scan."),)
    section = Section(
        title="Detection",
        text=text,
        tables=(
            Table(head=("False positives per scan, at most", "Sensitivity"), rows=rows),
            *_by_lesion(cases, scans),
        ),
        charts=drawings,
    )
    tops = tuple(
        Headline(
            name=f"Sensitivity at {rate:g} false positives a scan", value=number(one.value), between=ends(one)
        )
        for rate, one in points.items()
        if one is not None
    )
    plain = {f"{rate:g}": None if one is None else one.plain() for rate, one in points.items()}
    found = {"sensitivity_at_false_positives_per_scan": plain, "lesions": lesions}
    lowest = {f"{rate:g}": froc.level_at(scans, rate) for rate in froc.RATES}
    asked = {rate: max(level, NO_CANDIDATE) for rate, level in lowest.items()}
    rows_plain = [_searched_plain(case, scan, asked) for case, scan in zip(cases, scans, strict=True)]
    # A level is None where every candidate may stay.
    levels = {rate: level if np.isfinite(level) else None for rate, level in lowest.items()}
    reached = {"value": froc.ceiling(scans)}
    return tops, (section,), {**found, "candidates": reached, "levels": levels, "cases": rows_plain}


def _searched_plain(case: SearchedCase, scan: froc.Hits, levels: Mapping[str, float]) -> dict[str, Any]:
    """Return how many lesions of a scan are found, and how many candidates are false, at each rate."""
    return {
        "case_id": case.case_id,
        "patient_id": case.patient_id,
        "fold": case.fold,
        "lesions": scan.found.size,
        "found_at": {rate: int((scan.found >= level).sum()) for rate, level in levels.items()},
        "false_at": {rate: int((scan.false >= level).sum()) for rate, level in levels.items()},
    }


def _by_lesion(cases: Sequence[SearchedCase], scans: Sequence[froc.Hits]) -> tuple[Table, ...]:
    """Return how many lesions of each kind are found at each rate, and how many have a candidate at all."""
    known = [lesion.known for case in cases for lesion in case.lesions if lesion.counts]
    if not known:
        return ()
    scores = np.concatenate([scan.found for scan in scans])
    levels = [max(froc.level_at(scans, rate), NO_CANDIDATE) for rate in froc.RATES]
    parts = [("all", np.arange(len(known)))]
    parts += [(group.title, np.asarray(group.cases)) for group in groups(known)]
    rows = tuple(
        (
            name,
            str(len(index)),
            *(number(float((scores[index] >= level).mean())) for level in levels),
            number(float(np.isfinite(scores[index]).mean())),
        )
        for name, index in parts
    )
    return (
        Table(head=("Lesions", "n", *(f"at {rate:g}" for rate in froc.RATES), "any candidate"), rows=rows),
    )


def rated_part(
    cases: Sequence[RatedCase], threshold: float = 0.5, *, resamples: int = RESAMPLES, seed: int = 0
) -> Part:
    """Return headlines, sections and JSON of a classifier: its first setting in full, figures of the others beside it.

    Raises ValueError when only one class is there.
    """
    settings = {
        setting: [case for case in cases if case.setting == setting]
        for setting in dict.fromkeys(case.setting for case in cases)
    }
    found = {
        setting: classify.class_figures(members, threshold, resamples=resamples, seed=seed)
        for setting, members in settings.items()
    }
    first = next(iter(settings))
    group_table, group_plain = _rated_groups(settings[first], resamples, seed)
    by_kind = Section(
        title="Classification by kind of case",
        text="AUC of the cases of each kind that holds both classes; a group of few patients says little.",
        tables=(group_table,),
    )
    plain = {
        "figures": _plain(found[first].figures),
        "groups": group_plain,
        "confusion": found[first].confusion,
        "threshold": threshold,
        "cases": [_rated_plain(case) for case in cases],
    }
    if len(found) > 1:
        plain["settings"] = {setting: _plain(one.figures) for setting, one in found.items()}
    looked = looked_section(settings[first], threshold)
    sections = (
        _rated_section(found, len(settings[first])),
        *([by_kind] if group_table.rows else []),
        *([looked] if looked is not None else []),
    )
    return _rated_headlines(found), sections, plain


def _rated_section(found: Mapping[str, classify.ClassFigures], cases: int) -> Section:
    first = next(iter(found.values()))
    (true_negative, false_positive), (false_negative, true_positive) = first.confusion
    positives = true_positive + false_negative
    columns = [dict(_lines(RATED, one.figures)) for one in found.values()]
    head = ("Figure", *(found if len(found) > 1 else ["Value"]))
    return Section(
        title="Classification",
        text=(
            f"{positives} positive and {cases - positives} negative cases; called positive from a probability of "
            f"{first.threshold:g}. In brackets: the 95 % interval over patients."
        ),
        tables=(
            Table(
                head=head, rows=tuple((name, *(column[name] for column in columns)) for name in columns[0])
            ),
            Table(
                head=("", "called negative", "called positive"),
                rows=(
                    ("truly negative", str(true_negative), str(false_positive)),
                    ("truly positive", str(false_negative), str(true_positive)),
                ),
            ),
        ),
        charts=(
            charts.diagonal(
                first.roc[0].tolist(), first.roc[1].tolist(), x_label="1 \N{MINUS SIGN} specificity",
                y_label="sensitivity", caption="ROC curve.",
            ),
            charts.diagonal(
                first.reliability[0].tolist(), first.reliability[1].tolist(), x_label="probability said",
                y_label="part that was positive", caption="Reliability: on the line, probabilities mean what they say.",
            ),
        ),
    )  # fmt: skip


def _rated_headlines(found: Mapping[str, classify.ClassFigures]) -> tuple[Headline, ...]:
    first, *others = found
    told = [(RATED[name], found[first].figures[name]) for name in ("auc", "recall", "specificity", "f1")]
    told += [(f"AUC, {setting}", found[setting].figures["auc"]) for setting in others]
    return tuple(
        Headline(name=name, value=number(one.value), between=ends(one))
        for name, one in told
        if one is not None
    )


def _rated_plain(case: RatedCase) -> dict[str, Any]:
    return {
        "case_id": case.case_id,
        "patient_id": case.patient_id,
        "fold": case.fold,
        "setting": case.setting,
        "positive": case.positive,
        "probability": case.probability,
    }


def _rated_groups(
    cases: Sequence[RatedCase], resamples: int, seed: int
) -> tuple[Table, list[dict[str, Any]]]:
    rows, plain = [], []
    for group in groups([case.known for case in cases]):
        members = [cases[i] for i in group.cases]
        positives = sum(case.positive for case in members)
        if 0 < positives < len(members):
            auc = classify.auc(members, resamples=resamples, seed=seed)
            rows.append((group.title, f"{len(members)}, {positives}", between(auc)))
            plain.append({"by": group.by, "name": group.name, "auc": None if auc is None else auc.plain()})
    return Table(head=("Group", "Cases, positive", "AUC"), rows=tuple(rows)), plain


def followed_part(cases: Sequence[FollowedCase], *, resamples: int = RESAMPLES, seed: int = 0) -> Part:
    """Return headlines, section and JSON of a survival head."""
    found = followed.concordance(cases, resamples=resamples, seed=seed)
    events, patients = sum(case.event for case in cases), len({case.patient_id for case in cases})
    simulated = "true_c_index" in found
    text = (
        f"{len(cases)} outcomes of {patients} patients, {events} of them events. Harrell's C-index: how often, of two "
        "that can be compared, the one with the higher risk has the earlier event. In brackets: the 95 % interval over "
        "patients."
    )
    if simulated:
        text += " The outcomes are simulated from a known hazard; they say nothing about patients."
    if found["c_index"] is None:
        text += " It is not known here: no two patients can be compared."
    section = Section(
        title="Survival", text=text, tables=(Table(head=("Figure", "Value"), rows=_lines(FOLLOWED, found)),)
    )
    tops = tuple(
        Headline(
            name=FOLLOWED[name], value="not known" if one is None else number(one.value), between=ends(one)
        )
        for name, one in found.items()
        if name != "true_c_index"
    )
    rows = [_followed_plain(case) for case in cases]
    return (
        tops,
        (section,),
        {
            "figures": _plain(found),
            "events": events,
            "simulated": simulated,
            "cases": rows,
        },
    )


def _followed_plain(case: FollowedCase) -> dict[str, Any]:
    return {
        "case_id": case.case_id,
        "patient_id": case.patient_id,
        "fold": case.fold,
        "risk": case.risk,
        "duration_days": case.duration_days,
        "event": case.event,
    }


def _lines(words: Mapping[str, str], found: Mapping[str, Interval | None]) -> tuple[tuple[str, str], ...]:
    return tuple((text, between(found[name])) for name, text in words.items() if name in found)


def _plain(found: Mapping[str, Interval | None]) -> dict[str, Any]:
    return {name: None if one is None else one.plain() for name, one in found.items()}


__all__ = ["followed_part", "rated_part", "searched_part"]
