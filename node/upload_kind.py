"""What a file is that somebody loads up, by its first bytes and its name, and what nobody meant to load up."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Literal

from node.unzip import ARCHIVES, is_nifti_name
from plugins.errors import Refused

HEAD_BYTES = 512
DIRECTORY_CLASS = b"1.2.840.10008.1.3.10"
NIFTI_HEADS = tuple(n.to_bytes(4, order) for n in (348, 540) for order in ("little", "big"))
LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
Kind = Literal["dicom", "zip", "nifti"]
SKIPS = {
    "hidden": "hidden files and what systems lay beside others are passed over",
    "dicomdir": "it is a list of files (DICOMDIR), which holds no image",
    "empty": "it is empty",
    "misnamed": "its name says DICOM and it is none (no DICM after 128 bytes)",
    "not-dicom": "it is neither DICOM nor a zip file nor NIfTI (.nii, .nii.gz)",
}
"""What is passed over because nobody meant to load it up, with its sentence."""


def kind_of(path: Path, name: str) -> Kind:
    """Return what a file is by its first bytes. Refuses `hidden`, `dicomdir`, `empty`, `not-dicom` and `archive`."""
    require_wanted(name)
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not head:
        raise Refused("empty", SKIPS["empty"])
    if head[128:132] == b"DICM":
        if DIRECTORY_CLASS in head:
            raise Refused("dicomdir", SKIPS["dicomdir"])
        return "dicom"
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "zip"
    if is_nifti_name(name) and (head[:2] == b"\x1f\x8b" or head[:4] in NIFTI_HEADS):
        return "nifti"
    if name.lower().endswith(ARCHIVES):
        raise Refused("archive", "of archives only zip files are unpacked; make one, or load up the folder")
    if PurePosixPath(name).suffix.lower() in (".dcm", ".dicom", ".ima"):
        raise Refused("misnamed", SKIPS["misnamed"])
    raise Refused("not-dicom", SKIPS["not-dicom"])


def require_wanted(name: str) -> None:
    """Refuse (`hidden`, `dicomdir`) files that lie about beside images, by their names."""
    parts = [part.lower() for part in PurePosixPath(name.replace("\\", "/")).parts]
    if any((part.startswith(".") and part not in (".", "..")) or part in LITTER for part in parts):
        raise Refused("hidden", SKIPS["hidden"])
    if parts and parts[-1] == "dicomdir":
        raise Refused("dicomdir", SKIPS["dicomdir"])


__all__ = ["SKIPS", "kind_of", "require_wanted"]
