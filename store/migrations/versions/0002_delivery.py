"""The columns and tables of delivery."""

from __future__ import annotations

revision = "0002"
down_revision: str | None = "0001"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Make them."""


def downgrade() -> None:
    """Drop them."""
