"""The code that a MONAI bundle brings in its folder (`scripts/`), for as long as the bundle runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType


@contextmanager
def code_of(folder: Path) -> Iterator[None]:
    """Let what lies in a bundle's folder be imported, as MONAI itself does, and forget it afterwards.

    Nothing compiled is written beside it: the folder stays what is vouched for. What was imported from there is not
    served to another bundle whose modules have the same names.
    """
    place, wrote = str(folder.absolute()), sys.dont_write_bytecode
    sys.path.insert(1, place)  # where MONAI puts it
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = wrote
        if place in sys.path:
            sys.path.remove(place)
        for name, module in list(sys.modules.items()):
            if any(Path(one).is_relative_to(place) for one in _places(module)):
                sys.modules.pop(name, None)


def _places(module: ModuleType) -> list[str]:
    """Return the file of a module, or the folders of a package without one."""
    file = getattr(module, "__file__", None)
    return [file] if isinstance(file, str) else [str(one) for one in getattr(module, "__path__", ())]


__all__ = ["code_of"]
