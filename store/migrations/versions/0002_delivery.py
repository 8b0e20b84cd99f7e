"""What is known of a delivery after the destination has answered; passwords go out of the destinations."""

from __future__ import annotations

import re
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision: str | None = "0001"
branch_labels: str | None = None
depends_on: str | None = None

CREDENTIALS = re.compile(r"(?<=:)//[^/@]*@")
COLUMNS: tuple[tuple[str, Any, bool], ...] = (
    ("confirm_after", sa.DateTime(timezone=True), True),
    ("confirm_attempt", sa.Integer(), False),
    ("confirm_error", sa.String(), True),
    ("transaction_uid", sa.String(), True),
    ("asked_at", sa.DateTime(timezone=True), True),
    ("confirmed_at", sa.DateTime(timezone=True), True),
    ("confirmed_by", sa.String(), True),
    ("resends", sa.Integer(), False),
    ("abandoned_at", sa.DateTime(timezone=True), True),
)


def upgrade() -> None:
    """Add the columns, and key every delivery by its destination without user and password."""
    if op.get_bind().dialect.name == "sqlite":  # else what was overwritten stays readable in free pages
        op.execute("PRAGMA secure_delete = ON")
    with op.batch_alter_table("delivery") as table:
        for name, kind, nullable in COLUMNS:
            table.add_column(
                sa.Column(name, kind, nullable=nullable, server_default=None if nullable else "0")
            )
    with op.batch_alter_table("delivery") as table:
        for name, _, nullable in COLUMNS:
            if not nullable:
                table.alter_column(name, server_default=None)
        table.create_index(op.f("ix_delivery_transaction_uid"), ["transaction_uid"], unique=False)
    _forget_passwords()
    _commitment()


def downgrade() -> None:
    """Drop them; the passwords do not come back."""
    op.drop_table("commitment")
    with op.batch_alter_table("delivery") as table:
        table.drop_index(op.f("ix_delivery_transaction_uid"))
        for name, _, _ in COLUMNS:
            table.drop_column(name)


def _forget_passwords() -> None:
    """Rename the destinations; of two rows of one result that become the same, the one that came further stays."""
    connection = op.get_bind()
    delivery = sa.table("delivery", *map(sa.column, ("id", "result_pk", "destination", "state")))
    order = sa.case((delivery.c.state == "delivered", 0), else_=1)
    rows = connection.execute(
        sa.select(delivery.c.id, delivery.c.result_pk, delivery.c.destination)
        .where(delivery.c.destination.like("%://%"))
        .order_by(order, delivery.c.id.desc())
    ).all()
    kept: set[tuple[int, str]] = set()
    renamed: list[tuple[int, str]] = []
    for row in rows:
        bare = CREDENTIALS.sub("//", row.destination, count=1).rstrip("/")
        if (row.result_pk, bare) in kept:
            connection.execute(sa.delete(delivery).where(delivery.c.id == row.id))
        elif bare != row.destination:
            renamed.append((row.id, bare))
        kept.add((row.result_pk, bare))
    for number, bare in renamed:
        connection.execute(sa.update(delivery).where(delivery.c.id == number).values(destination=bare))


def _commitment() -> None:
    op.create_table(
        "commitment",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("transaction_uid", sa.String(), nullable=False),
        sa.Column("requestor", sa.String(), nullable=False),
        sa.Column("references", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("run_after", sa.DateTime(timezone=True), nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commitment")),
        sa.UniqueConstraint(
            "transaction_uid", "requestor", name=op.f("uq_commitment_transaction_uid_requestor")
        ),
    )
    op.create_index(op.f("ix_commitment_state"), "commitment", ["state"], unique=False)
