"""The application entity of this node, as it presents itself in every association, asked or asking."""

from __future__ import annotations

from pynetdicom import AE

from store.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME


class NamedAE(AE):  # type: ignore[misc]  # pynetdicom is untyped here
    """An application entity that names the implementation which its files name too, not pynetdicom."""

    def __init__(self, ae_title: str = "NADIR") -> None:
        super().__init__(ae_title)
        self.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        self.implementation_version_name = IMPLEMENTATION_VERSION_NAME


__all__ = ["NamedAE"]
