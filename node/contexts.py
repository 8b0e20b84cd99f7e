"""What the storage port takes: every storage SOP class, in every transfer syntax that can be kept as it came."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom._uid_dict import UID_dictionary
from pydicom.uid import UID
from pynetdicom._globals import ALL_TRANSFER_SYNTAXES
from pynetdicom.presentation import _STORAGE_CLASSES, PresentationContext

from store.part10 import DEFLATED

VERIFICATION = "1.2.840.10008.1.1"
STORAGE_COMMITMENT = "1.2.840.10008.1.20.1"
UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")
TRANSFER_SYNTAXES = tuple(str(uid) for uid in ALL_TRANSFER_SYNTAXES if uid not in DEFLATED)
STORAGE_CLASSES = frozenset(str(uid) for uid in _STORAGE_CLASSES.values())
STORAGE_ROOTS = ("1.2.840.10008.5.1.4.1.1.", "1.2.840.10008.5.1.1.")


def is_storage_class(uid: str) -> bool:
    """Return True for storage SOP classes: the standard's, the retired, the private and those not known yet."""
    if uid in STORAGE_CLASSES:
        return True
    if uid in UID_dictionary:
        _, kind, _, _, keyword = UID_dictionary[uid]
        return kind == "SOP Class" and "Storage" in keyword and uid.startswith(STORAGE_ROOTS)
    return uid != VERIFICATION and bool(UID(uid).is_valid)


def is_sound(requested: Sequence[PresentationContext]) -> bool:
    """Return True when contexts are proposed, each with its syntaxes and a number of its own (PS3.8 9.3.2.2)."""
    numbers = {context.context_id for context in requested}
    whole = all(context.abstract_syntax and context.transfer_syntax for context in requested)
    return bool(requested) and whole and len(numbers) == len(requested)


def means_to_store(requested: Sequence[PresentationContext]) -> bool:
    """Return True when a peer proposes to send objects; an echo and a report are answered on a full disk too."""
    return any(is_storage_class(str(context.abstract_syntax)) for context in requested)


def supported_contexts(
    requested: Sequence[PresentationContext], *, storage: bool = True, commitment: bool = False
) -> list[PresentationContext]:
    """Return what is supported of what a peer proposes, its own order of transfer syntaxes kept.

    Verification; with `storage` every storage class in every transfer syntax but the deflated ones, whose size
    cannot be known beforehand; with `commitment` storage commitment in both roles.
    """
    supported: dict[str, PresentationContext] = {}
    for proposed in requested:
        uid = str(proposed.abstract_syntax)
        if uid != VERIFICATION and not (storage and is_storage_class(uid)):
            continue
        context = supported.setdefault(uid, PresentationContext())
        context.abstract_syntax = uid
        for syntax in proposed.transfer_syntax:
            if syntax in TRANSFER_SYNTAXES and syntax not in context.transfer_syntax:
                context.add_transfer_syntax(syntax)
    found = [context for context in supported.values() if context.transfer_syntax]
    return [*found, _commitment_context()] if commitment else found


def _commitment_context() -> PresentationContext:
    context = PresentationContext()
    context.abstract_syntax = STORAGE_COMMITMENT
    context.transfer_syntax = list(UNCOMPRESSED)
    context.scu_role = context.scp_role = True
    return context
