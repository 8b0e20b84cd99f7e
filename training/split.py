"""Who is learned from, who decides between trainings, and who is asked once at the end: train, validation, test.

The sides are of patients, never of cases, and stratified by the size of the patient's largest lesion (and by tags, when
wanted): within each stratum every side has its share to within one patient. Who stands where within a stratum is
decided by a salted hash of his key, so neither order nor name matters. A split is frozen: it names the hash of its
manifest and has one of its own. When cases come to a data set, the new split is made from the earlier one, in which
nobody moves.
"""

from __future__ import annotations

import hashlib
import json
import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from plugins.errors import Refused, Unavailable
from training.manifest import Case, DataManifest, patient_key

SPLIT = "split.json"
"""Beside the manifest; who trains or judges on a folder that holds one, heeds it."""
TRAIN, VALIDATION, TEST = SIDES = ("train", "validation", "test")
SIZES_MM = (6.0, 10.0, 20.0, 40.0)
"""Where the sizes of lesions are cut into strata."""
EDGES: Mapping[str, Sequence[float]] = {
    "slice_thickness_mm": (1.0, 2.0, 3.0),
    "spacing_z_mm": (1.0, 2.0, 3.0),
}
"""Where numbers of tags are cut; others make a stratum of each value."""
UNKNOWN = "not known"

Shares = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Split:
    """The side of every patient of a data set."""

    data: str
    """Name of the data set."""
    manifest_sha256: str
    """Hash of the manifest whose patients these are."""
    shares: Shares
    """Part of the patients that is wanted on each side; 1 in all."""
    seed: int
    """Salt of the hashes."""
    by: tuple[str, ...] = ()
    """Tags that make strata beside the size."""
    sides: Mapping[str, str]
    """Side of each patient, by `patient_key`; also of those who are no longer in the data set."""

    @property
    def sha256(self) -> str:
        """Return the hash over everything that the split says."""
        return hashlib.sha256(json.dumps(self._plain(), sort_keys=True).encode()).hexdigest()

    def side_of(self, patient_id: str) -> str:
        """Return on which side a patient is. Refuses `patient-without-side`."""
        side = self.sides.get(patient_key(patient_id))
        if side is None:
            raise Refused(
                "patient-without-side", f"the split of {self.data} does not know patient {patient_id}"
            )
        return side

    def cases(self, manifest: DataManifest, *sides: str) -> tuple[Case, ...]:
        """Return the cases of the patients on some sides. Refuses `other-data` (a split of another manifest)."""
        self.require(manifest)
        return tuple(case for case in manifest.cases if self.side_of(case.patient_id) in sides)

    def require(self, manifest: DataManifest) -> None:
        """Refuse (`other-data`) a manifest that the split was not made for, and a patient without a side."""
        if manifest.sha256 != self.manifest_sha256:
            raise Refused(
                "other-data",
                f"the split was made for another state of {self.data} (manifest {self.manifest_sha256[:12]}, not "
                f"{manifest.sha256[:12]}); make it anew with --keep, so that nobody changes sides",
            )
        for case in manifest.cases:
            self.side_of(case.patient_id)

    def write(self, path: Path) -> None:
        """Write the split and its hash as JSON, at once or not at all. Raises Unavailable."""
        part = path.with_suffix(".part")
        try:
            part.write_text(json.dumps({**self._plain(), "sha256": self.sha256}, indent=1) + "\n")
            part.replace(path)
        except OSError as error:
            raise Unavailable(f"{path} cannot be written: {error.strerror or error}") from error

    @property
    def empty(self) -> tuple[str, ...]:
        """Return the sides that have a share and nobody on them."""
        held = set(self.sides.values())
        return tuple(
            side for side, share in zip(SIDES, self.shares, strict=True) if share and side not in held
        )

    def _plain(self) -> dict[str, object]:
        return {
            "data": self.data,
            "manifest_sha256": self.manifest_sha256,
            "shares": list(self.shares),
            "seed": self.seed,
            "by": list(self.by),
            "sides": {side: sorted(key for key, own in self.sides.items() if own == side) for side in SIDES},
        }


def split(
    manifest: DataManifest,
    shares: Shares,
    seed: int = 0,
    *,
    by: Sequence[str] = (),
    earlier: Split | None = None,
) -> Split:
    """Return the sides of all patients of a manifest; whoever has one in `earlier` keeps it.

    `shares` are those of train, validation and test; `by` names tags of the cases. Of a patient with several cases the
    largest lesion tells the stratum. Refuses `bad-shares`, and `unknown-tag` for a tag that no case has.
    """
    if len(shares) != len(SIDES) or min(shares) < 0 or not math.isclose(sum(shares), 1.0, abs_tol=1e-6):
        raise Refused("bad-shares", f"{shares} are not three parts of 1: train, validation, test")
    for tag in by:
        if not any(tag in case.tags for case in manifest.cases):
            raise Refused("unknown-tag", f"no case of {manifest.name} has the tag '{tag}'")
    sides = dict(earlier.sides) if earlier else {}
    owed = [0.0] * len(SIDES)
    for _, members in sorted(strata(manifest, by).items()):
        keys = sorted(map(patient_key, members), key=lambda key: _salted(key, seed))
        held = Counter(sides[key] for key in keys if key in sides)
        fresh = [key for key in keys if key not in sides]
        counts = _counts([held[side] for side in SIDES], len(fresh), shares, owed)
        places = [side for side, n in zip(SIDES, counts, strict=True) for _ in range(n)]
        sides.update(zip(fresh, places, strict=True))
    return Split(
        data=manifest.name,
        manifest_sha256=manifest.sha256,
        shares=shares,
        seed=seed,
        by=tuple(by),
        sides=sides,
    )


def strata(manifest: DataManifest, by: Sequence[str] = ()) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Return the patients (their ids, sorted) of each stratum: range of the largest lesion, then each tag's value."""
    largest: dict[str, Case] = {}
    for case in sorted(manifest.cases, key=lambda case: (-case.size_mm, case.case_id)):
        largest.setdefault(case.patient_id, case)
    found: dict[tuple[str, ...], list[str]] = {}
    for patient, case in sorted(largest.items()):
        words = (_range(case.size_mm, SIZES_MM), *(_word(tag, case.tags.get(tag)) for tag in by))
        found.setdefault(words, []).append(patient)
    return {words: tuple(patients) for words, patients in found.items()}


def read_split(path: Path, manifest: DataManifest) -> Split:
    """Return the split of a JSON file, which has to be one of this manifest.

    Refuses `bad-split`, `changed-split` (wrong hash), `patient-on-both-sides`, `patient-without-side`, `other-data`.
    """
    found = read_earlier(path)
    found.require(manifest)
    return found


def read_earlier(path: Path) -> Split:
    """Return the split of a JSON file, whichever manifest it was made for.

    Refuses `bad-split`, `changed-split` and `patient-on-both-sides`.
    """
    try:
        plain = json.loads(path.read_text())
        listed = [(str(key), side) for side in SIDES for key in plain["sides"][side]]
        train, validation, test = (float(share) for share in plain["shares"])
        found = Split(
            data=plain["data"],
            manifest_sha256=plain["manifest_sha256"],
            shares=(train, validation, test),
            seed=int(plain["seed"]),
            by=tuple(plain["by"]),
            sides=dict(listed),
        )
        said = plain["sha256"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise Refused("bad-split", f"{path} is no split of a data set ({error})") from error
    if len(found.sides) < len(listed):
        twice = next(key for key, n in Counter(key for key, _ in listed).items() if n > 1)
        raise Refused("patient-on-both-sides", f"{path} names patient {twice} on several sides")
    if said != found.sha256:
        raise Refused("changed-split", f"{path} was changed after it was written: its sha256 is another")
    return found


def split_of(root: Path, manifest: DataManifest) -> Split | None:
    """Return the split in the folder of a data set; None when there is none. Refuses as `read_split`."""
    path = root / SPLIT
    return read_split(path, manifest) if path.is_file() else None


def _counts(held: Sequence[int], fresh: int, shares: Shares, owed: list[float]) -> list[int]:
    """Return how many of the `fresh` patients of a stratum go to each side, of which some hold `held` already.

    Each side comes to its share, rounded down or up, as far as those held allow it. `owed` is what each side got too
    little in other strata, and is brought up to date: a small side would else be rounded down in every small stratum.
    """
    exact = [(sum(held) + fresh) * share for share in shares]
    quota = [math.floor(value + 1e-9) for value in exact]
    left = sum(held) + fresh - sum(quota)
    order = sorted(range(len(shares)), key=lambda i: -(owed[i] + exact[i] - quota[i]))
    for i in [i for i in order if exact[i] - quota[i] > 1e-9][:left]:
        quota[i] += 1
    counts = [0] * len(shares)
    for _ in range(fresh):
        lacking = [q - h - n for q, h, n in zip(quota, held, counts, strict=True)]
        counts[lacking.index(max(lacking))] += 1
    for i, value in enumerate(exact):
        owed[i] += value - held[i] - counts[i]
    return counts


def _salted(key: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{key}".encode()).hexdigest()


def _word(tag: str, value: float | str | None) -> str:
    if value is None or value == "":
        return UNKNOWN
    if isinstance(value, str):
        return value
    return _range(value, EDGES[tag]) if tag in EDGES else f"{value:g}"


def _range(value: float, edges: Sequence[float]) -> str:
    """Return between which edges a number lies, in words that sort like numbers."""
    ends = ["0", *(f"{edge:g}" for edge in edges), "inf"]
    at = bisect_right(edges, value)
    return f"{at}: {ends[at]} to {ends[at + 1]} mm"


__all__ = [
    "SIDES",
    "SPLIT",
    "TEST",
    "TRAIN",
    "VALIDATION",
    "Shares",
    "Split",
    "read_earlier",
    "read_split",
    "split",
    "split_of",
    "strata",
]
