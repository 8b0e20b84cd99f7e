"""The table of patients that an administrator declared to be the same."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision: str | None = "0005"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Make it."""
    op.create_table(
        "patient_merge",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("patient_pk", sa.Integer(), sa.ForeignKey("patient.id"), nullable=False),
        sa.Column("into_pk", sa.Integer(), sa.ForeignKey("patient.id"), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("author", sa.String(), nullable=False),
        sa.Column("note", sa.String(), nullable=False),
    )
    op.create_index("ix_patient_merge_patient_pk", "patient_merge", ["patient_pk"])


def downgrade() -> None:
    """Drop it."""
    op.drop_table("patient_merge")
