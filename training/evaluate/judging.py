"""The whole judgement: every case put to the model, figures made, one report written."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from itertools import chain
from typing import Any

from plugins.contract import Flag
from plugins.errors import Refused
from training.commit import commit
from training.evaluate.agreement import reader_agreement
from training.evaluate.bootstrap import RESAMPLES, Interval, summary
from training.evaluate.classify import class_figures
from training.evaluate.data import Data
from training.evaluate.drawn import Row, judge
from training.evaluate.drawn_sections import DrawnJudgement, drawn_part
from training.evaluate.families import FAMILIES, Family
from training.evaluate.followed import concordance
from training.evaluate.froc import RATES, operating_points
from training.evaluate.judged import Case, DrawnCase, FollowedCase, RatedCase, SearchedCase
from training.evaluate.learning import CURVE, FROM_CARD, NOT_KNOWN, Point, learning_part, points_of
from training.evaluate.overlays import Plane, planes
from training.evaluate.report import Evaluation
from training.evaluate.runs import learned_cases
from training.evaluate.section import Headline, Section
from training.evaluate.sections import followed_part, rated_part, searched_part
from training.evaluate.subject import Subject

FEW_PATIENTS = 30
NAMED_CASES = 3
"""So many cases of one doubt are named."""
PACKAGES = ("nadir", "numpy", "scipy", "torch", "monai")


@dataclass(kw_only=True, eq=False)
class _Gathered:
    """What is kept of the cases; the arrays of one are let go before the next is asked for."""

    rows: list[Row] = field(default_factory=list)
    cuts: dict[str, tuple[Plane, Plane, Plane]] = field(default_factory=dict)
    read: list[DrawnCase] = field(default_factory=list)
    searched: list[SearchedCase] = field(default_factory=list)
    rated: list[RatedCase] = field(default_factory=list)
    followed: list[FollowedCase] = field(default_factory=list)
    judged: dict[str, str] = field(default_factory=dict)
    """Cases of the data that were judged, and whose each is."""
    weights: dict[str, int | None] = field(default_factory=dict)
    """By which fold each of these patients was judged; None for all together."""
    patients: set[str] = field(default_factory=set)
    """Those whom intervals draw: of a scan that things were set into, the scan's."""
    doubts: dict[Flag, dict[str, None]] = field(default_factory=dict)
    """What was odd about masks, and the cases that they are of."""

    def take(self, case: Case) -> None:
        """Keep what the report needs of a case."""
        held = isinstance(case, SearchedCase) and case.made_of
        self.judged |= held or {case.case_id: case.patient_id}
        self.weights |= dict.fromkeys(held.values() if held else [case.patient_id], case.fold)
        self.patients.add(case.patient_id)
        for name, doubts in case.doubts.items():
            for doubt in doubts:
                self.doubts.setdefault(doubt, {})[name] = None
        if isinstance(case, DrawnCase):
            self.rows.append(judge(case))
            if case.setting == self.rows[0].setting:
                if (cuts := planes(case)) is not None:
                    self.cuts[case.case_id] = cuts
                if len(case.readers) > 1:
                    self.read.append(case)
        elif isinstance(case, SearchedCase):
            self.searched.append(case)
        elif isinstance(case, RatedCase):
            self.rated.append(case)
        elif isinstance(case, FollowedCase):
            self.followed.append(case)

    @property
    def is_empty(self) -> bool:
        """Return whether no case was judged."""
        return not (self.rows or self.searched or self.rated or self.followed)


def judge_model(
    subject: Subject,
    data: Data,
    *,
    made_at: datetime,
    resamples: int = RESAMPLES,
    seed: int = 0,
    beside: Sequence[Subject] = (),
    progress: Callable[[str], None] = lambda _: None,
) -> Evaluation:
    """Return the judgement of a model on data; `progress` is told each case's name as it is taken up.

    `beside` are runs of the same model that learned from fewer cases: points of a learning curve.
    Refuses `training-patient` before anything is asked, when a patient of the data was learned from by all weights,
    and `nothing-to-judge` when the data hold nothing that a model of this family is judged on.
    """
    family, subject = FAMILIES[subject.family], subject.on(data.manifest)
    begun_with = commit()  # a judgement takes long, and the checkout may move on meanwhile
    for patient in {case.patient_id: None for case in data.cases}:
        subject.weights_for(patient)
    if beside:
        learned_cases(subject, data)
    gathered = _gather(subject, data, progress)
    if gathered.is_empty:
        raise Refused(
            "nothing-to-judge",
            f"of the {len(data.cases)} cases of {data.name} a {subject.family} can be judged on none; "
            f"it needs {family.needs}",
        )
    headlines, sections, figures = _parts(gathered, family, resamples, seed)
    from_card = [sentence for sentence in subject.card.get("limits", ()) if sentence not in family.limits]
    limits = [*family.limits, *from_card, *_limits(gathered, data)]
    if curve := _curve(subject, beside, data, resamples, seed, progress):
        section, figures[CURVE] = curve
        sections = (*sections, section)
    elif subject.folds:
        limits.append(NOT_KNOWN)
    return Evaluation(
        model={
            "name": subject.name,
            "version": subject.version,
            "family": subject.family,
            "sha256": subject.sha256,
        },
        data=_told_of(data, gathered),
        made={
            "judged_by": subject.judged_by(gathered.weights),
            "intervals": f"95 %, {resamples} draws of patients with replacement, seed {seed}",
            "commit": begun_with or "not known",
            "environment": environment(),
        },
        made_at=made_at,
        headlines=headlines,
        sections=sections,
        limits=tuple(dict.fromkeys(limits)),
        card_limits=tuple(dict.fromkeys(from_card)),
        figures=figures,
    )


def _told_of(data: Data, gathered: _Gathered) -> dict[str, str]:
    """Return which data were judged and how many cases of them, beside how many were given where those are more."""
    told = {
        "name": data.name,
        "sha256": data.manifest.sha256,
        "cases": str(len(gathered.judged)),
        "patients": str(len(gathered.weights)),
        "folds": ", ".join(map(str, data.folds)) or "all",
    }
    if len(data.cases) > len(gathered.judged):
        patients = len({case.patient_id for case in data.cases})
        told["given"] = f"{len(data.cases)} cases of {patients} patients"
    return told


def _gather(subject: Subject, data: Data, progress: Callable[[str], None], brief: bool = False) -> _Gathered:
    gathered = _Gathered()
    for case in FAMILIES[subject.family].cases(subject, data, brief):
        progress(case.case_id)
        gathered.take(case)
    return gathered


def _curve(
    subject: Subject,
    beside: Sequence[Subject],
    data: Data,
    resamples: int,
    seed: int,
    progress: Callable[[str], None],
) -> tuple[Section, list[dict[str, Any]]] | None:
    """Return the learning curve of runs, each judged on the same cases by the folds that have not seen them.

    Without others beside it that of the model's card is returned, None where it tells of none.
    """
    if not beside:
        kept = subject.card.get("figures", {}).get(CURVE)
        return learning_part(points_of(kept), kept[0]["score"], FROM_CARD) if kept else None
    points, name = [], ""
    for run in (one.on(data.manifest) for one in (subject, *beside)):
        name, score = _score(_gather(run, data, progress, brief=True), resamples, seed)
        if score is not None:
            points.append(Point(learned=learned_cases(run, data), score=score))
    return learning_part(points, name)


def _score(gathered: _Gathered, resamples: int, seed: int) -> tuple[str, Interval | None]:
    """Return the one figure that a learning curve is of."""
    if gathered.rows:
        dices = [row.figures["dice"] for row in gathered.rows]
        patients = [row.patient_id for row in gathered.rows]
        return "Mean Dice", summary(dices, patients, resamples=resamples, seed=seed)
    if gathered.searched:
        found = operating_points(gathered.searched, RATES[:1], resamples=resamples, seed=seed)
        return f"Sensitivity at {RATES[0]:g} false positive a scan", found[RATES[0]]
    if gathered.rated:
        return "AUC", class_figures(gathered.rated, resamples=resamples, seed=seed).figures["auc"]
    return "C-index", concordance(gathered.followed, resamples=resamples, seed=seed)["c_index"]


def _parts(
    gathered: _Gathered, family: Family, resamples: int, seed: int
) -> tuple[tuple[Headline, ...], tuple[Section, ...], dict[str, Any]]:
    how = {"resamples": resamples, "seed": seed}
    parts = {}
    if gathered.rows:
        found = DrawnJudgement(
            rows=tuple(gathered.rows),
            cuts=gathered.cuts,
            readers=reader_agreement(gathered.read, **how),
            window=family.window,
        )
        parts["segmentation"] = drawn_part(found, **how)
    if gathered.searched:
        parts["detection"] = searched_part(gathered.searched, **how)
    if gathered.rated:
        parts["classification"] = rated_part(gathered.rated, family.threshold, **how)
    if gathered.followed:
        parts["survival"] = followed_part(gathered.followed, **how)
    return (
        tuple(chain.from_iterable(tops for tops, _, _ in parts.values())),
        tuple(chain.from_iterable(sections for _, sections, _ in parts.values())),
        {name: plain for name, (_, _, plain) in parts.items()},
    )


def _limits(gathered: _Gathered, data: Data) -> Sequence[str]:
    """Return what these data cannot tell, and what was odd about them."""
    said = [f"How the model does on other data than {data.name} is not known."]
    if not any("scanner" in case.tags for case in data.cases):
        said.append("The scanners are not known, so there are no figures by scanner.")
    if gathered.rows and not gathered.read:
        said.append(
            "There is one truth per case: these data do not tell how far readers agree with each other."
        )
    for doubt, cases in gathered.doubts.items():
        more = len(cases) - NAMED_CASES
        names = ", ".join(list(cases)[:NAMED_CASES]) + (f" and {more} more" if more > 0 else "")
        said.append(f"The mask of {names}: {doubt.sentence} ({doubt.code}).")
    patients = len(gathered.patients)
    scans = "Scans of " if gathered.searched else ""
    if patients == 1:
        said.append(f"{scans}one patient: no interval can be had.".capitalize())
    elif patients < FEW_PATIENTS:
        said.append(f"{scans}{patients} patients are few: the intervals are themselves uncertain.")
    return said


def environment() -> str:
    """Return the versions of what computed, in words."""
    from importlib.metadata import PackageNotFoundError

    found = [f"Python {platform.python_version()}", platform.machine()]
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


__all__ = ["environment", "judge_model"]
