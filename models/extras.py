"""How more of what Nadir can do is installed. Nadir is not on PyPI: `nadir` there is somebody else's package."""

from __future__ import annotations


def how_to_install(extra: str = "") -> str:
    """Return the command for one of the extras in `pyproject.toml`, or for Nadir alone, and where it is given."""
    what = f"'.[{extra}]'" if extra else "."
    return f"pip install -c constraints.txt {what} in Nadir's folder"


__all__ = ["how_to_install"]
