"""What a report shows of detectors, classifiers and survival heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from training.evaluate import charts, classify, followed, froc
from training.evaluate.bootstrap import RESAMPLES, Interval
from training.evaluate.judged import FollowedCase, RatedCase, SearchedCase
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
        tables=(Table(head=("False positives per scan, at most", "Sensitivity"), rows=rows),),
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
    return tops, (section,), {"sensitivity_at_false_positives_per_scan": plain, "lesions": lesions}


def rated_part(
    cases: Sequence[RatedCase], threshold: float = 0.5, *, resamples: int = RESAMPLES, seed: int = 0
) -> Part:
    """Return headlines, section and JSON of a classifier. Raises ValueError when only one class is there."""
    found = classify.class_figures(cases, threshold, resamples=resamples, seed=seed)
    (true_negative, false_positive), (false_negative, true_positive) = found.confusion
    positives = true_positive + false_negative
    section = Section(
        title="Classification",
        text=(
            f"{positives} positive and {len(cases) - positives} negative cases; called positive from a probability of "
            f"{threshold:g}. In brackets: the 95 % interval over patients."
        ),
        tables=(
            Table(head=("Figure", "Value"), rows=_lines(RATED, found.figures)),
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
                found.roc[0].tolist(), found.roc[1].tolist(), x_label="1 \N{MINUS SIGN} specificity",
                y_label="sensitivity", caption="ROC curve.",
            ),
            charts.diagonal(
                found.reliability[0].tolist(), found.reliability[1].tolist(), x_label="probability said",
                y_label="part that was positive", caption="Reliability: on the line, probabilities mean what they say.",
            ),
        ),
    )  # fmt: skip
    tops = tuple(
        Headline(name=RATED[name], value=number(one.value), between=ends(one))
        for name in ("auc", "recall", "specificity", "f1")
        if (one := found.figures[name]) is not None
    )
    group_table, group_plain = _rated_groups(cases, resamples, seed)
    by_kind = Section(
        title="Classification by kind of case",
        text="AUC of the cases of each kind that holds both classes; a group of few patients says little.",
        tables=(group_table,),
    )
    plain = {
        "figures": _plain(found.figures),
        "groups": group_plain,
        "confusion": found.confusion,
        "threshold": threshold,
    }
    cases_plain = [
        {
            "case_id": case.case_id,
            "patient_id": case.patient_id,
            "fold": case.fold,
            "positive": case.positive,
            "probability": case.probability,
        }
        for case in cases
    ]
    sections = (section, by_kind) if group_table.rows else (section,)
    return tops, sections, {**plain, "cases": cases_plain}


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
    section = Section(
        title="Survival", text=text, tables=(Table(head=("Figure", "Value"), rows=_lines(FOLLOWED, found)),)
    )
    tops = tuple(
        Headline(name=FOLLOWED[name], value=number(one.value), between=ends(one))
        for name, one in found.items()
        if one is not None and name != "true_c_index"
    )
    return tops, (section,), {"figures": _plain(found), "events": events, "simulated": simulated}


def _lines(words: Mapping[str, str], found: Mapping[str, Interval | None]) -> tuple[tuple[str, str], ...]:
    return tuple((text, between(found[name])) for name, text in words.items() if name in found)


def _plain(found: Mapping[str, Interval | None]) -> dict[str, Any]:
    return {name: None if one is None else one.plain() for name, one in found.items()}


__all__ = ["followed_part", "rated_part", "searched_part"]
