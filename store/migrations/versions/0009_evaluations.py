"""Kept evaluations; what a relink stood on, the time of a study, the hash of a file of an upload."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision: str | None = "0008"
branch_labels: str | None = None
depends_on: str | None = None

ADDED = (("upload_file", "sha256"), ("finding", "before_uid"), ("study", "study_time"))
"""Texts that rows from before have not."""


def upgrade() -> None:
    """Create the table and add the columns, empty."""
    op.create_table(
        "kept_evaluation",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("family", sa.String(), nullable=False),
        sa.Column("manifest_sha256", sa.String(), nullable=False),
        sa.Column("data_name", sa.String(), nullable=False),
        sa.Column("data_sha256", sa.String(), nullable=False),
        sa.Column("cases", sa.Integer(), nullable=False),
        sa.Column("patients", sa.Integer(), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kept_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("author", sa.String(), nullable=False),
        sa.Column("folder", sa.String(), nullable=False),
        sa.Column("kept_sha256", sa.String(), nullable=False),
    )
    op.create_index("ix_kept_evaluation_manifest_sha256", "kept_evaluation", ["manifest_sha256"])
    for table, column in ADDED:
        with op.batch_alter_table(table) as batch:
            batch.add_column(sa.Column(column, sa.String(), nullable=False, server_default=""))
        with op.batch_alter_table(table) as batch:
            batch.alter_column(column, server_default=None)


def downgrade() -> None:
    """Drop them."""
    for table, column in reversed(ADDED):
        with op.batch_alter_table(table) as batch:
            batch.drop_column(column)
    op.drop_table("kept_evaluation")
