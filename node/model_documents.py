"""The documents that a run of retraining wrote into its folder: for pages, by name, and no other file.

A later run may have gone on in the folder of one that was killed: what lies there is then its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from plugins.errors import Refused, Unavailable
from store.model_tables import TrainingRun
from store.runs import LEARNED

PLAN = "plan"
DOCUMENTS: Final = {
    "impact": "Impact assessment: champion and challenger judged on the same cases",
    "modification": "Description of modifications",
    "protocol": "Modification protocol",
}
"""The documents of a plan, in the order in which they are shown."""
NAMES: Final = frozenset(f"{kind}.{ending}" for kind in DOCUMENTS for ending in ("html", "pdf", "json"))


def documents_of(home: Path, run: TrainingRun) -> list[str]:
    """Return which documents of a run there are."""
    folder = home / run.folder / PLAN
    return [kind for kind in DOCUMENTS if _has_judged(run) and (folder / f"{kind}.html").is_file()]


def document_of(home: Path, run: TrainingRun, family: str, name: str) -> bytes:
    """Return a document of a run of this family. Refuses `no-such-document`; raises Unavailable for a disk."""
    if run.family != family or name not in NAMES or not _has_judged(run):
        raise Refused("no-such-document", f"run {run.id} of {family} has no document '{name[:32]}'")
    try:
        return (home / run.folder / PLAN / name).read_bytes()
    except FileNotFoundError:
        raise Refused("no-such-document", f"'{name}' of run {run.id} is not there any more") from None
    except OSError as error:
        raise Unavailable(f"'{name}' of run {run.id} cannot be read ({error.strerror})") from error


def _has_judged(run: TrainingRun) -> bool:
    """Return whether a run came to its end, so that the documents in its folder are its own."""
    return bool(run.folder) and run.state in LEARNED


__all__ = ["DOCUMENTS", "document_of", "documents_of"]
