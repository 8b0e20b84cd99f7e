"""Drops indexes that repeat the beginning of another: each cost a page of every commit and answered nothing more."""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision: str | None = "0009"
branch_labels: str | None = None
depends_on: str | None = None

REPEATED = (
    ("instance", "sop_instance_uid"),
    ("revision", "study_pk"),
    ("delivery", "result_pk"),
    ("model_version", "family"),
    ("promotion", "family"),
    ("patient_side", "patient_pk"),
    ("series_fact", "job_pk"),
    ("drift_alarm", "plugin"),
)
"""Table and column: the first one of a unique constraint, whose own index is asked instead."""


def upgrade() -> None:
    """Drop them."""
    for table, column in REPEATED:
        op.drop_index(f"ix_{table}_{column}", table)


def downgrade() -> None:
    """Create them again."""
    for table, column in reversed(REPEATED):
        op.create_index(f"ix_{table}_{column}", table, [column])
