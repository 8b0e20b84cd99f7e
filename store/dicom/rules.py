"""The project's own rules for SEG and SR, which no validator off the shelf checks.

`check` judges one object, with the objects it speaks of as companions: an SR with its SEG, a SEG with its source
images. It runs on everything that is written and, by `nadir check`, on any file. Rules for results of our own only
(research use, `UNVERIFIED`, colours, tracking identity, equipment) are left out for those of other makers.
Sources: PS3.3 A.51, C.8.20, C.17; PS3.16 TID 1500, 1410, 1411, 1419, 1501; IHE AIR.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError

from plugins.errors import NadirError, Refused
from store.dicom.character_sets import character_set
from store.dicom.files import read_file
from store.dicom.items import text
from store.dicom.rules_codes import code_lengths
from store.dicom.rules_seg import SEG_CLASSES, SEG_RULES
from store.dicom.rules_sr import SR_CLASSES, SR_RULES
from store.dicom.rules_values import VALUE_RULES
from store.dicom.values import quiet
from store.dicom.violation import Rule, Violation

__all__ = ["Violation", "check", "check_files"]

UNREADABLE: Final = (
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    KeyError,
    IndexError,
    NadirError,
    NotImplementedError,
    OSError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What pydicom and numpy raise on data that is not what it should be."""


def check(dataset: Dataset, companions: Sequence[Dataset] = ()) -> tuple[Violation, ...]:
    """Return every rule that a SEG or SR breaks; an empty tuple when it breaks none. Never raises on what it reads.

    `companions` are the objects that it speaks of: for an SR its SEGs (with pixels, values are computed again from
    them), for a SEG its source images (headers are enough). What needs a companion is not judged without it.
    """
    kind = text(dataset, "SOPClassUID")
    if kind in SEG_CLASSES:
        rules: tuple[Rule, ...] = (character_set, code_lengths, *SEG_RULES)
    elif kind in SR_CLASSES:
        rules = (character_set, code_lengths, *SR_RULES, *VALUE_RULES)
    else:
        sentence = f"'{kind}' is no SEG and no Enhanced, Comprehensive or Comprehensive 3D SR"
        return (Violation(rule="class", where="SOPClassUID", sentence=sentence),)
    return tuple(violation for rule in rules for violation in _run(rule, dataset, companions))


def check_files(paths: Iterable[Path]) -> list[tuple[Path, tuple[Violation, ...]]]:
    """Return for every SEG and SR file what rules it breaks, each with all the other files as its companions.

    Files of other kinds (source images) are companions only. Refuses (`unreadable-file`) what is no DICOM file, and
    (`nothing-to-check`) when there is no SEG and no SR among the files.
    """
    with quiet():
        read = [(path, _read(path)) for path in paths]
        companions = [dataset for _, dataset in read]
        kinds = (*SEG_CLASSES, *SR_CLASSES)
        judged = [(path, dataset) for path, dataset in read if text(dataset, "SOPClassUID") in kinds]
        if not judged:
            raise Refused("nothing-to-check", "there is no SEG and no SR among the files; name at least one")
        return [
            (path, check(dataset, [c for c in companions if c is not dataset])) for path, dataset in judged
        ]


def _read(path: Path) -> Dataset:
    try:
        read_file(path)  # refuses bombs, which pydicom would unpack
        dataset = pydicom.dcmread(path, stop_before_pixels=False, defer_size="1 MB")
        if not text(dataset, "SOPClassUID"):
            raise Refused("unreadable-file", f"{path} names no SOP Class", where=str(path))
    except UNREADABLE as error:
        if isinstance(error, Refused):
            raise
        why = "it is no DICOM Part 10 file" if isinstance(error, InvalidDicomError) else str(error)
        why = error.strerror or why if isinstance(error, OSError) else why
        raise Refused("unreadable-file", f"{path} cannot be read: {why}", where=str(path)) from error
    return dataset


def _run(rule: Rule, dataset: Dataset, companions: Sequence[Dataset]) -> Iterator[Violation]:
    """Yield what one rule says; what it cannot read is itself a violation."""
    name = rule.__name__.replace("_", "-")
    try:
        yield from list(rule(dataset, companions))
    except UNREADABLE as error:
        yield Violation(rule=name, where="", sentence=f"cannot be judged, the data is broken: {error}")
