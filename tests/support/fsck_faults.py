"""What fsck finds in a node and what it mends, a few minutes after the node began."""

from __future__ import annotations

from datetime import timedelta

from whole_node import START, WholeNode

from node.fsck import Looked, look, repair
from store.fsck.check import check
from store.fsck.fault import Fault

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
