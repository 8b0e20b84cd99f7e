"""The numbers of a cohort as a file, in pieces: with pseudonyms and days for research, or with names for who may.

De-identified, a person is a keyed hash of the identifier, and a lesion one of its Tracking UID: whoever does not have
the key of this node can neither undo them nor tell whether somebody is among them. In place of dates stand the days
since the person's first study here: the distances stay, the calendar goes. No UID of an image, no label and no other
words from outside are written; codes are written that PS3.16 or Nadir has, with the words from there, and no others.
"""

from __future__ import annotations

import csv
import hmac
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from io import BytesIO, StringIO
from typing import Any, Final, cast

from pydicom.sr.coding import Code
from sqlmodel import Session, col, select

from models.extras import how_to_install
from node.report.table import safe_cell
from plugins import codes
from plugins.errors import Refused
from store.database import Database
from store.measured import Chosen, Measured, first_dates, last_row, stretch
from store.objects import ObjectStore
from store.patients import members_of
from store.tables import Patient

STRETCH: Final = 5000
"""Rows that are read at a time."""
MODALITIES: Final = frozenset({"CT", "MR", "NM", "PT"})
"""Modalities that are written; any other may be made up."""
SIDES: Final = frozenset(
    {code.meaning for code in (codes.LEFT, codes.RIGHT, codes.BILATERAL)} | {"Right and left"}
)
KERNEL: Final = re.compile(r"(?<=, kernel ).*(?=, no correction for)", re.DOTALL)
"""Where a convention names the kernel of a CT, which a scanner writes as free text."""
KERNELS: Final = re.compile(
    r"[A-Z][a-z]{0,2}\d{2,3}[a-z]{0,2}(\\\d)?|FC\d{2}|[A-Z]{1,2}|STANDARD|SOFT|LUNG|CHEST|DETAIL|BONE|BONEPLUS|EDGE|ULTRA"
    r"|not stated"
)
"""What kernels are called by the makers of scanners."""
Row = Mapping[str, Any]
NUMBERS: Final[Mapping[str, type]] = {
    "type_scheme": str, "type_code": str, "type": str, "site_scheme": str, "site_code": str, "site": str,
    "laterality": str, "modality": str, "confidence": float, "automatic": bool, "name": str, "concept_scheme": str,
    "concept_code": str, "concept": str, "derivation": str, "value": float, "standard_deviation": float, "unit": str,
    "method": str, "analysis": str, "analysis_version": str, "model_sha256": str,
}  # fmt: skip
DISGUISED: Final[Mapping[str, type]] = {
    "patient_key": str, "lesion_key": str, "day": int, **NUMBERS, "rejected": bool, "lesion_key_now": str,
    "site_now": str,
}  # fmt: skip
"""Columns of a de-identified file."""
IDENTIFIED: Final[Mapping[str, type]] = {
    "patient_id": str, "issuer": str, "study_date": date, "study_instance_uid": str, "series_instance_uid": str,
    "sop_instance_uid": str, "tracking_uid": str, "label": str, **NUMBERS, "rejected": bool, "tracking_uid_now": str,
    "site_now": str,
}  # fmt: skip
"""Columns of a file with names."""


@dataclass(frozen=True, kw_only=True)
class Disguise:
    """What a de-identified file says in place of persons, lesions and dates."""

    key: bytes
    """Key of the hashes."""
    persons: Mapping[int, str]
    """Hash of the person, by row of the patient; those who were declared to be one have one."""
    first: Mapping[int, date]
    """First Study Date of the person, by row of the patient."""

    def row(self, one: Measured) -> Row:
        """Return one number without anything that says whose it is."""
        first = self.first.get(one.patient_pk)
        site = _public("site", one.site_scheme, one.site_value)
        return {
            "patient_key": self.persons[one.patient_pk],
            "lesion_key": keyed(self.key, "lesion", one.tracking_uid),
            "day": (one.study_date - first).days if one.study_date and first else None,
            **_numbers(one),
            **_public("type", one.type_scheme, one.type_value),
            **site,
            "modality": one.modality if one.modality in MODALITIES else "",
            "method": KERNEL.sub(_kernel, one.method),
            "laterality": one.laterality if one.laterality in SIDES else "",
            "rejected": one.rejected,
            "lesion_key_now": keyed(self.key, "lesion", one.tracking_uid_now),
            "site_now": site["site"] if one.site_now == one.site_meaning else _public_words(one.site_now),
        }


def _kernel(named: re.Match[str]) -> str:
    return named[0] if KERNELS.fullmatch(named[0]) else "not written"


def _public(what: str, scheme: str, value: str) -> dict[str, str]:
    """Return a known code with its known words, and nothing of any other: value and words may name a person."""
    meaning = _meanings().get((scheme, value))
    if meaning is None:
        scheme = value = meaning = ""
    return {f"{what}_scheme": scheme, f"{what}_code": value, what: meaning}


def _public_words(said: str) -> str:
    """Return words of a person as a known code has them, and nothing of any other."""
    return _spellings().get(said.strip().casefold(), "")


@cache
def _spellings() -> Mapping[str, str]:
    """Return what the codes mean by what people may type for it."""
    return {meaning.casefold(): meaning for meaning in _meanings().values()}


@cache
def _meanings() -> Mapping[tuple[str, str], str]:
    """Return what each code of PS3.16 and of our own means, by scheme and value."""
    from pydicom.sr._concepts_dict import concepts
    from pydicom.sr._snomed_dict import mapping

    found = {
        (scheme, value): meaning
        for scheme, named in cast(Any, concepts).items()
        for forms in named.values()
        for value, (meaning, _) in forms.items()
    }
    own = [one for one in vars(codes).values() if isinstance(one, Code)]
    found |= {(one.scheme_designator, one.value): one.meaning for one in own}
    old = {
        ("SRT", value): found[("SCT", now)] for value, now in mapping["SRT"].items() if ("SCT", now) in found
    }
    return found | old


def disguise(session: Session, key: bytes) -> Disguise:
    """Return the disguise of everybody who is known."""
    named = {
        int(p.id or 0): (p.issuer, p.patient_id)
        for p in session.exec(select(Patient).order_by(col(Patient.id)))
    }
    persons: dict[int, str] = {}
    for head, own in members_of(session).items():
        persons |= dict.fromkeys(own, keyed(key, "patient", *named[head]))
    return Disguise(key=key, persons=persons, first=first_dates(session))


def keyed(key: bytes, *parts: str) -> str:
    """Return 16 digits of a keyed hash: the same on every export of this node, another one on every other node."""
    said = "\0".join(("export", *parts)).encode("utf-8", "surrogatepass")
    return hmac.new(key, said, "sha256").hexdigest()[:16]


def with_names(one: Measured) -> Row:
    """Return one number with all that says whose it is."""
    return {
        "patient_id": one.patient_id,
        "issuer": one.issuer,
        "study_date": one.study_date,
        "study_instance_uid": one.study_instance_uid,
        "series_instance_uid": one.series_instance_uid,
        "sop_instance_uid": one.sop_instance_uid,
        "tracking_uid": one.tracking_uid,
        "label": one.label,
        **_numbers(one),
        "rejected": one.rejected,
        "tracking_uid_now": one.tracking_uid_now,
        "site_now": one.site_now,
    }


def _numbers(one: Measured) -> dict[str, Any]:
    return {
        "type_scheme": one.type_scheme,
        "type_code": one.type_value,
        "type": one.type_meaning,
        "site_scheme": one.site_scheme,
        "site_code": one.site_value,
        "site": one.site_meaning,
        "laterality": one.laterality,
        "modality": one.modality,
        "confidence": one.confidence,
        "automatic": one.automatic,
        "name": one.name,
        "concept_scheme": one.concept_scheme,
        "concept_code": one.concept_value,
        "concept": one.concept_meaning,
        "derivation": one.derivation,
        "value": one.value,
        "standard_deviation": one.uncertainty,
        "unit": one.unit,
        "method": one.method,
        "analysis": one.plugin,
        "analysis_version": one.plugin_version,
        "model_sha256": one.model_sha256,
    }


def rows(
    database: Database, chosen: Chosen, row: Callable[[Measured], Row], objects: ObjectStore | None = None
) -> Iterator[list[Row]]:
    """Yield the numbers that are meant, some thousands at a time, each from a reading of its own.

    What is measured while it runs is left out; what is superseded meanwhile may be in it.
    """
    with database.reading() as session:
        last = last_row(session)
    for start in range(1, last + 1, STRETCH):
        with database.reading() as session:
            found = stretch(session, chosen, start, min(start + STRETCH - 1, last), objects)
        if found:
            yield [row(one) for one in found]


def as_csv(columns: Sequence[str], pieces: Iterator[list[Row]]) -> Iterator[bytes]:
    """Yield a CSV file (RFC 4180, UTF-8); words that a spreadsheet would run begin with an apostrophe."""
    out = StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(columns)
    for piece in pieces:
        writer.writerows([safe_cell(row[name]) for name in columns] for row in piece)
        # What came from outside may hold halves of characters that are no text.
        yield out.getvalue().encode("utf-8", "replace")
        out.seek(0)
        out.truncate()
    yield out.getvalue().encode("utf-8")


def as_parquet(columns: Mapping[str, type], pieces: Iterator[list[Row]]) -> Iterator[bytes]:
    """Return a Parquet file in pieces, one row group for each piece. Refuses `no-pyarrow` at once."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        how = how_to_install("parquet")
        sentence = f"Parquet needs the package pyarrow, which is not here: take CSV, or {how}"
        raise Refused("no-pyarrow", sentence) from error
    kinds = {str: pyarrow.string(), float: pyarrow.float64(), int: pyarrow.int32(), bool: pyarrow.bool_(),
             date: pyarrow.date32()}  # fmt: skip
    schema = pyarrow.schema([(name, kinds[kind]) for name, kind in columns.items()])

    def made() -> Iterator[bytes]:
        drain = _Drain()
        with pyarrow.parquet.ParquetWriter(drain, schema, compression="zstd") as writer:
            for piece in pieces:
                values = {name: [_text(row[name]) for row in piece] for name in columns}
                writer.write_table(pyarrow.table(values, schema=schema))
                yield drain.taken()
        yield drain.taken()

    return made()


def _text(value: object) -> object:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


class _Drain(BytesIO):
    """A file whose beginning is given away while the rest is being written; nobody goes back in it."""

    def __init__(self) -> None:
        super().__init__()
        self._given = 0

    def tell(self) -> int:
        return self._given + super().tell()

    def close(self) -> None:
        """Stay readable: the end is still to be given away."""

    def taken(self) -> bytes:
        """Return what was written since the last time, and forget it."""
        data = self.getvalue()
        self._given += len(data)
        self.seek(0)
        self.truncate()
        return data


__all__ = [
    "DISGUISED", "IDENTIFIED", "Disguise", "as_csv", "as_parquet", "disguise", "keyed", "rows", "with_names",
]  # fmt: skip
