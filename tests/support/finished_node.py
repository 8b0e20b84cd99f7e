"""The home of a node with one finished and one dead job, as the command line finds it; no process runs."""

from __future__ import annotations

from pathlib import Path

from ledger import at, kept, queued, settled
from small_node import SmallNode

from store import jobs, outbox
from store.analysed import AnalysedFindings, Coded, Found, Measured, Told, Written
from store.findings import save

DESTINATION = "http://user:secret@pacs.test/dicom-web"
FORMULA = '=HYPERLINK("http://evil.test")'
NODULE = Coded(value="27925004", scheme="SCT", meaning="Nodule")


def measured(name: str, value: float, unit: str) -> Measured:
    """Return one number."""
    return Measured(name=name, concept=NODULE, value=value, unit=unit, method="as drawn")


def found(label: str, number: int, *measurements: Measured) -> Found:
    """Return one finding."""
    return Found(
        label=label,
        tracking_identifier=label,
        tracking_uid=f"2.25.{number}",
        series_instance_uid="1.2.3.1",
        segment_number=number,
        category=NODULE,
        type=NODULE,
        site=None,
        laterality=None,
        confidence=0.75,
        automatic=True,
        centroid_mm=(1.0, 2.0, 3.0),
        measurements=measurements,
    )


ANALYSED = AnalysedFindings(
    found=(
        found(FORMULA, 1, measured("long_axis", 12.345678, "mm"), measured("volume", 1.5, "ml")),
        found("Background", 2, measured("suv_sd", 0.25, "1")),
    ),
    told=(
        Told(code="thick-slices", sentence="The slices are thick.", series_instance_uid="1.2.3.1"),
        Told(code="gantry-tilt", sentence="The gantry is tilted.", refused=True),
    ),
    written=(
        Written(
            kind="seg",
            sop_instance_uid="2.25.9",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.66.4",
            series_instance_uid="2.25.8",
            path="seg.dcm",
        ),
    ),
)


def finished_node(home: Path) -> Path:
    """Return the home of a node in which job 1 is delivering and job 2 is dead."""
    node = SmallNode.make(home)
    with node.database.transaction() as session:
        revision = settled(session)
        queued(session, revision, "lung_nodule")
        job = jobs.claim(session, "worker", at(1), 60)
        assert job is not None and job.id is not None
        (result,) = save(session, job, ANALYSED, {"2.25.9": kept("seg")}, at(2))
        outbox.add(session, result, [DESTINATION], at(2))
        jobs.finish(session, job.id, job.attempt, jobs.DELIVERING, at(3))
        queued(session, revision, "emphysema")
        dead = jobs.claim(session, "worker", at(4), 60)
        assert dead is not None and dead.id is not None
        sentence = "the process that analysed the study ended with signal SIGSEGV"
        jobs.fail(session, dead.id, dead.attempt, "analysis-crashed", sentence, at(5), permanent=True)
    node.database.dispose()
    return home
