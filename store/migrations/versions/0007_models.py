"""The tables of models that were made here, of runs of training, and of what was seen of their use."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision: str | None = "0006"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "training_run",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("family", sa.String(), nullable=False),
        sa.Column("slot", sa.String(), nullable=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("begun_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("folder", sa.String(), nullable=False),
        sa.Column("labels", sa.Integer(), nullable=False),
        sa.Column("new_labels", sa.Integer(), nullable=False),
        sa.Column("data_sha256", sa.String(), nullable=False),
        sa.Column("judged_sha256", sa.String(), nullable=False),
        sa.Column("champion_sha256", sa.String(), nullable=False),
        sa.Column("said", sa.String(), nullable=False),
        sa.UniqueConstraint("slot"),
    )
    op.create_index("ix_training_run_family", "training_run", ["family"])
    op.create_table(
        "model_version",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("family", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("manifest_sha256", sa.String(), nullable=False),
        sa.Column("folder", sa.String(), nullable=False),
        sa.Column("run_pk", sa.Integer(), sa.ForeignKey("training_run.id"), nullable=True),
        sa.Column("champion_sha256", sa.String(), nullable=False),
        sa.Column("is_proposed", sa.Boolean(), nullable=False),
        sa.Column("because", sa.String(), nullable=False),
        sa.Column("data_sha256", sa.String(), nullable=False),
        sa.Column("judged_sha256", sa.String(), nullable=False),
        sa.Column("source_commit", sa.String(), nullable=False),
        sa.Column("environment", sa.String(), nullable=False),
        sa.Column("seeds", sa.String(), nullable=False),
        sa.Column("figures", sa.String(), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("family", "number"),
        sa.UniqueConstraint("manifest_sha256"),
    )
    op.create_index("ix_model_version_family", "model_version", ["family"])
    op.create_table(
        "promotion",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("family", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("manifest_sha256", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("author", sa.String(), nullable=False),
        sa.Column("note", sa.String(), nullable=False),
        sa.UniqueConstraint("family", "number"),
    )
    op.create_index("ix_promotion_family", "promotion", ["family"])
    op.create_table(
        "patient_side",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("patient_pk", sa.Integer(), sa.ForeignKey("patient.id"), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("side", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("because", sa.String(), nullable=False),
        sa.UniqueConstraint("patient_pk", "number"),
    )
    op.create_index("ix_patient_side_patient_pk", "patient_side", ["patient_pk"])
    op.create_table(
        "lease",
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "scheduled_job",
        sa.Column("id", sa.String(length=191), primary_key=True),
        sa.Column("next_run_time", sa.Float(), nullable=True),
        sa.Column("job_state", sa.LargeBinary(), nullable=False),
    )
    op.create_index("ix_scheduled_job_next_run_time", "scheduled_job", ["next_run_time"])
    op.create_table(
        "series_fact",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("job_pk", sa.Integer(), sa.ForeignKey("job.id"), nullable=False),
        sa.Column("series_instance_uid", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("plugin", sa.String(), nullable=False),
        sa.Column("model_sha256", sa.String(), nullable=False),
        sa.Column("modality", sa.String(), nullable=False),
        sa.Column("manufacturer", sa.String(), nullable=False),
        sa.Column("manufacturer_model_name", sa.String(), nullable=False),
        sa.Column("convolution_kernel", sa.String(), nullable=False),
        sa.Column("slice_distance_mm", sa.Float(), nullable=False),
        sa.Column("pixel_spacing_mm", sa.Float(), nullable=False),
        sa.Column("slices", sa.Integer(), nullable=False),
        sa.Column("unit", sa.String(), nullable=False),
        sa.Column("histogram", sa.String(), nullable=False),
        sa.UniqueConstraint("job_pk", "series_instance_uid"),
    )
    op.create_index("ix_series_fact_at", "series_fact", ["at"])
    op.create_index("ix_series_fact_job_pk", "series_fact", ["job_pk"])
    op.create_index("ix_series_fact_plugin", "series_fact", ["plugin"])
    op.create_table(
        "finding_doubt",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("finding_pk", sa.Integer(), sa.ForeignKey("finding.id"), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
    )
    op.create_index("ix_finding_doubt_finding_pk", "finding_doubt", ["finding_pk"])
    op.create_table(
        "drift_alarm",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("plugin", sa.String(), nullable=False),
        sa.Column("week", sa.String(), nullable=False),
        sa.Column("what", sa.String(), nullable=False),
        sa.Column("statistic", sa.String(), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.Column("limit", sa.Float(), nullable=False),
        sa.Column("sentence", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("plugin", "week", "what"),
    )
    op.create_index("ix_drift_alarm_plugin", "drift_alarm", ["plugin"])


def downgrade() -> None:
    """Drop them."""
    for table in (
        "drift_alarm",
        "finding_doubt",
        "series_fact",
        "scheduled_job",
        "lease",
        "patient_side",
        "promotion",
        "model_version",
        "training_run",
    ):
        op.drop_table(table)
