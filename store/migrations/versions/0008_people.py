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


def downgrade() -> None:
    """Drop them."""
    for table in (
        "upload_file",
        "upload",
        "cohort_row",
    ):
        op.drop_table(table)
