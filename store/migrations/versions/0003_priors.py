"""Earlier studies: which are here only as such, which are asked for, and which were found."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision: str | None = "0002"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Make the two lists and the flag; a study of which only our own results came is no more than a prior."""
    with op.batch_alter_table("study") as batch:
        batch.add_column(sa.Column("prior", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.execute("UPDATE study SET prior = true WHERE state = 'settled' AND revision = 0")
    with op.batch_alter_table("study") as batch:
        batch.alter_column("prior", server_default=None)
    op.create_table(
        "prior_search",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_pk", sa.Integer(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        *_progress(),
        sa.ForeignKeyConstraint(["study_pk"], ["study.id"], name=op.f("fk_prior_search_study_pk")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_prior_search")),
        sa.UniqueConstraint("study_pk", "source", name=op.f("uq_prior_search_study_pk_source")),
    )
    op.create_index("ix_prior_search_ready", "prior_search", ["state", "run_after"], unique=False)
    op.create_table(
        "prior",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("search_pk", sa.Integer(), nullable=False),
        sa.Column("study_instance_uid", sa.String(), nullable=False),
        *_progress(),
        sa.ForeignKeyConstraint(["search_pk"], ["prior_search.id"], name=op.f("fk_prior_search_pk")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_prior")),
        sa.UniqueConstraint(
            "search_pk", "study_instance_uid", name=op.f("uq_prior_search_pk_study_instance_uid")
        ),
    )
    op.create_index("ix_prior_ready", "prior", ["state", "run_after"], unique=False)
    op.create_index(op.f("ix_prior_study_instance_uid"), "prior", ["study_instance_uid"], unique=False)


def downgrade() -> None:
    """Drop them."""
    op.drop_table("prior")
    op.drop_table("prior_search")
    with op.batch_alter_table("study") as batch:
        batch.drop_column("prior")


def _progress() -> list[sa.Column[object]]:
    return [
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("run_after", sa.DateTime(timezone=True), nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("done_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error_code", sa.String(), nullable=True),
        sa.Column("error_text", sa.String(), nullable=True),
    ]
