from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from judged_rows import plus, rows_of

from models.shipped import Model, open_shipped
from plugins.errors import Refused
from training.challenge import Shown
from training.challenger import KEPT
from training.evaluate.drawn import Row
from training.evaluate.section import Picture
from training.gate import judge
from training.manifest import Case, DataManifest
from training.margins import Margins
from training.plan.document import NOTICE
from training.plan.impact import impact
from training.plan.modification import KEEPS, modification, require_within
from training.plan.plan import write_plan
from training.plan.protocol import RECIPE, protocol
from training.plan.risk import RISKS
from training.plan.run import ToldRun
from training.recipe import Recipe

NOON = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
# values that nothing else on a page has, so that each is found again
MARGINS = Margins(
    fewest_patients=21,
    fewest_cases=23,
    level=0.93,
    resamples=117,
    dice_gain=0.0061,
    long_axis_mm=0.57,
    volume_bias=0.113,
    hd95_mm=1.37,
    lesions_lost=1,
    group_patients=7,
    group_dice=0.0277,
    group_long_axis_mm=1.19,
    group_all_worse=4,
    approved_border=0.0517,
    approved_long_axis_mm=1.57,
    ece=0.0233,
    coverage=0.0531,
    latency_ratio=1.39,
)
RECIPE_HERE = Recipe(
    family="nodule_segmenter",
    fewest_new_labels=19,
    steps=613,
    batch=9,
    learning_rate=0.000311,
    seed=71,
    replay=(Path("/data/kept"),),
    replay_share=0.43,
    margins=MARGINS,
    threads=3,
)


@pytest.fixture(scope="module")
def model() -> Model:
    return open_shipped("nodule_segmenter")


def a_run(worse: Sequence[str] = ()) -> ToldRun:
    rows = rows_of(patients=30, scanners={"rare": 3})
    now = [plus(row, -0.05 if row.known["scanner"] in worse else 0.05) for row in rows]
    verdict = judge(rows, now, MARGINS)
    return ToldRun(
        number=5,
        state="proposed" if verdict.is_proposed else "refused",
        said=verdict.because,
        labels=84,
        new_labels=31,
        earlier=2,
        champion_sha256="c" * 64,
        learned=_manifest("learned", rows[:10]),
        judged=_manifest("judged", rows),
        verdict=verdict,
        shown=(
            Shown(case_id="P003_0", change=-0.05, picture=Picture(png=_dot(), caption="P003_0: Dice less")),
        ),
        challenger={"version": "1.2", "sha256": "d" * 64},
    )


def _dot() -> bytes:
    from io import BytesIO

    from matplotlib.figure import Figure

    buffer = BytesIO()
    Figure(figsize=(1, 1)).savefig(buffer, format="png")
    return buffer.getvalue()


def _manifest(name: str, rows: Sequence[Row]) -> DataManifest:
    return DataManifest(
        name=name,
        cases=tuple(
            Case(
                case_id=row.case_id,
                patient_id=row.patient_id,
                files={},
                sha256={},
                fold=0,
                size_mm=float(row.known["size_mm"]),
                tags={"origin": row.known["origin"], "scanner": row.known["scanner"]},
            )
            for row in rows
        ),
    )


@pytest.fixture(scope="module")
def written(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plan")
    schedule = {"cron": ("17 3 * * 2", "When it runs")}
    paths = write_plan(model, RECIPE_HERE, folder, made_at=NOON, schedule=schedule, run=a_run(("B",)))
    assert {path.name for path in paths} == {
        f"{kind}.{ending}"
        for kind in ("modification", "protocol", "impact")
        for ending in ("json", "html", "pdf")
    }
    return folder


def read(folder: Path, kind: str) -> tuple[dict[str, object], str, str]:
    """Return JSON, page and paper of a document, spaces as one."""
    paper = subprocess.run(
        ["pdftotext", "-layout", folder / f"{kind}.pdf", "-"], capture_output=True, text=True, check=True
    ).stdout
    page = (folder / f"{kind}.html").read_text()
    return json.loads((folder / f"{kind}.json").read_text()), page, paper


def test_the_protocol_tells_every_limit_and_every_setting_with_its_value(written: Path) -> None:
    plain, page, paper = read(written, "protocol")
    rows = [row for section in plain["sections"] for table in section["tables"] for row in table["rows"]]  # type: ignore[attr-defined]
    told = {name: value for name, value, _ in rows}
    for one in fields(Margins):
        value = f"{getattr(MARGINS, one.name):g}"
        assert told[one.name] == value
        for text in (page, paper):
            assert one.name in text and value in text
        if one.name != "level":
            sentence = next(words for name, _, words in rows if name == one.name)
            assert value in sentence
    assert RECIPE.keys() | {"margins"} == {one.name for one in fields(Recipe)}
    assert (told["steps"], told["learning_rate"], told["replay"]) == ("613", "0.000311", "/data/kept")
    assert told["cron"] == "17 3 * * 2"
    assert plain["margins"] == {one.name: getattr(MARGINS, one.name) for one in fields(Margins)}


def test_every_page_says_that_no_clearance_is_claimed(written: Path) -> None:
    for kind in ("modification", "protocol", "impact"):
        plain, page, _ = read(written, kind)
        assert plain["notice"] == NOTICE == "For research use only; no clearance is claimed."
        assert page.count(NOTICE) == 2
        pages = subprocess.run(
            ["pdftotext", written / f"{kind}.pdf", "-"], capture_output=True, text=True, check=True
        ).stdout.split("\f")[:-1]
        assert pages and all(NOTICE in one for one in pages)


def test_pages_stand_alone(written: Path) -> None:
    pages = sorted(written.glob("*.html"))
    assert [path.stem for path in pages] == ["impact", "modification", "protocol"]
    for path in pages:
        html = path.read_text()
        assert not re.findall(r"(?:src|href)=[\"'](?!data:|#)", html)
        assert not re.findall(r"https?://(?!www\.w3\.org/)", html)
        assert "<script" not in html


def test_the_impact_tells_what_the_gate_found(written: Path) -> None:
    plain, page, paper = read(written, "impact")
    verdict = plain["run"]["verdict"]  # type: ignore[index]
    assert verdict["is_proposed"] is False
    failed = [one for one in verdict["checks"] if one["outcome"] == "failed"]
    assert any(one["title"] == "scanner B: mean Dice" for one in failed)
    for text in (page, paper):
        flat = " ".join(re.sub(r"<[^>]+>", " ", text).split())
        assert "refused" in flat and "scanner B" in flat
        assert "\N{MINUS SIGN}0.050" in flat
        assert "judged before, on a hold-out with the same people: 2." in flat
        assert "Cases that lost most" in flat and "P003_0: Dice less" in flat
    assert "scanner rare: 3 patients are too few to be judged" in page
    assert "P003_0" in page and "d" * 64 in page
    assert "30 patients" in page and "origin corrected" in page


def test_an_impact_without_a_run_claims_no_figure(model: Model) -> None:
    document = impact(model, RECIPE_HERE, made_at=NOON)
    assert document.headlines == () and document.plain()["run"] is None
    assert [section.title for section in document.sections] == [
        "Benefits",
        "Risks, and how each is met",
        "What is not known",
    ]
    too_few = replace(
        a_run(), verdict=None, shown=(), learned=None, judged=None, state="too-few", said="Too few."
    )
    told = impact(model, RECIPE_HERE, made_at=NOON, run=too_few)
    assert told.sections[0].text == "Run 5 ended as too-few. Too few." and told.headlines == ()


def test_every_check_of_the_gate_answers_a_risk() -> None:
    run = a_run()
    assert run.verdict is not None and run.verdict.is_proposed
    answered = {name for risk in RISKS for name in risk.checks}
    assert {check.name for check in run.verdict.checks} <= answered
    told = {risk.what: risk.outcome(run.verdict.checks) for risk in RISKS}
    assert told["It is too slow for the node."] == "1 not judged"


def test_a_challenger_that_is_another_kind_of_model_is_outside_the_plan(model: Model) -> None:
    require_within(model.card, {**model.card, "version": "2", "limits": [], "figures": {}})
    assert set(KEPT) - {"doubt"} <= KEEPS.keys()
    require_within(model.card, json.loads(json.dumps(dict(model.card))))
    require_within(model.card, {**model.card, "doubt": "learned anew"})
    for name in KEEPS:
        with pytest.raises(Refused, match=f"'{name}'") as refused:
            require_within(model.card, {**model.card, name: "another"})
        assert refused.value.code == "outside-plan"


def test_the_plan_of_the_petct_model_says_what_it_learns_from_and_that_its_hazard_stays() -> None:
    petct, recipe = open_shipped("petct_multitask"), replace(RECIPE_HERE, family="petct_multitask")
    kept = modification(petct, recipe.family, made_at=NOON).figures["keeps"]
    assert {"calibration", "trees", "usual_log_hazard", "reported"} <= kept.keys()
    assert not {"levels", "level", "doubt"} & kept.keys()
    (labels, *_) = protocol(petct, recipe, made_at=NOON).sections
    assert "masks on PET in SUV" in labels.points[-3] and "survival head" in labels.points[-1]


def test_the_same_plan_gives_the_same_bytes(model: Model, tmp_path: Path) -> None:
    from training.plan.document import write_document

    found = [
        write_document(protocol(model, RECIPE_HERE, made_at=NOON), tmp_path / name) for name in ("a", "b")
    ]
    for first, second in zip(*found, strict=True):
        assert first.read_bytes() == second.read_bytes()
