"""What fsck finds in a node and what it mends, a few minutes after the node began."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from sqlalchemy import text
from sqlmodel import select
from whole_node import START, WholeNode

from node.fsck import Looked, look, repair
from store.fsck.check import check
from store.fsck.fault import Fault
from store.tables import Instance

LATER = START + timedelta(minutes=5)


def found(node: WholeNode, *, quick: bool = False) -> list[Fault]:
    """Return what is found."""
    return check(node.database, node.objects, now=node.database.now(), quick=quick)


def codes(node: WholeNode, *, quick: bool = False) -> list[tuple[str, str]]:
    """Return invariant and code of what is found."""
    return [(fault.invariant, fault.code) for fault in found(node, quick=quick)]


def mended(node: WholeNode) -> list[Looked]:
    """Mend what can be mended, and return all that was found."""
    return repair(node.database, node.objects, look(node.database, node.objects, patience_seconds=0))


def an_object(node: WholeNode, number: int = 0) -> Path:
    """Return where an object lies."""
    with node.database.reading() as session:
        sha256 = session.exec(select(Instance.sha256).order_by(Instance.id)).all()[number]  # type: ignore[arg-type]
    return node.objects.path(sha256)


def execute(node: WholeNode, statement: str, **values: object) -> None:
    """Change rows by hand."""
    with node.database.transaction() as session:
        session.execute(text(statement), values)
