"""What stands for a patient wherever a list travels with weights or with images that models learn from."""

from __future__ import annotations

import hashlib


def patient_key(patient_id: str) -> str:
    """Return what stands for a patient: 16 digits of a hash, so that no identifier travels with weights.

    Whoever knows an identifier can tell whether it is among them; that is what it is for.
    """
    return hashlib.sha256(patient_id.encode()).hexdigest()[:16]


__all__ = ["patient_key"]
