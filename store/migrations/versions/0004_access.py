"""The columns and tables of access."""

from __future__ import annotations

revision = "0004"
down_revision: str | None = "0003"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Make them."""


def downgrade() -> None:
    """Drop them."""
