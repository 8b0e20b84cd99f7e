"""A home folder whose models were retrained, approved, proposed and refused, with runs, documents, drift and alarms."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from judged_rows import plus, rows_of
from made_models import write_model
from sqlmodel import Session
from weeks_of_use import insert, week_of

from models.nodule_segmenter import NAME
from models.shipped import VOUCHED
from store import drifts, registry, runs
from store.database import Database
from store.model_folders import stage
from store.runs import State
from training.gate import Margins, judge

BEGUN = datetime(2025, 12, 20, 9, 0, tzinfo=UTC)
CARD: dict[str, Any] = {
    "intended_use": "Draws one lung nodule from one point; research use only.",
    "input": "Chest CT in HU and a point.",
    "training_data": "Twelve balls <b>in noise</b>.",
    "limits": ["Balls are round.", "Nobody is a ball."],
    "figures": {
        "data": {"name": "balls", "cases": "12", "patients": "9"},
        "made": {"judged_by": "9 patients by the fold that had not seen them", "intervals": "95 %"},
        "segmentation": {
            "settings": {
                "the crop alone": {
                    "dice": {"value": 0.8412, "low": 0.8301, "high": 0.8523, "cases": 12, "patients": 9},
                    "volume_bias": {"value": -0.0123, "low": None, "high": None, "cases": 12, "patients": 9},
                }
            }
        },
    },
}
DOCUMENT = """<!doctype html><html lang="en"><head><title>Impact</title><style>h1 { color: rgb(1, 2, 3) }</style></head>
<body><h1>Impact assessment</h1><script>document.title = "a script ran"</script></body></html>"""


def retrained(home: Path, database: Database) -> None:
    """Fill a home folder: 1 counts, 2 was not proposed, 3 is proposed; a run goes on; a kernel changed in use."""
    rows, quick = rows_of(patients=24), Margins(resamples=100)
    judged = {gain: judge(rows, [plus(row, gain * 0.03) for row in rows], quick) for gain in (1, -1)}
    champion = VOUCHED[NAME]
    for number, (gain, days) in enumerate(((1, 0), (-1, 40), (1, 80)), start=1):
        verdict, at = judged[gain], BEGUN + timedelta(days=days)
        sha256 = write_model(home / f"made-{number}", number, **CARD)
        staged = stage(home, NAME, home / f"made-{number}")
        with database.transaction() as session:
            run = _run(session, home, at)
            said = registry.Judged(
                champion_sha256=champion,
                is_proposed=verdict.is_proposed,
                because=verdict.because,
                data_sha256="d" * 64,
                judged_sha256="e" * 64,
                figures=verdict.plain(),
            )
            registry.register(session, staged, said, now=at, run_pk=run)
            end = State.PROPOSED if verdict.is_proposed else State.REFUSED
            runs.end(session, run, "node:1", end, verdict.because, at + timedelta(minutes=47))
            if number == 1:
                registry.approve(session, home, NAME, 1, author="Dr. First", now=at, note="It draws better.")
                champion = sha256
    _use(database)


def _run(session: Session, home: Path, at: datetime) -> int:
    run = runs.begin(session, NAME, "node:1", at, 60)
    folder = f"training/{NAME}/{run}"
    (home / folder / "plan").mkdir(parents=True)
    (home / folder / "plan" / "impact.html").write_text(DOCUMENT)
    (home / folder / "plan" / "impact.pdf").write_bytes(b"%PDF-1.4 none")
    runs.move(session, run, "node:1", State.FITTING, folder=folder, labels=64, new_labels=21)
    runs.move(session, run, "node:1", State.JUDGING)
    return run


def _use(database: Database) -> None:
    """Write twelve weeks of studies, a kernel that changed in the last two, its alarm, and a run that goes on."""
    random = np.random.default_rng(3)
    weeks = [list(week_of(n, random)) for n in range(10)]
    weeks += [list(week_of(n, random, kernels=("sharp",))) for n in (10, 11)]
    alarm = drifts.Alarm(
        week="2026-W13", what="convolution_kernel", statistic="PSI", value=3.2, limit=0.2,
        sentence="lung_nodule: the reconstruction kernel changed: 'soft' 75% -> 0%.",
    )  # fmt: skip
    with database.transaction() as session:
        insert(session, [one for week in weeks for one in week])
        now = database.now()
        drifts.record(session, "lung_nodule", [alarm], now)
        run = runs.begin(session, NAME, "node:2", now - timedelta(minutes=4), 3600)
        runs.move(session, run, "node:2", State.FITTING, labels=71, new_labels=22)
        runs.note(session, run, "node:2", said="fold 2: step 300 of 600")


__all__ = ["BEGUN", "DOCUMENT", "NAME", "retrained"]
