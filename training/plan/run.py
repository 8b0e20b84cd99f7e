"""A run of retraining as the impact assessment tells it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sqlmodel import Session

from plugins.errors import Refused
from store import runs
from store.model_tables import ModelVersion
from store.registry import versions
from training.challenge import CHALLENGE, Shown, read_challenge
from training.frozen import JUDGE, LEARN, MANIFEST
from training.manifest import DataManifest, read_manifest
from training.verdict import Verdict

JUDGED = "challenge"
"""Where a run keeps what documents need, in its folder."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ToldRun:
    """What came of a run."""

    number: int
    """Its number."""
    state: str
    """How it ended, or where it stands."""
    said: str
    """In sentences."""
    labels: int
    """Masks of people that it could learn from."""
    new_labels: int
    """Of them those that no earlier finished run had."""
    earlier: int
    """Challengers of the family that were judged before."""
    champion_sha256: str
    """Manifest hash of the model that it was held against; empty when it did not come so far."""
    learned: DataManifest | None = None
    """The frozen cases that it learned from."""
    judged: DataManifest | None = None
    """The frozen hold-out."""
    verdict: Verdict | None = None
    """What the gate said; None when the run did not end with it."""
    shown: tuple[Shown, ...] = ()
    """Cases that changed most."""
    challenger: Mapping[str, str] = field(default_factory=dict)
    """Version, hash, commit, environment and seeds of the model that was made."""


def told_run(session: Session, home: Path, family: str, number: int) -> ToldRun:
    """Return what came of a run, from its row, the registry and its folder.

    Only a run that ended with a verdict is told with one: a later run may have gone on in the folder of a killed one.
    Refuses `no-such-run` (none of this number, or of another family), and what is there of its files and is not whole.
    """
    row = runs.get(session, number)
    if row.family != family:
        raise Refused("no-such-run", f"run {number} is one of {row.family}, not of {family}")
    folder = home / row.folder
    judged = row.state in runs.LEARNED and (folder / JUDGED / CHALLENGE).is_file()
    verdict, shown = read_challenge(folder / JUDGED) if judged else (None, ())
    made = next((one for one in versions(session, family) if one.run_pk == number), None)
    before = [one.id for one in runs.list_runs(session, family, runs.LEARNED) if (one.id or 0) < number]
    return ToldRun(
        number=number,
        state=row.state,
        said=row.said,
        labels=row.labels,
        new_labels=row.new_labels,
        earlier=len(before),
        champion_sha256=row.champion_sha256,
        learned=_manifest(folder / LEARN / MANIFEST),
        judged=_manifest(folder / JUDGE / MANIFEST),
        verdict=verdict,
        shown=shown,
        challenger={} if made is None else _told(made),
    )


def _manifest(path: Path) -> DataManifest | None:
    return read_manifest(path) if path.is_file() else None


def _told(made: ModelVersion) -> dict[str, str]:
    return {
        "number": str(made.number),
        "version": made.version,
        "sha256": made.manifest_sha256,
        "commit": made.source_commit or "not known",
        "environment": made.environment or "not known",
        "seeds": made.seeds,
    }


__all__ = ["JUDGED", "ToldRun", "told_run"]
