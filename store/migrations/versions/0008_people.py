"""The tables of what people see and do: the courses of all patients in short."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision: str | None = "0007"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "cohort_row",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("patient_pk", sa.Integer(), sa.ForeignKey("patient.id"), nullable=False),
        sa.Column("criteria", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("refusal", sa.String(), nullable=False),
        sa.Column("baseline", sa.Date(), nullable=True),
        sa.Column("days", sa.Integer(), nullable=False),
        sa.Column("lesions", sa.Integer(), nullable=False),
        sa.Column("best_percent", sa.Float(), nullable=True),
        sa.Column("best_overall", sa.String(), nullable=False),
        sa.Column("best_overall_confirmed", sa.String(), nullable=False),
        sa.Column("progressed", sa.Boolean(), nullable=False),
        sa.Column("verdicts", sa.String(), nullable=False),
        sa.Column("new_days", sa.String(), nullable=False),
        sa.UniqueConstraint("criteria", "patient_pk"),
    )
    op.create_index("ix_cohort_row_patient_pk", "cohort_row", ["patient_pk"])
    op.create_table(
        "upload",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("author", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("delivered", sa.Boolean(), nullable=False),
        sa.Column("association_pk", sa.Integer(), sa.ForeignKey("association.id"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("touched_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
    )
    op.create_index("ix_upload_touched_at", "upload", ["touched_at"])
    op.create_table(
        "upload_file",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("upload_pk", sa.Integer(), sa.ForeignKey("upload.id"), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("member", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("code", sa.String(), nullable=False),
        sa.Column("sentence", sa.String(), nullable=False),
        sa.Column("said", sa.String(), nullable=False),
        sa.Column("study_pk", sa.Integer(), sa.ForeignKey("study.id"), nullable=True),
        sa.Column("instance_pk", sa.Integer(), sa.ForeignKey("instance.id"), nullable=True),
        sa.UniqueConstraint("upload_pk", "number", "member"),
    )
    op.create_index("ix_upload_file_study_pk", "upload_file", ["study_pk"])
    op.create_index("ix_upload_file_instance_pk", "upload_file", ["instance_pk"])
    op.create_table(
        "asked_run",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("family", sa.String(), nullable=False),
        sa.Column("author", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("family"),
    )
    op.create_table(
        "outside_person",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("issuer", sa.String(length=255), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("account_pk", sa.Integer(), sa.ForeignKey("account.id"), nullable=False),
        sa.UniqueConstraint("issuer", "subject"),
        sa.UniqueConstraint("account_pk"),
    )
    op.create_table(
        "outside_attempt",
        sa.Column("state_sha256", sa.String(), primary_key=True),
        sa.Column("browser_sha256", sa.String(), nullable=False),
        sa.Column("nonce", sa.String(), nullable=False),
        sa.Column("verifier", sa.String(), nullable=False),
        sa.Column("then", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_outside_attempt_at", "outside_attempt", ["at"])
    op.create_table(
        "workitem",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("worklist", sa.String(), nullable=False),
        sa.Column("workitem_uid", sa.String(), nullable=False),
        sa.Column("transaction_uid", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("label", sa.String(), nullable=False),
        sa.Column("study_instance_uid", sa.String(), nullable=False),
        sa.Column("asked", sa.String(), nullable=False),
        sa.Column("content", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("progress", sa.Integer(), nullable=False),
        sa.Column("told", sa.String(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("error_code", sa.String(), nullable=True),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("run_after", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("told_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.UniqueConstraint("worklist", "workitem_uid"),
    )
    op.create_index("ix_workitem_ready", "workitem", ["state", "run_after"])
    op.create_index("ix_workitem_study_instance_uid", "workitem", ["study_instance_uid"])
    op.create_table(
        "node_process",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("roles", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("alive_at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("name"),
    )
    _park_and_run_again()


def _park_and_run_again() -> None:
    """Tell of a study that it is parked, and of a job how often it was asked for."""
    with op.batch_alter_table("study") as batch:
        batch.add_column(sa.Column("parked_at", sa.DateTime(timezone=True), nullable=True))
        batch.add_column(sa.Column("parked_by", sa.String(), nullable=True))
    with op.batch_alter_table("job") as batch:
        batch.add_column(sa.Column("run", sa.Integer(), nullable=False, server_default="0"))
    with op.batch_alter_table("job") as batch:
        batch.alter_column("run", server_default=None)


def downgrade() -> None:
    """Drop them."""
    with op.batch_alter_table("job") as batch:
        batch.drop_column("run")
    with op.batch_alter_table("study") as batch:
        batch.drop_column("parked_by")
        batch.drop_column("parked_at")
    for table in (
        "node_process",
        "workitem",
        "outside_attempt",
        "outside_person",
        "asked_run",
        "upload_file",
        "upload",
        "cohort_row",
    ):
        op.drop_table(table)
