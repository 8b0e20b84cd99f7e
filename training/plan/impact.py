"""The third document: what a retraining is good for, what it may do harm by, and what a run of it found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime

from models.shipped import Model
from training.challenge import KEY
from training.evaluate.charts import forest
from training.evaluate.section import NOTHING, Chart, Headline, Section, Table, between, ends, number
from training.evaluate.subgroups import groups
from training.manifest import DataManifest
from training.plan.document import Document
from training.plan.risk import BENEFITS, RISKS
from training.plan.run import ToldRun
from training.recipe import Recipe
from training.verdict import Check, Outcome, Verdict

GROUPS = {
    "group_dice": "Dice",
    "group_long_axis_mm": "absolute error of the long axis, mm",
    "group_approved": "part of the border of approved lesions more than 2 mm off",
}
MOST_SHOWN = 40
"""Groups in a chart; more of them are in the table only."""
TOLD_OF_DATA = ("origin", "scanner", "kernel")
NOT_KNOWN = (
    "How the model does at other hospitals, on other scanners and with labels of other people.",
    "Whether it would have found the lesions: both models are told a point in each of them.",
    "Pairs of properties (small lesions on one scanner) are not judged, only one property at a time.",
    "What is true: the labels of the hold-out are what the people of this node drew or approved.",
)


def impact(model: Model, recipe: Recipe, *, made_at: datetime, run: ToldRun | None = None) -> Document:
    """Return the impact assessment of retraining the model that counts, with what a run found when one is given."""
    checks = run.verdict.checks if run and run.verdict else ()
    return Document(
        kind="impact",
        title=f"Impact assessment: {model.manifest.name}" + (f", run {run.number}" if run else ""),
        family=recipe.family,
        made_at=made_at,
        headlines=_headlines(run),
        sections=(
            *([_outcome(run)] if run else ()),
            Section(title="Benefits", points=BENEFITS),
            _risks(checks, has_run=bool(run)),
            *(_found(run) if run else ()),
            _not_known(model, run),
        ),
        facts=_facts(model, run),
        figures={"run": None if run is None else _plain(run)},
    )


def _headlines(run: ToldRun | None) -> tuple[Headline, ...]:
    if run is None or run.verdict is None:
        return ()
    by_name = {check.name: check for check in run.verdict.checks}
    dice, length, lost = (by_name.get(name) for name in ("dice_gain", "long_axis_mm", "lesions_lost"))
    if dice is None or length is None or lost is None or dice.difference is None:
        return ()
    answer = "proposed" if run.verdict.is_proposed else "refused"
    where = f"{run.verdict.cases} cases of {run.verdict.patients} patients"
    return (
        Headline(name="The gate", value=answer, between=where),
        Headline(
            name="Mean Dice, difference",
            value=number(dice.difference.value, signed=True),
            between=ends(dice.difference, signed=True),
        ),
        Headline(
            name="Long axis, error, difference, mm",
            value=NOTHING if length.difference is None else number(length.difference.value, 2, signed=True),
            between=ends(length.difference, 2, signed=True),
        ),
        Headline(name="Lesions lost", value=str(len(lost.cases)), between=f"{number(lost.limit, 0)} allowed"),
        Headline(name="Labels", value=str(run.labels), between=f"{run.new_labels} of them new"),
    )


def _outcome(run: ToldRun) -> Section:
    checks = run.verdict.checks if run.verdict else ()
    failed = tuple(check.sentence for check in checks if check.outcome is Outcome.FAILED)
    tried = f"Challengers of this family that were judged before, on a hold-out with the same people: {run.earlier}."
    text = f"Run {run.number} ended as {run.state}."
    if not failed:
        text += " " + run.said.removeprefix("Proposed. ")
    return Section(title="What came of it", text=text, points=(*failed, tried))


def _risks(checks: Sequence[Check], *, has_run: bool) -> Section:
    head = ("Risk", "What stands against it", *(("In this run",) if has_run else ()))
    rows = tuple((risk.what, risk.met, *((risk.outcome(checks),) if has_run else ())) for risk in RISKS)
    return Section(title="Risks, and how each is met", tables=(Table(head=head, rows=rows, words=True),))


def _found(run: ToldRun) -> Iterator[Section]:
    yield from _data(run)
    if run.verdict is None:
        return
    yield _checks(run.verdict)
    yield from _groups(run.verdict)
    yield from _pictures(run)


def _data(run: ToldRun) -> Iterator[Section]:
    sides = [("learned from", run.learned), ("judged on", run.judged)]
    there = [(words, manifest) for words, manifest in sides if manifest is not None]
    if not there:
        return
    counted = [_counts(manifest) for _, manifest in there]
    names = list(dict.fromkeys(name for one in counted for name in one))
    rows = tuple((name, *(one.get(name, "0, 0") for one in counted)) for name in names)
    yield Section(
        title="Data",
        text="Cases, patients. Both lists are frozen; their hashes are at the end.",
        tables=(Table(head=("", *(words for words, _ in there)), rows=rows),),
    )


def _counts(manifest: DataManifest) -> dict[str, str]:
    """Return cases and patients of the whole and of each group, in words."""
    cases = manifest.cases
    known = [
        {"size_mm": case.size_mm, **{k: v for k in TOLD_OF_DATA if (v := case.tags.get(k)) is not None}}
        for case in cases
    ]
    told = {"all": f"{len(cases)}, {len({case.patient_id for case in cases})}"}
    for group in groups(known):
        patients = {cases[i].patient_id for i in group.cases}
        told[group.title] = f"{len(group.cases)}, {len(patients)}"
    if len(origins := Counter(str(one["origin"]) for one in known if "origin" in one)) == 1:
        told[f"origin {next(iter(origins))}"] = told["all"]
    return told


def _checks(verdict: Verdict) -> Section:
    rows = tuple(
        (check.sentence, str(check.outcome))
        for check in verdict.checks
        if not check.name.startswith("group_")
    )
    return Section(
        title="What the gate asked",
        text=f"Setting: {verdict.setting}. Differences are challenger minus champion, with intervals over patients.",
        tables=(Table(head=("Of all cases", "Outcome"), rows=rows, words=True),),
    )


def _groups(verdict: Verdict) -> Iterator[Section]:
    few = tuple(check.sentence for check in verdict.checks if check.name == "group_all_worse")
    dices = [check for check in verdict.checks if check.name == "group_dice"]
    charts = (_forest(dices[:MOST_SHOWN]),) if dices else ()
    yield Section(title="By kind of case", points=few, charts=charts)
    sentences = dict(verdict.margins.sentences())
    for name, words in GROUPS.items():
        if found := [check for check in verdict.checks if check.name == name]:
            yield Section(
                title=f"By kind of case: {words}", tables=(_group_table(found, sentences.get(name, "")),)
            )


def _name(check: Check) -> str:
    return check.title.rpartition(": ")[0]


def _group_table(found: Sequence[Check], note: str) -> Table:
    rows, digits = [], 2 if found[0].name == "group_long_axis_mm" else 3
    for check in found:
        assert check.difference is not None
        rows.append(
            (
                _name(check),
                f"{check.difference.cases}, {check.difference.patients}",
                number(check.champion, digits),
                number(check.challenger, digits),
                between(check.difference, digits, signed=True),
                str(check.outcome),
            )
        )
    head = ("Group", "Cases, patients", "Champion", "Challenger", "Difference", "Outcome")
    return Table(head=head, rows=tuple(rows), note=note)


def _forest(found: Sequence[Check]) -> Chart:
    differences = [check.difference for check in found if check.difference is not None]
    return forest(
        [_name(check) for check in found],
        [(one.value, one.low, one.high) for one in differences],
        x_label="Dice, challenger minus champion",
        limit=-float(found[0].limit or 0.0),
        bad=[check.outcome is Outcome.FAILED for check in found],
        caption="Difference of the mean Dice of each group, with its interval; dashed: the margin; squares: refused.",
    )


def _pictures(run: ToldRun) -> Iterator[Section]:
    for title, sign in (("Cases that lost most", -1), ("Cases that gained most", 1)):
        if pictures := tuple(one.picture for one in run.shown if one.change * sign > 0):
            yield Section(title=title, text=KEY, pictures=pictures)


def _not_known(model: Model, run: ToldRun | None) -> Section:
    checks = run.verdict.checks if run and run.verdict else ()
    silent = [check.title for check in checks if check.outcome is Outcome.NOT_JUDGED]
    return Section(
        title="What is not known",
        points=(
            *NOT_KNOWN,
            *(str(limit) for limit in model.card.get("limits", ())),
            *(
                [f"Not judged, for want of patients or of what the models say: {'; '.join(silent)}."]
                if silent
                else ()
            ),
        ),
    )


def _facts(model: Model, run: ToldRun | None) -> dict[str, str]:
    facts = {
        "model that counts": f"{model.manifest.name} {model.manifest.version}",
        "sha256": model.manifest.sha256,
    }
    if run is None:
        return {**facts, "run": "none is told here"}
    facts |= {"run": str(run.number), "champion sha256": run.champion_sha256}
    for words, manifest in (("learned from", run.learned), ("judged on", run.judged)):
        if manifest is not None:
            facts[f"{words}, sha256"] = manifest.sha256
    return facts | {f"challenger {name}": value for name, value in run.challenger.items()}


def _plain(run: ToldRun) -> dict[str, object]:
    return {
        "number": run.number,
        "state": run.state,
        "said": run.said,
        "labels": run.labels,
        "new_labels": run.new_labels,
        "earlier": run.earlier,
        "verdict": None if run.verdict is None else run.verdict.plain(),
    }


__all__ = ["impact"]
