"""Indexes for what is asked each second (studies that are being received) and at each start (results by hash)."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision: str | None = "0010"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Create them."""
    receiving = sa.text("state = 'receiving'")
    op.create_index(
        "ix_study_receiving",
        "study",
        ["first_arrival_at"],
        sqlite_where=receiving,
        postgresql_where=receiving,
    )
    op.create_index("ix_result_sha256", "result", ["sha256"])


def downgrade() -> None:
    """Drop them."""
    op.drop_index("ix_result_sha256", "result")
    op.drop_index("ix_study_receiving", "study")
