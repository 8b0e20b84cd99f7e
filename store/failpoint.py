"""Places at which a test may end the process, as a power cut would: between two steps that must not be torn apart.

`NADIR_FAILPOINT=name:n` ends the process, without any clean-up, when the place `name` is reached for the n-th time.
"""

from __future__ import annotations

import os
from collections import Counter

KILLED = 137
_reached: Counter[str] = Counter()


def reach(name: str) -> None:
    """End this process when the environment asks for it here; nothing otherwise."""
    wanted = os.environ.get("NADIR_FAILPOINT", "")
    if not wanted:
        return
    at, _, count = wanted.partition(":")
    if at != name:
        return
    _reached[name] += 1
    if _reached[name] >= int(count or 1):
        os._exit(KILLED)


__all__ = ["reach"]
