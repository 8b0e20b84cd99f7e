"""What the extra `learn` brings, asked for before hours of work that would end without it."""

from __future__ import annotations

from importlib.util import find_spec

from models.extras import how_to_install
from plugins.errors import Refused

NEEDED = ("torch", "monai")


def require_learn() -> None:
    """Return when what networks are trained and judged with is installed. Refuses `not-installed`."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        what = f"learned models need {' and '.join(missing)}, not installed here"
        raise Refused("not-installed", f"{what}: {how_to_install('learn')}")


__all__ = ["require_learn"]
