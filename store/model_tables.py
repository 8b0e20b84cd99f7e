"""The SQL tables of what models learned from, which of them counts, and what was seen of their use."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import UniqueConstraint
from sqlmodel import Field, SQLModel

from store.tables import UtcDateTime


class TrainingRun(SQLModel, table=True):
    """One run of retraining, from collecting to a proposal or the reason against one. Written by `store.runs`."""

    __tablename__ = "training_run"
    id: int | None = Field(default=None, primary_key=True)
    family: str = Field(index=True, description="which model by its purpose: `nodule_segmenter`")
    slot: str | None = Field(
        default=None,
        unique=True,
        description="the family while the run goes on, so that there is one at a time",
    )
    state: str = Field(description="a `store.runs.State`")
    owner: str = Field(description="host and process that runs it")
    lease_until: datetime | None = Field(default=None, sa_type=UtcDateTime)
    begun_at: datetime = Field(sa_type=UtcDateTime)
    ended_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    folder: str = Field(default="", description="relative to the home folder")
    labels: int = Field(default=0, description="masks of people that it could learn from")
    new_labels: int = Field(default=0, description="of them those that no earlier finished run had")
    data_sha256: str = Field(default="", description="hash of the frozen manifest that was learned from")
    judged_sha256: str = Field(default="", description="hash of the frozen manifest that was judged on")
    champion_sha256: str = Field(
        default="", description="manifest hash of the model that it was held against"
    )
    said: str = Field(default="", description="what is being done, then how it ended, in sentences")


class ModelVersion(SQLModel, table=True):
    """A model that was made here, with what is needed to make it again. Written by `store.registry`."""

    __tablename__ = "model_version"
    __table_args__ = (UniqueConstraint("family", "number"),)
    id: int | None = Field(default=None, primary_key=True)
    family: str
    number: int = Field(description="from 1 in its family")
    version: str = Field(description="as the manifest says it")
    manifest_sha256: str = Field(unique=True, description="what vouches for every file of the model")
    folder: str = Field(description="relative to the home folder")
    run_pk: int | None = Field(default=None, foreign_key="training_run.id")
    champion_sha256: str = Field(
        default="", description="manifest hash of the model that it was judged against"
    )
    is_proposed: bool = Field(description="whether the gate let it pass: only then may it be approved")
    because: str = Field(description="what the gate said, in sentences")
    data_sha256: str = Field(description="hash of the manifest that it learned from")
    judged_sha256: str = Field(description="hash of the manifest that it was judged on")
    source_commit: str = Field(default="", description="commit of the code that made it")
    environment: str = Field(default="", description="versions of what computed")
    seeds: str = Field(default="", description="JSON")
    figures: str = Field(default="{}", description="JSON: what the gate looked at")
    made_at: datetime = Field(sa_type=UtcDateTime)


class Promotion(SQLModel, table=True):
    """Append-only: which model of a family counts from now on; the newest row counts. Written by `store.registry`."""

    __table_args__ = (UniqueConstraint("family", "number"),)
    id: int | None = Field(default=None, primary_key=True)
    family: str
    number: int = Field(description="from 1 in its family: of two at one time one fails")
    kind: str = Field(description="approve or rollback")
    manifest_sha256: str = Field(
        description="the model that counts; empty for the one that comes with the release"
    )
    at: datetime = Field(sa_type=UtcDateTime)
    author: str = Field(description="who, in words for people")
    note: str = ""


class PatientSide(SQLModel, table=True):
    """Append-only: on which side of learning and judging a person stands. Written by `store.sides`."""

    __tablename__ = "patient_side"
    __table_args__ = (UniqueConstraint("patient_pk", "number"),)
    id: int | None = Field(default=None, primary_key=True)
    patient_pk: int = Field(foreign_key="patient.id")
    number: int = Field(description="from 1 for this patient; the newest counts")
    side: str = Field(description="learn, judge, or neither once both were true of one person")
    at: datetime = Field(sa_type=UtcDateTime)
    because: str = Field(description="in words")


class Lease(SQLModel, table=True):
    """Who alone does something at a time: the scheduler. Written by `store.leases`."""

    name: str = Field(primary_key=True)
    owner: str
    until: datetime = Field(sa_type=UtcDateTime)


class ScheduledJob(SQLModel, table=True):
    """What the scheduler will start, and when next. Written by `node.schedule_store`."""

    __tablename__ = "scheduled_job"
    id: str = Field(primary_key=True, max_length=191, description="what and of which family")
    next_run_time: float | None = Field(default=None, index=True, description="POSIX seconds")
    job_state: bytes = Field(description="JSON: the times that it comes at, and their zone")


class SeriesFact(SQLModel, table=True):
    """What a series was like that an analysis looked at: drift is seen in it. Written by `store.findings`."""

    __tablename__ = "series_fact"
    __table_args__ = (UniqueConstraint("job_pk", "series_instance_uid"),)
    id: int | None = Field(default=None, primary_key=True)
    job_pk: int = Field(foreign_key="job.id")
    series_instance_uid: str
    at: datetime = Field(sa_type=UtcDateTime, index=True)
    plugin: str = Field(index=True)
    model_sha256: str
    modality: str = ""
    manufacturer: str = ""
    manufacturer_model_name: str = ""
    convolution_kernel: str = ""
    slice_distance_mm: float
    pixel_spacing_mm: float
    slices: int
    unit: str = Field(description="UCUM code of the voxels")
    histogram: str = Field(
        description="JSON list of shares between the edges of `store.facts.EDGES` for the unit"
    )


class FindingDoubt(SQLModel, table=True):
    """How unsure the networks were of a finding: numbers that grow with doubt. Written by `store.findings`."""

    __tablename__ = "finding_doubt"
    id: int | None = Field(default=None, primary_key=True)
    finding_pk: int = Field(foreign_key="finding.id", index=True)
    name: str = Field(description="a field of `models.uncertainty.CaseUncertainty`")
    value: float


class DriftAlarm(SQLModel, table=True):
    """Append-only: that something of a week is not as it was. Written by `store.drifts`."""

    __tablename__ = "drift_alarm"
    __table_args__ = (UniqueConstraint("plugin", "week", "what"),)
    id: int | None = Field(default=None, primary_key=True)
    plugin: str
    week: str = Field(description="ISO week: 2026-W47")
    what: str = Field(description="the quantity: `convolution_kernel`, `volume`")
    statistic: str = Field(description="PSI or KS")
    value: float
    limit: float
    sentence: str
    at: datetime = Field(sa_type=UtcDateTime)
