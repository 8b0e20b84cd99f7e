"""A frozen list of the cases that a model learns from and is judged on: who, which files, which fold.

A manifest is JSON with its own sha256, written down with every run, so that a figure names the data it came from.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from plugins.errors import Refused
from store.patient_key import patient_key
from store.walk import is_inside

FOLDS = 5
IMAGES = frozenset({"image", "pet"})
"""Roles of the images that something was drawn on."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One case: one lesion with its images and its truth."""

    case_id: str
    """Name of the case, one of its kind in the manifest."""
    patient_id: str
    """Whose it is; a patient is in one fold only."""
    files: Mapping[str, str]
    """Path of each file by its role, relative to the folder of the data set."""
    sha256: Mapping[str, str]
    """Hash of each file by its role."""
    fold: int
    """Number of the fold, from 0, in which the case is judged."""
    size_mm: float
    """Size of the lesion, mm; 0 of a case without a mask, a whole scan."""
    tags: Mapping[str, float | str | None] = field(default_factory=dict)
    """What else is known of it: spacing, ratings, scanner."""

    def number(self, tag: str) -> float | None:
        """Return a tag that is a number, written as a whole one or not; None for a word and for none."""
        value = self.tags.get(tag)
        return float(value) if isinstance(value, float | int) and not isinstance(value, bool) else None


@dataclass(frozen=True, kw_only=True)
class DataManifest:
    """The cases of one data set. Refuses `case-twice` and `patient-on-both-sides` (a patient in two folds)."""

    name: str
    """Name of the data set."""
    cases: tuple[Case, ...]
    """All cases, sorted by name."""

    def __post_init__(self) -> None:
        for case_id, times in Counter(case.case_id for case in self.cases).items():
            if times > 1:
                raise Refused("case-twice", f"case {case_id} is {times} times in {self.name}; name it once")
        require_patients_apart(*(self.fold(n) for n in sorted({case.fold for case in self.cases})))

    @property
    def sha256(self) -> str:
        """Return the hash over everything that the manifest says."""
        return hashlib.sha256(json.dumps(self._plain(), sort_keys=True).encode()).hexdigest()

    def fold(self, number: int) -> tuple[Case, ...]:
        """Return the cases that are judged in one fold."""
        return tuple(case for case in self.cases if case.fold == number)

    def others(self, number: int) -> tuple[Case, ...]:
        """Return the cases that are learned from when a fold is judged; no patient of the fold is among them."""
        learned = tuple(case for case in self.cases if case.fold != number)
        require_patients_apart(learned, self.fold(number))
        return learned

    @property
    def held_out(self) -> dict[str, int]:
        """Return the fold in which each patient is held out, by `patient_key`, as a model's card keeps it."""
        return {patient_key(case.patient_id): case.fold for case in self.cases}

    def write(self, path: Path) -> None:
        """Write the manifest and its hash as JSON."""
        path.write_text(self.text())

    def text(self) -> str:
        """Return the manifest and its hash as JSON."""
        return json.dumps({**self._plain(), "sha256": self.sha256}, indent=1) + "\n"

    def _plain(self) -> dict[str, object]:
        return {"name": self.name, "cases": [asdict(case) for case in self.cases]}


def read_manifest(path: Path) -> DataManifest:
    """Return the manifest of a JSON file.

    Refuses `bad-manifest` (no manifest), `changed-manifest` (wrong hash) and what `DataManifest` refuses.
    """
    try:
        plain = json.loads(path.read_text())
        _require_keys(plain)
        manifest = DataManifest(name=str(plain["name"]), cases=tuple(_case(one) for one in plain["cases"]))
        said = plain["sha256"]
    except OSError as error:
        raise Refused("bad-manifest", f"{path} cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise Refused("bad-manifest", f"{path} is no manifest of data ({error})") from error
    if said != manifest.sha256:
        raise Refused("changed-manifest", f"{path} was changed after it was written: its sha256 is another")
    return manifest


def _require_keys(plain: Any) -> None:
    """Raise ValueError or TypeError where a key is missing, or one of a case is not known."""
    if not isinstance(plain, dict):
        raise TypeError("it is no table")
    if lacking := [key for key in ("name", "cases", "sha256") if key not in plain]:
        written = "it is in every manifest that 'nadir curate' or 'nadir evaluate' writes"
        raise ValueError(f"it has no '{lacking[0]}'; {written}")
    cases = plain["cases"]
    if not isinstance(cases, list) or not all(isinstance(case, dict) for case in cases):
        raise TypeError("'cases' is no list of tables")
    known = {one.name: one.default is one.default_factory is MISSING for one in fields(Case)}
    for number, case in enumerate(cases, start=1):
        name = case.get("case_id", f"number {number}")
        if unknown := sorted(case.keys() - known.keys()):
            raise ValueError(f"case {name} says '{unknown[0]}'; known are {', '.join(known)}")
        if lacking := [key for key, is_needed in known.items() if is_needed and key not in case]:
            raise ValueError(f"case {name} has no '{lacking[0]}'")


def _case(plain: Mapping[str, Any]) -> Case:
    """Return the case of plain data; its files lie in the folder of the data set. Raises ValueError and TypeError."""
    case = Case(**plain)
    if not all(isinstance(one, dict) for one in (case.files, case.sha256, case.tags)):
        raise TypeError(f"files, sha256 or tags of case {case.case_id} are no table")
    words = [case.case_id, case.patient_id, *case.files.values(), *case.sha256.values()]
    if (
        not all(isinstance(word, str) and word for word in words)
        or not case.files.keys() <= case.sha256.keys()
    ):
        raise TypeError(f"case {case.case_id} lacks its name, its patient, a file or a hash")
    if not isinstance(case.fold, int) or not isinstance(case.size_mm, float | int):
        raise TypeError(f"fold or size of case {case.case_id} is no number")
    if case.fold < 0:
        raise ValueError(f"fold of case {case.case_id} is {case.fold}; folds are counted from 0")
    if not all(isinstance(value, str | float | int | None) for value in case.tags.values()):
        raise TypeError(f"a tag of case {case.case_id} is neither a number nor a word")
    _require_sound(case)
    for file in case.files.values():
        if not is_inside(file):
            raise ValueError(f"file {file!r} of case {case.case_id} is not in the folder of the data set")
    return case


def _require_sound(case: Case) -> None:
    """Raise ValueError for text that is not UTF-8, for a number that is not finite and for a size that is none."""
    texts: dict[str, object] = {"its name": case.case_id, "its patient": case.patient_id}
    texts |= {f"file {role!a}": file for role, file in case.files.items()}
    tags = {f"tag {tag!a}": value for tag, value in case.tags.items()}
    for where, value in (texts | tags).items():
        if isinstance(value, float | int) and not math.isfinite(value):
            raise ValueError(f"{where} of case {case.case_id!a} is {value}; write a finite number, or null")
        if isinstance(value, str) and not _is_utf8(value):
            raise ValueError(f"{where} of case {case.case_id!a} is {value!a}, which is not UTF-8")
    is_size = case.size_mm > 0 or (case.size_mm == 0 and "mask" not in case.files)
    if not is_size or math.isinf(case.size_mm):
        raise ValueError(
            f"size_mm of case {case.case_id} is {case.size_mm}; write a finite number above 0, mm"
        )


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def part_of(cases: Sequence[Case], share: float, seed: int = 0) -> tuple[Case, ...]:
    """Return the cases of a part (0 to 1) of the patients, drawn by the seed; a smaller part lies in a larger one."""
    patients = sorted({case.patient_id for case in cases})
    random.Random(seed).shuffle(patients)
    chosen = set(patients[: round(share * len(patients))])
    return tuple(case for case in cases if case.patient_id in chosen)


def require_patients_apart(*sides: Iterable[Case]) -> None:
    """Refuse (`patient-on-both-sides`) when one patient has cases on two sides of a split."""
    seen: dict[str, int] = {}
    for number, side in enumerate(sides):
        for case in side:
            if seen.setdefault(case.patient_id, number) != number:
                raise Refused(
                    "patient-on-both-sides", f"cases of patient {case.patient_id} are on two sides of a split"
                )


def require_images_apart(cases: Iterable[Case]) -> None:
    """Refuse (`image-of-two-patients`) when an image, byte for byte, is that of cases of two patients."""
    seen: dict[str, Case] = {}
    for case in cases:
        for role in IMAGES & case.files.keys():
            first = seen.setdefault(case.sha256[role], case)
            if first.patient_id != case.patient_id:
                raise Refused(
                    "image-of-two-patients",
                    f"{case.files[role]} of {case.case_id} is also the image of {first.case_id}; name one patient, or "
                    "leave one of them out",
                )


def folds(sizes_mm: Mapping[str, float], count: int = FOLDS, seed: int = 0) -> dict[str, int]:
    """Return the fold of each patient, given the size of his largest lesion in mm.

    Patients in order of size are dealt out in rounds, each round in an order drawn from the seed: every fold holds as
    many large lesions as the next. The same patients give the same folds, in whatever order they come.
    """
    order = sorted(sizes_mm, key=lambda patient: (-sizes_mm[patient], patient))
    dealt = random.Random(seed)
    found: dict[str, int] = {}
    for start in range(0, len(order), count):
        numbers = dealt.sample(range(count), count)
        found.update(zip(order[start : start + count], numbers, strict=False))
    return found


__all__ = [
    "FOLDS", "Case", "DataManifest", "folds", "part_of", "patient_key", "read_manifest",
    "require_images_apart", "require_patients_apart",
]  # fmt: skip
