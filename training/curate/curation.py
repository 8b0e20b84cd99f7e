"""What became of a folder that was curated: its cases, what was left out, and why."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from plugins.contract import Flag, Mask, Volume
from plugins.errors import Refused, Unavailable
from plugins.measure.volume import MM3_PER_ML
from training.curate.case_files import Tags, case_name, write_case, write_data_set
from training.curate.wanted import Wanted
from training.manifest import Case, DataManifest, patient_key, require_images_apart

REPORT = "curation.json"


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Something that became no case."""

    code: str
    """Lower-case word with hyphens."""
    sentence: str
    """Why, and what to do."""
    where: str
    """File or series that it speaks of."""
    region: str = ""
    """Region in it, when it is one."""


@dataclass(frozen=True, kw_only=True)
class Taken:
    """One case, and what it was made of."""

    case: Case
    """The case."""
    where: str
    """File that the region is in."""
    region: str
    """Its name there."""
    voxels: int
    """Voxels of the region."""
    volume_ml: float
    """Their volume."""
    doubts: tuple[str, ...] = ()
    """What was odd about it, in sentences."""

    def plain(self) -> dict[str, object]:
        """Return it as plain data."""
        said = {key: value for key, value in asdict(self).items() if key != "case"}
        case = self.case
        return {
            "case_id": case.case_id,
            "patient_id": case.patient_id,
            "fold": case.fold,
            "size_mm": case.size_mm,
            **said,
        }


@dataclass(frozen=True, kw_only=True)
class Curation:
    """What became of a folder."""

    folder: Path
    """Where the data set is."""
    manifest: DataManifest | None
    """Its cases; None when there is none, and then nothing but the report was written."""
    taken: tuple[Taken, ...]
    """The cases with their origin, sorted by name."""
    left_out: tuple[LeftOut, ...]
    """Everything else."""

    @property
    def counts(self) -> dict[str, int]:
        """Return how often each reason occurred, the most frequent first."""
        return dict(Counter(one.code for one in self.left_out).most_common())

    def plain(self) -> dict[str, object]:
        """Return it as plain data."""
        manifest = self.manifest
        return {
            "folder": str(self.folder),
            "name": manifest.name if manifest else None,
            "manifest_sha256": manifest.sha256 if manifest else None,
            "cases": [one.plain() for one in self.taken],
            "patients": len({one.case.patient_id for one in self.taken}),
            "left_out": [asdict(one) for one in self.left_out],
            "reasons": self.counts,
        }


@dataclass(kw_only=True)
class Gathering:
    """What is gathered while a folder is gone through."""

    folder: Path
    """Folder of the data set."""
    wanted: Wanted
    """What becomes a case."""
    taken: list[Taken] = field(default_factory=list)
    """Cases that were written."""
    left_out: list[LeftOut] = field(default_factory=list)
    """Everything else."""

    def leave(self, reason: Refused, where: str, region: str = "") -> None:
        """Keep why something became no case."""
        self.left_out.append(LeftOut(code=reason.code, sentence=reason.sentence, where=where, region=region))

    def take(
        self,
        volume: Volume,
        mask: Mask,
        *,
        patient_id: str,
        region: str,
        made_of: str,
        where: str,
        tags: Tags,
        doubts: Sequence[Flag] = (),
        beside: Mapping[str, Volume] | None = None,
    ) -> None:
        """Write a region, or each of its pieces, as a case; `made_of` tells it from every other region there is.

        Refuses what `write_case` refuses.
        """
        whose = patient_key(patient_id) if self.wanted.hashed else patient_id
        if doubts:
            tags = {**tags, "doubts": " ".join(sorted({flag.code for flag in doubts}))}
        for number, piece in self.wanted.pieces(mask):
            digest = hashlib.sha256(f"{made_of}/{number}".encode()).hexdigest()[:10]
            case = write_case(
                self.folder,
                volume,
                {"mask": piece},
                case_id=f"{case_name(whose, region)[:120]}_{digest}",
                patient_id=whose,
                tags=tags,
                margin_mm=self.wanted.margin_mm,
                image_role="pet" if self.wanted.modality == "PT" else "image",
                beside=beside,
            )
            taken = Taken(
                case=case,
                where=where,
                region=region,
                voxels=piece.count,
                volume_ml=piece.count * volume.voxel_volume_mm3 / MM3_PER_ML,
                doubts=tuple(flag.sentence for flag in doubts),
            )
            self.taken.append(taken)

    def finish(self, name: str) -> Curation:
        """Return what came of it, after manifest and report were written.

        Where patients are named by a hash no report is left in the folder. Refuses `image-of-two-patients`; raises
        Unavailable.
        """
        cases = [one.case for one in self.taken]
        require_images_apart(cases)
        manifest = write_data_set(self.folder, name, cases) if cases else None
        folded = {case.case_id: case for case in manifest.cases} if manifest else {}
        taken = sorted(
            (replace(one, case=folded[one.case.case_id]) for one in self.taken),
            key=lambda one: one.case.case_id,
        )
        found = Curation(
            folder=self.folder, manifest=manifest, taken=tuple(taken), left_out=tuple(self.left_out)
        )
        if not self.wanted.hashed:  # names of files often hold what a hash is to hide
            _write_report(found)
        return found


def _write_report(found: Curation) -> None:
    path = found.folder / REPORT
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found.plain(), indent=1) + "\n")
    except OSError as error:
        raise Unavailable(f"{path} cannot be written: {error.strerror or error}") from error


__all__ = ["REPORT", "Curation", "Gathering", "LeftOut", "Taken"]
