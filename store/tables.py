"""Every SQL table, one class each. The rows are the truth; files on disk are named by them."""

from __future__ import annotations

from datetime import UTC, date, datetime

from sqlalchemy import BigInteger, DateTime, Index, TypeDecorator, UniqueConstraint, text
from sqlalchemy.engine import Dialect
from sqlmodel import Field, SQLModel

IS_RECEIVING = text("state = 'receiving'")


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime, also on SQLite, which keeps none."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse a naive datetime; keep the rest as UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("datetimes are aware UTC; this one is naive")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give back aware UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Patient(SQLModel, table=True):
    """A patient as one source knows them. Nothing joins on the name."""

    __table_args__ = (UniqueConstraint("issuer", "patient_id"),)
    id: int | None = Field(default=None, primary_key=True)
    issuer: str = Field(default="", description="IssuerOfPatientID, or empty")
    patient_id: str = Field(description="PatientID as received")
    patient_name: str = ""
    patient_sex: str = ""
    patient_birth_date: date | None = None


class Study(SQLModel, table=True):
    """A study and where it stands on the way to being settled."""

    __table_args__ = (
        # Of those alone that are being received: an index of every state would lead SQLite away from the newest ones.
        # Migration 0011 says so to PostgreSQL too; here that would load its dialect into every listener.
        Index("ix_study_receiving", "first_arrival_at", sqlite_where=IS_RECEIVING),
    )
    id: int | None = Field(default=None, primary_key=True)
    patient_pk: int = Field(foreign_key="patient.id", index=True)
    study_instance_uid: str = Field(unique=True)
    study_date: date | None = None
    study_time: str = Field(default="", description="HHMMSS as far as it is told; empty when it is not")
    study_description: str = ""
    accession_number: str = ""
    state: str = Field(default="receiving", description="receiving or settled")
    revision: int = Field(default=0, description="number of the latest settled revision; 0 before the first")
    first_arrival_at: datetime = Field(
        sa_type=UtcDateTime, description="first new content since it last settled"
    )
    last_arrival_at: datetime = Field(sa_type=UtcDateTime, index=True, description="latest new content")
    settle_now: bool = Field(default=False, description="a trusted source says that the study is whole")
    prior: bool = Field(
        default=False,
        description="True while it is here only as a patient's earlier study, or by our own results: never analysed",
    )
    parked_at: datetime | None = Field(
        default=None, sa_type=UtcDateTime, description="since when a person wants nothing of it analysed"
    )
    parked_by: str | None = Field(default=None, description="who, in words for people")


class Series(SQLModel, table=True):
    """A series of a study."""

    id: int | None = Field(default=None, primary_key=True)
    study_pk: int = Field(foreign_key="study.id", index=True)
    series_instance_uid: str = Field(unique=True)
    modality: str = ""
    series_number: int | None = None
    series_description: str = ""
    frame_of_reference_uid: str = ""


class Instance(SQLModel, table=True):
    """One encoding of one instance: key (SOP Instance UID, sha256 of the file)."""

    __table_args__ = (UniqueConstraint("sop_instance_uid", "sha256"),)
    id: int | None = Field(default=None, primary_key=True)
    series_pk: int = Field(foreign_key="series.id", index=True)
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    sha256: str = Field(index=True)
    size_bytes: int = Field(sa_type=BigInteger)
    received_at: datetime = Field(sa_type=UtcDateTime)
    source: str = Field(description="AE@address or URL that it came from")
    current: bool = Field(default=True, description="False once other content came under the same UID")
    own: bool = Field(
        default=False, description="True for a result of Nadir's that came back; never analysed"
    )


class Association(SQLModel, table=True):
    """A DICOM association while it is open; closed or silent ones do not hold a study back."""

    id: int | None = Field(default=None, primary_key=True)
    calling_ae: str
    address: str
    opened_at: datetime = Field(sa_type=UtcDateTime)
    alive_at: datetime = Field(sa_type=UtcDateTime)
    closed_at: datetime | None = Field(default=None, sa_type=UtcDateTime, index=True)


class AssociationStudy(SQLModel, table=True):
    """That an association touched a study."""

    __tablename__ = "association_study"
    association_pk: int = Field(foreign_key="association.id", primary_key=True)
    study_pk: int = Field(foreign_key="study.id", primary_key=True, index=True)


class Revision(SQLModel, table=True):
    """What a study held when it settled: the manifest that results are computed from."""

    __table_args__ = (UniqueConstraint("study_pk", "number"),)
    id: int | None = Field(default=None, primary_key=True)
    study_pk: int = Field(foreign_key="study.id")
    number: int
    manifest_sha256: str = Field(index=True)
    settled_at: datetime = Field(sa_type=UtcDateTime)
    forced: bool = Field(default=False, description="settled by the hard cap, perhaps incomplete")


class RevisionInstance(SQLModel, table=True):
    """One line of a manifest."""

    __tablename__ = "revision_instance"
    revision_pk: int = Field(foreign_key="revision.id", primary_key=True)
    instance_pk: int = Field(foreign_key="instance.id", primary_key=True)


class Job(SQLModel, table=True):
    """One plugin on one study revision. Written by `store.jobs`, `store.parking` and `store.succession`."""

    __table_args__ = (Index("ix_job_ready", "state", "run_after", "id"),)
    id: int | None = Field(default=None, primary_key=True)
    revision_pk: int = Field(foreign_key="revision.id", index=True)
    key: str = Field(
        unique=True, description="sha256(manifest, plugin, version, model hash, configuration hash, run)"
    )
    run: int = Field(default=0, description="how often the same work had been asked for before")
    plugin: str
    plugin_version: str
    model_sha256: str
    config_sha256: str
    state: str
    attempt: int = 0
    max_attempts: int = 5
    run_after: datetime = Field(sa_type=UtcDateTime)
    lease_until: datetime | None = Field(default=None, sa_type=UtcDateTime)
    owner: str | None = None
    error_code: str | None = None
    error_text: str | None = None
    created_at: datetime = Field(sa_type=UtcDateTime)
    started_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    finished_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class Refusal(SQLModel, table=True):
    """Something that a job did not accept, or a doubt it told, with its code and sentence."""

    id: int | None = Field(default=None, primary_key=True)
    job_pk: int = Field(foreign_key="job.id", index=True)
    code: str
    sentence: str
    series_instance_uid: str | None = None
    refused: bool = Field(
        description="True when it was refused, False when it is a flag on something accepted"
    )


class Finding(SQLModel, table=True):
    """One lesion or region found by a job."""

    id: int | None = Field(default=None, primary_key=True)
    job_pk: int = Field(foreign_key="job.id", index=True)
    study_pk: int = Field(foreign_key="study.id", index=True)
    patient_pk: int = Field(foreign_key="patient.id", index=True)
    series_instance_uid: str
    label: str
    tracking_identifier: str
    tracking_uid: str = Field(index=True)
    before_uid: str = Field(
        default="", description="Tracking UID without what a person relinked, where he did"
    )
    segment_number: int
    category_value: str
    category_scheme: str
    category_meaning: str
    type_value: str
    type_scheme: str
    type_meaning: str
    site_value: str | None = None
    site_scheme: str | None = None
    site_meaning: str | None = None
    laterality_meaning: str | None = None
    confidence: float | None = None
    automatic: bool = True
    centroid_x_mm: float
    centroid_y_mm: float
    centroid_z_mm: float
    superseded: bool = Field(default=False, index=True, description="True once a newer revision has results")


class Measurement(SQLModel, table=True):
    """One number with unit, concept, method and provenance."""

    id: int | None = Field(default=None, primary_key=True)
    finding_pk: int = Field(foreign_key="finding.id", index=True)
    name: str = Field(index=True)
    concept_value: str
    concept_scheme: str
    concept_meaning: str
    value: float
    unit: str = Field(description="UCUM code")
    method: str
    derivation_meaning: str | None = None
    uncertainty: float | None = None
    x1_mm: float | None = None
    y1_mm: float | None = None
    z1_mm: float | None = None
    x2_mm: float | None = None
    y2_mm: float | None = None
    z2_mm: float | None = None
    sop_instance_uid: str | None = Field(default=None, description="image on which the end points lie")
    plugin: str
    plugin_version: str
    model_sha256: str


class LesionLink(SQLModel, table=True):
    """What became of a lesion from an earlier time point to this one, as the tracking decided it."""

    __tablename__ = "lesion_link"
    id: int | None = Field(default=None, primary_key=True)
    job_pk: int = Field(foreign_key="job.id", index=True)
    patient_pk: int = Field(foreign_key="patient.id", index=True)
    finding_pk: int | None = Field(default=None, foreign_key="finding.id", index=True)
    kind: str = Field(description="a `store.tracking.link.Kind`")
    tracking_uid: str = Field(index=True)
    tracking_identifier: str
    earlier: str = Field(description="JSON list of the Tracking UIDs of what it was before")
    earlier_study_instance_uid: str = Field(default="", description="the study it was compared with")
    confidence: float
    reason: str
    expected_x_mm: float | None = None
    expected_y_mm: float | None = None
    expected_z_mm: float | None = None
    superseded: bool = Field(default=False, index=True, description="as that of the findings of its job")


class Choice(SQLModel, table=True):
    """Append-only: what a person decided of a lesion; the newest of a kind counts. Only `store.choices` writes it."""

    id: int | None = Field(default=None, primary_key=True)
    patient_pk: int = Field(foreign_key="patient.id", index=True)
    at: datetime = Field(sa_type=UtcDateTime)
    author: str = Field(description="who, in words for people")
    source: str = Field(description="command, page, or the SOP Instance UID of the object that told it")
    kind: str = Field(description="a key of `store.choices.VALUES`")
    tracking_uid: str = Field(index=True, description="the lesion as it was called when it was decided")
    study_instance_uid: str = Field(default="", description="the visit it speaks of; empty for all of them")
    value: str = Field(description="the other Tracking UID, target, non-target, new, true, absent, ...")
    note: str = ""


class PatientMerge(SQLModel, table=True):
    """Append-only: that a patient is another one; the newest counts. Only `store.patients` writes it."""

    __tablename__ = "patient_merge"
    id: int | None = Field(default=None, primary_key=True)
    patient_pk: int = Field(foreign_key="patient.id", index=True)
    into_pk: int | None = Field(
        default=None, foreign_key="patient.id", description="the patient that it is; None: parted again"
    )
    at: datetime = Field(sa_type=UtcDateTime)
    author: str = Field(description="who, in words for people")
    note: str = ""


class Result(SQLModel, table=True):
    """A DICOM object that Nadir wrote; its bytes are in the object store."""

    id: int | None = Field(default=None, primary_key=True)
    job_pk: int = Field(foreign_key="job.id", index=True)
    kind: str = Field(description="seg, sr-volumetric, sr-planar, capture or pdf")
    sop_instance_uid: str = Field(unique=True)
    sop_class_uid: str
    series_instance_uid: str
    sha256: str = Field(index=True)
    size_bytes: int = Field(sa_type=BigInteger)
    created_at: datetime = Field(sa_type=UtcDateTime)


class Delivery(SQLModel, table=True):
    """The outbox: one result to one destination. Only `store.outbox` writes it."""

    __table_args__ = (
        UniqueConstraint("result_pk", "destination"),
        Index("ix_delivery_ready", "destination", "state", "run_after"),
    )
    id: int | None = Field(default=None, primary_key=True)
    result_pk: int = Field(foreign_key="result.id")
    job_pk: int = Field(foreign_key="job.id", index=True)
    destination: str = Field(description="AE@host:port or DICOMweb URL, without user and password")
    state: str = Field(
        default="pending",
        description="pending, sending, delivered, confirmed, parked, superseded or abandoned",
    )
    attempt: int = 0
    run_after: datetime = Field(sa_type=UtcDateTime)
    lease_until: datetime | None = Field(default=None, sa_type=UtcDateTime)
    owner: str | None = None
    last_status: str | None = Field(default=None, description="last DICOM or HTTP status, as text")
    last_error: str | None = None
    refusals: int = Field(default=0, description="permanent refusals in a row; parked at three")
    give_up_at: datetime = Field(sa_type=UtcDateTime, description="parked at the first failure after this")
    created_at: datetime = Field(sa_type=UtcDateTime)
    delivered_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    confirm_after: datetime | None = Field(
        default=None, sa_type=UtcDateTime, description="when to ask next whether it is kept; None for never"
    )
    confirm_attempt: int = Field(default=0, description="how often that was asked since it was delivered")
    confirm_error: str | None = Field(default=None, description="why it is not confirmed yet")
    transaction_uid: str | None = Field(
        default=None, index=True, description="Transaction UID of the last storage commitment request"
    )
    asked_at: datetime | None = Field(
        default=None, sa_type=UtcDateTime, description="since when it is asked for so; None once that is over"
    )
    confirmed_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    confirmed_by: str | None = Field(default=None, description="commitment or query")
    resends: int = Field(default=0, description="how often it was sent again because it was not kept")
    abandoned_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class Commitment(SQLModel, table=True):
    """A storage commitment request of a scanner, until it is answered. Only `store.commitment` writes it."""

    __table_args__ = (UniqueConstraint("transaction_uid", "requestor"),)
    id: int | None = Field(default=None, primary_key=True)
    transaction_uid: str
    requestor: str = Field(description="AE@host:port that the answer goes to")
    references: str = Field(description="JSON list of [SOP Class UID, SOP Instance UID]")
    state: str = Field(default="waiting", index=True, description="waiting, answered or given-up")
    attempt: int = 0
    run_after: datetime = Field(sa_type=UtcDateTime)
    requested_at: datetime = Field(
        sa_type=UtcDateTime, description="later by the time in which nobody tried to answer"
    )
    answered_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    last_error: str | None = None


class Pull(SQLModel, table=True):
    """A study that the PACS says it holds: asked for until the node has it. Written by `node.pull`, `store.pulls`."""

    study_instance_uid: str = Field(primary_key=True)
    state: str = Field(default="waiting", index=True, description="waiting, pulled or parked")
    requests: int = Field(
        default=1, description="how often it was told; a pull ends only the telling it began with"
    )
    everything: bool = Field(
        default=False, description="also fetch what is held already: its content may differ"
    )
    attempt: int = Field(default=0, description="failed attempts since the last telling")
    run_after: datetime = Field(sa_type=UtcDateTime)
    requested_at: datetime = Field(sa_type=UtcDateTime)
    pulled_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    error_code: str | None = None
    error_text: str | None = None


class Event(SQLModel, table=True):
    """Append-only: what happened that an administrator may ask for (conflict, quarantine, rejected caller)."""

    id: int | None = Field(default=None, primary_key=True)
    at: datetime = Field(sa_type=UtcDateTime, index=True)
    kind: str = Field(index=True)
    subject: str = Field(
        default="", description="our own identifier of what it speaks of: sha256, study id, AE title"
    )
    text: str = ""
