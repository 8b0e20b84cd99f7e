"""What a study asks of its patient's past: how much of it, and which of the studies that an archive tells of it are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta

from node.pacs import UID, PatientStudy

IMAGES = frozenset({"CT", "PT", "MR"})
UNTOLD = frozenset({""})
"""The modality of a series of which an archive tells none."""
FIRST = date(1895, 11, 8)
"""Nothing was imaged before."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """How much is fetched of a patient's past."""

    studies: int = 3
    """The newest so many earlier studies that can be compared."""
    days: int = 1095
    """How many days before the study the past begins."""
    modalities: frozenset[str] = IMAGES | {"SEG", "SR", "RTSTRUCT"}
    """Of these, images only when the study itself has such images."""

    def since(self, day: date) -> date:
        """Return the day on which the past of a study of a day begins; no day before there were images."""
        return day - timedelta(days=min(self.days, max(0, (day - FIRST).days)))

    def of(self, present: Iterable[str]) -> frozenset[str]:
        """Return the modalities to fetch for a study with these modalities; none when nothing can be compared.

        What is untold may be any of them, and is among them.
        """
        images = self.modalities & IMAGES & set(present)
        return images | (self.modalities - IMAGES) | UNTOLD if images else frozenset()


@dataclass(frozen=True, kw_only=True)
class Present:
    """The study whose past is asked for."""

    study_instance_uid: str
    study_date: date
    identities: tuple[tuple[str, str], ...]
    """Issuer and PatientID of the patient, then of those who were declared the same."""
    modalities: frozenset[str]
    """The modalities of its series."""

    def owns(self, row: PatientStudy) -> bool:
        """Return True when a row of an answer is of the same patient, as far as it says."""
        return any(row.patient_id == known and row.issuer in ("", by) for by, known in self.identities)

    def follows(self, row: PatientStudy) -> bool:
        """Return True when a row of an answer is of an earlier day, and not of the study itself."""
        is_dated = len(row.study_date) == 8 and row.study_date.isdecimal()
        is_other = UID.fullmatch(row.study_instance_uid) and row.study_instance_uid != self.study_instance_uid
        return bool(is_dated and is_other) and row.study_date < f"{self.study_date:%Y%m%d}"


__all__ = ["IMAGES", "UNTOLD", "Present", "Wanted"]
