"""Weeks of a node in use: studies of a made-up hospital as points of the statistics, and as rows of a database."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
from sqlmodel import Session, SQLModel

from store.facts import EDGES, Observed
from store.model_tables import FindingDoubt, SeriesFact
from store.tables import Finding, Job, Measurement, Patient, Revision, Study

MONDAY = datetime(2026, 1, 5, 9, tzinfo=UTC)
HU = "[hnsf'U]"
CODED = {f"{part}_{key}": "x" for part in ("category", "type") for key in ("value", "scheme", "meaning")}
MADE = {"concept_value": "x", "concept_scheme": "x", "concept_meaning": "x", "unit": "mm", "method": "x"}


def week_of(
    number: int,
    random: np.random.Generator,
    *,
    studies: int = 30,
    kernels: Sequence[str] = ("soft", "soft", "soft", "lung"),
    shift_hu: float = 0.0,
    slice_mm: float = 1.0,
    volumes: float = 1.0,
) -> Iterator[Observed]:
    """Yield the studies of the `number`th week."""
    for _ in range(studies):
        volume = math.exp(random.normal(6.0, 0.8)) * volumes
        yield Observed(
            at=MONDAY + timedelta(weeks=number, days=float(random.uniform(0, 4))),
            categories={
                "modality": "CT",
                "manufacturer": "ACME",
                "manufacturer_model_name": "One" if random.random() < 0.7 else "Two",
                "convolution_kernel": kernels[int(random.integers(len(kernels)))],
            },
            spacings_mm={"slice_distance": slice_mm, "pixel_spacing": float(random.uniform(0.6, 0.8))},
            histograms={HU: histogram(shift_hu + random.normal(0.0, 4.0))},
            numbers={
                "findings": float(1 + random.poisson(1.0)),
                "volume": volume,
                "long_axis": volume ** (1 / 3),
                "entropy": float(np.clip(0.7 - 0.05 * math.log(volume) + random.normal(0.0, 0.05), 0, 1)),
                "disagreement": float(random.beta(2, 10)),
                "confidence": float(random.beta(5, 2)),
            },
        )


def histogram(shift_hu: float) -> tuple[float, ...]:
    """Return the shares of air, lung, fat and soft tissue, all of whose values are shifted."""
    edges = [-math.inf, *EDGES[HU], math.inf]
    tissues = ((0.4, -1000.0, 12.0), (0.25, -860.0, 60.0), (0.15, -95.0, 25.0), (0.2, 45.0, 30.0))
    below = [
        sum(
            a * 0.5 * (1 + math.erf((edge - mean - shift_hu) / spread / math.sqrt(2)))
            for a, mean, spread in tissues
        )
        for edge in edges
    ]
    return tuple(b - a for a, b in pairwise(below))


def insert(
    session: Session, observed: Sequence[Observed], *, plugin: str = "lung_nodule", first: int = 1
) -> int:
    """Write each study as rows, each of its own patient, numbered from `first`; return the number after the last."""
    rows: dict[type[SQLModel], list[dict[str, Any]]] = {
        table: [] for table in (Patient, Study, Revision, Job, SeriesFact, Finding, Measurement, FindingDoubt)
    }
    for number, one in enumerate(observed, start=first):
        for table, row in _rows(number, one, plugin):
            rows[table].append(row)
    for table, several in ((table, several) for table, several in rows.items() if several):
        session.connection().execute(table.__table__.insert(), several)  # type: ignore[attr-defined]
    return first + len(observed)


def _rows(n: int, one: Observed, plugin: str) -> Iterator[tuple[type[SQLModel], dict[str, Any]]]:
    yield (
        Patient,
        {"id": n, "issuer": "", "patient_id": f"P{n}", "patient_name": "Doe^Jane", "patient_sex": "F"},
    )
    arrived = {"first_arrival_at": one.at, "last_arrival_at": one.at, "settle_now": False, "prior": False}
    said = {"study_description": "CT chest", "accession_number": "", "state": "settled", "revision": 1}
    uid = f"1.2.826.{n}"
    yield (
        Study,
        {"id": n, "patient_pk": n, "study_instance_uid": uid, "study_date": one.at.date(), **arrived, **said},
    )
    yield (
        Revision,
        {"id": n, "study_pk": n, "number": 1, "manifest_sha256": "", "settled_at": one.at, "forced": False},
    )
    by = {"plugin": plugin, "model_sha256": "m"}
    ran = {"state": "done", "attempt": 1, "max_attempts": 5, "run_after": one.at, "created_at": one.at}
    yield (
        Job,
        {"id": n, "revision_pk": n, "key": str(n), "plugin_version": "1", "config_sha256": "c", **by, **ran},
    )
    (unit, shares), series = next(iter(one.histograms.items())), f"{uid}.1"
    sizes = {f"{name}_mm": value for name, value in one.spacings_mm.items()}
    yield SeriesFact, {
        "job_pk": n, "series_instance_uid": series, "at": one.at, "slices": 300, "unit": unit,
        "histogram": json.dumps(shares), **by, **one.categories, **sizes,
    }  # fmt: skip
    for k in range(int(one.numbers["findings"])):
        pk = 100 * n + k
        lesion = {"label": f"Nodule {k + 1}", "tracking_identifier": "", "tracking_uid": f"2.25.{pk}"}
        place = {f"centroid_{axis}_mm": 0.0 for axis in "xyz"}
        of = {"job_pk": n, "study_pk": n, "patient_pk": n, "series_instance_uid": series, "superseded": False}
        said = {"segment_number": k + 1, "confidence": one.numbers["confidence"], "automatic": True}
        yield Finding, {"id": pk, **of, **said, **CODED, **lesion, **place}
        for name in ("volume", "long_axis"):
            value = one.numbers[name]
            yield (
                Measurement,
                {"finding_pk": pk, "name": name, "value": value, "plugin_version": "1", **MADE, **by},
            )
        for name in ("entropy", "disagreement"):
            yield FindingDoubt, {"finding_pk": pk, "name": name, "value": one.numbers[name]}
