"""The tables of what became of lesions, and of what people decided of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision: str | None = "0004"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "lesion_link",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("job_pk", sa.Integer(), sa.ForeignKey("job.id"), nullable=False),
        sa.Column("patient_pk", sa.Integer(), sa.ForeignKey("patient.id"), nullable=False),
        sa.Column("finding_pk", sa.Integer(), sa.ForeignKey("finding.id"), nullable=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("tracking_uid", sa.String(), nullable=False),
        sa.Column("tracking_identifier", sa.String(), nullable=False),
        sa.Column("earlier", sa.String(), nullable=False),
        sa.Column("earlier_study_instance_uid", sa.String(), nullable=False),
        sa.Column("confidence", sa.Float(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("expected_x_mm", sa.Float(), nullable=True),
        sa.Column("expected_y_mm", sa.Float(), nullable=True),
        sa.Column("expected_z_mm", sa.Float(), nullable=True),
        sa.Column("superseded", sa.Boolean(), nullable=False),
    )
    for column in ("job_pk", "patient_pk", "finding_pk", "tracking_uid", "superseded"):
        op.create_index(f"ix_lesion_link_{column}", "lesion_link", [column])
    op.create_table(
        "choice",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("patient_pk", sa.Integer(), sa.ForeignKey("patient.id"), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("author", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("tracking_uid", sa.String(), nullable=False),
        sa.Column("study_instance_uid", sa.String(), nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.Column("note", sa.String(), nullable=False),
    )
    for column in ("patient_pk", "tracking_uid"):
        op.create_index(f"ix_choice_{column}", "choice", [column])


def downgrade() -> None:
    """Drop them."""
    op.drop_table("choice")
    op.drop_table("lesion_link")
