"""What foreign code said as it stopped, for people to read, and what of its answers is none."""

from __future__ import annotations

import re
from typing import Any

from models.files import BadModel

UNSAFE = "weights_only"
"""Stands in every message in which torch says how to read a pickle without its protection."""
ADDRESS = re.compile(r" object at 0x[0-9a-fA-F]+")
MOST_CAUSES = 8


def said_by(error: BaseException) -> str:
    """Return the type of an error and its message, and those of the errors that it names as its causes.

    A message that is such advice is left out, and so is where in memory an object lay.
    """
    said: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(said) < MOST_CAUSES:
        kind, message = type(cause).__name__, ADDRESS.sub("", str(cause)).strip()
        said.append(kind if UNSAFE in message or not message else f"{kind}: {message}")
        cause = cause.__cause__
    return ", because of ".join(said)


def require_finite(answer: Any, code: str) -> None:
    """Raise BadModel with this code when a network's answer, a tensor `(channel, ...)`, holds NaN or infinity."""
    import torch

    # One channel after the other: an answer may be several GB, and the test makes arrays of that size.
    wrong = sum(int(torch.count_nonzero(~torch.isfinite(channel))) for channel in answer)
    if wrong:
        raise BadModel(
            code,
            f"the network gave NaN or infinity for {wrong} of {answer.numel()} numbers of its answer, of which nothing"
            " can be told: its weights are spoiled, or its preparation of the image does not fit it",
        )


__all__ = ["require_finite", "said_by"]
