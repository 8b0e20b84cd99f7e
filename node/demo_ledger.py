"""Where the studies of the demo stand in SQL, and what was delivered of them, as studies of a report."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlmodel import Session, col, select

from node.archive import Held
from node.report.shown import ShownFinding, ShownMeasurement, StudyReport
from plugins.contract import Flag, Mask
from plugins.errors import Refused, Unavailable
from store import jobs
from store.database import Database
from store.dicom.series import ReadStudy, read_mask, read_study
from store.findings import list_findings
from store.tables import Delivery, Job, Patient, Refusal, Result, Revision, Study

ENDED = (jobs.DONE, jobs.DEAD, jobs.SUPERSEDED)
KIND_WORDS = {
    "seg": "SEG",
    "sr-volumetric": "SR_volumetric",
    "sr-planar": "SR_planar",
    "sr-response": "SR",
    "pdf-response": "PDF",
}


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How far the studies have come."""

    settled: int
    """Studies that settled."""
    jobs: int
    """Analyses asked for."""
    ended: int
    """Analyses that ended, whichever way, with their results delivered."""
    results: int
    """Results to deliver."""
    delivered: int
    """Results delivered."""
    dead: tuple[tuple[str, str, str], ...]
    """Plugin, code and reason of each analysis that gave nothing."""
    parked: tuple[str, ...]
    """Why results could not be delivered."""

    def done(self, studies: int) -> bool:
        """Return True when nothing more will happen to this number of studies."""
        return self.settled == studies and self.ended == self.jobs and self.delivered == self.results


def standing(database: Database, study_instance_uids: Sequence[str]) -> Standing:
    """Return how far the studies have come."""
    with database.reading() as session:
        studies = session.exec(
            select(Study).where(col(Study.study_instance_uid).in_(study_instance_uids))
        ).all()
        found = [job for study in studies for job in _jobs(session, study)]
        job_pks = [job.id for job in found]
        deliveries = session.exec(select(Delivery).where(col(Delivery.job_pk).in_(job_pks))).all()
    open_deliveries = [d for d in deliveries if d.state != "superseded"]
    return Standing(
        settled=sum(1 for study in studies if study.state == "settled" and study.revision > 0),
        jobs=len(found),
        ended=sum(1 for job in found if job.state in ENDED),
        results=len(open_deliveries),
        delivered=sum(1 for d in open_deliveries if d.delivered_at is not None),
        dead=tuple((j.plugin, j.error_code or "", j.error_text or "") for j in found if j.state == jobs.DEAD),
        parked=tuple(d.last_error or "refused" for d in open_deliveries if d.state == "parked"),
    )


def _jobs(session: Session, study: Study) -> list[Job]:
    statement = (
        select(Job)
        .join(Revision, col(Revision.id) == col(Job.revision_pk))
        .where(col(Revision.study_pk) == study.id)
        .order_by(col(Job.plugin))
    )
    return list(session.exec(statement))


def collect(
    database: Database, held: Iterable[Held], files: Mapping[str, Sequence[Path]], folder: Path
) -> list[StudyReport]:
    """Return one report for each study, by patient and date, after the delivered objects are put into `folder`.

    `files` are the source files by Study Instance UID. What is shown of a finding is its row in SQL and its mask in
    the SEG that was delivered. Raises Unavailable when a result did not reach the archive.
    """
    archive = {h.sop_instance_uid: h.path for h in held}
    reports: list[tuple[tuple[str, str, str], StudyReport]] = []
    for uid, sources in files.items():
        try:
            read = read_study(sources)
        except Refused:
            continue  # its analyses are dead for the same reason, which is told
        with database.reading() as session:
            study = session.exec(select(Study).where(Study.study_instance_uid == uid)).one()
            place = folder / f"{_word(read.study.study_date or 'undated')}_{_word(uid[-6:])}"
            report = _report(session, study, read, archive, place)
        reports.append(((read.study.patient.patient_id, report.date, uid), report))
    return [report for _, report in sorted(reports, key=lambda pair: pair[0])]


def _report(
    session: Session, study: Study, read: ReadStudy, archive: Mapping[str, Path], folder: Path
) -> StudyReport:
    current = [job for job in _jobs(session, study) if job.state == jobs.DONE]
    placed = [(job, r, _place(job, r, archive, folder)) for job in current for r in _results(session, job)]
    masks: dict[str, Mask] = {}
    for _, result, path in placed:
        if result.kind == "seg":
            masks |= {d.tracking_uid: d.mask for d in read_mask(path, read) if d.tracking_uid}
    patient = session.get_one(Patient, study.patient_pk)
    rows = [r for r in list_findings(session, patient_id=patient.patient_id)]
    own = [r for r in rows if r["study_instance_uid"] == study.study_instance_uid]
    told = _told(session, [job for job in _jobs(session, study) if job.state != jobs.SUPERSEDED])
    return StudyReport(
        study=read.study,
        findings=_findings(own, masks),
        patient_name=patient.patient_name,
        description=study.study_description,
        refused=tuple(flag for flag, refused in told if refused),
        flags=tuple(flag for flag, refused in told if not refused),
        files=tuple(path.relative_to(folder.parents[1]) for _, _, path in placed),
        provenance={job.plugin: _provenance(job) for job in current if any(j is job for j, _, _ in placed)},
    )


def _results(session: Session, job: Job) -> list[Result]:
    return list(session.exec(select(Result).where(Result.job_pk == job.id).order_by(col(Result.id))))


def _place(job: Job, result: Result, archive: Mapping[str, Path], folder: Path) -> Path:
    source = archive.get(result.sop_instance_uid)
    if source is None:
        raise Unavailable(f"a result of {job.plugin} was answered as delivered but is not in the archive")
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{KIND_WORDS.get(result.kind, _word(result.kind))}_{_word(job.plugin)}"
    path, number = folder / f"{stem}.dcm", 1
    while path.exists():
        number += 1
        path = folder / f"{stem}_{number}.dcm"
    shutil.copyfile(source, path)
    return path


def _word(value: object) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", str(value)).strip("-.") or "unnamed"


def _findings(rows: Sequence[Mapping[str, Any]], masks: Mapping[str, Mask]) -> tuple[ShownFinding, ...]:
    grouped: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        grouped.setdefault(row["finding"], []).append(row)
    return tuple(
        _finding(g, masks) for g in sorted(grouped.values(), key=lambda group: str(group[0]["plugin"]))
    )


def _finding(rows: Sequence[Mapping[str, Any]], masks: Mapping[str, Mask]) -> ShownFinding:
    first = rows[0]
    return ShownFinding(
        label=first["label"],
        plugin=first["plugin"],
        tracking_uid=first["tracking_uid"],
        series_instance_uid=first["series_instance_uid"],
        measurements=tuple(_measurement(row) for row in rows if row["name"] is not None),
        mask=masks.get(first["tracking_uid"]),
        centroid_mm=(first["centroid_x_mm"], first["centroid_y_mm"], first["centroid_z_mm"]),
        confidence=first["confidence"],
        automatic=first["automatic"],
    )


def _measurement(row: Mapping[str, Any]) -> ShownMeasurement:
    ends = None
    if row["x1_mm"] is not None:
        ends = ((row["x1_mm"], row["y1_mm"], row["z1_mm"]), (row["x2_mm"], row["y2_mm"], row["z2_mm"]))
    return ShownMeasurement(
        name=row["name"],
        value=row["value"],
        unit=row["unit"],
        method=row["method"],
        meaning=row["concept_meaning"],
        end_points_mm=ends,
    )


def _told(session: Session, ended: Sequence[Job]) -> list[tuple[Flag, bool]]:
    told: dict[tuple[str, str, bool], Flag] = {}
    for job in ended:
        for row in session.exec(select(Refusal).where(Refusal.job_pk == job.id).order_by(col(Refusal.id))):
            flag = Flag(
                code=row.code,
                sentence=row.sentence,
                series_instance_uid=row.series_instance_uid,
                plugin=job.plugin,
            )
            told.setdefault((row.code, row.sentence, row.refused), flag)
    return [(flag, refused) for (_, _, refused), flag in told.items()]


def _provenance(job: Job) -> dict[str, str]:
    made = {
        "plugin_version": job.plugin_version,
        "model_sha256": job.model_sha256,
        "settings_sha256": job.config_sha256,
        "job_key": job.key,
        "attempt": str(job.attempt),
    }
    if job.started_at is not None:
        made["started_at"] = job.started_at.isoformat(timespec="seconds")
    return {name: value for name, value in made.items() if value}
