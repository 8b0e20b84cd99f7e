"""The header of an object that the node keeps, for whoever can do without it."""

from __future__ import annotations

from pydicom import Dataset

from plugins.errors import Refused
from store.dicom.files import read_file
from store.dicom.values import quiet
from store.objects import ObjectStore


def header_of(objects: ObjectStore, sha256: str) -> Dataset | None:
    """Return the header of an object; None when the object is gone or broken."""
    path = objects.path(sha256)
    if not path.is_file():
        return None
    with quiet():
        try:
            file = read_file(path)
        except Refused:
            return None
    return None if file is None else file.header


__all__ = ["header_of"]
