"""What an nnU-Net answers before it becomes labels, by whichever package it is run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from models.foreign import require_finite


@contextmanager
def finite_logits() -> Iterator[None]:
    """Let every predictor of nnunetv2 raise BadModel (`model-failed`) for an answer that is not finite.

    By itself it takes the first of its labels, or the last, where the network gives NaN.
    """
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    own = nnUNetPredictor.predict_logits_from_preprocessed_data

    def checked(predictor: Any, *given: Any, **named: Any) -> Any:
        logits = own(predictor, *given, **named)
        require_finite(logits, "model-failed")
        return logits

    nnUNetPredictor.predict_logits_from_preprocessed_data = checked
    try:
        yield
    finally:
        nnUNetPredictor.predict_logits_from_preprocessed_data = own


__all__ = ["finite_logits"]
