"""What stands for a patient wherever a list travels with weights or with images that models learn from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping


def patient_key(patient_id: str) -> str:
    """Return what stands for a patient: 16 digits of a hash, so that no identifier travels with weights.

    Whoever knows an identifier can tell whether it is among them; that is what it is for.
    """
    return hashlib.sha256(patient_id.encode()).hexdigest()[:16]


def known_as(patient_id: str) -> tuple[str, str, str]:
    """Return the names that a patient, given by PatientID or by its key, may have in a list of keys.

    Cases of a node carry the key for the PatientID, so a card that learned from them holds the key of the key.
    """
    key = patient_key(patient_id)
    return patient_id, key, patient_key(key)


def fold_of_patient(patient_id: str, held_out: Mapping[str, int]) -> int | None:
    """Return the fold in which a list of keys holds a patient out, under any name; None when he is not in it."""
    return next((held_out[name] for name in known_as(patient_id) if name in held_out), None)


__all__ = ["fold_of_patient", "known_as", "patient_key"]
