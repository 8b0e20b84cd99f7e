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


def downgrade() -> None:
    """Drop them."""
    for table in ("cohort_row",):
        op.drop_table(table)
