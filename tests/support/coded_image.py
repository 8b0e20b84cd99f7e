"""An image whose pixels are a code stream that a test gives, and its values as they are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom import uid
from pydicom.encaps import encapsulate

from store.dicom.decode import open_frames, pixel_format
from store.dicom.files import File, read_file


def file_of(path: Path) -> File:
    """Return a file that is there."""
    file = read_file(path)
    assert file is not None
    return file


def frames(path: Path) -> np.ndarray:
    """Return the stored values of an image, `(F, R, C)`."""
    file = file_of(path)
    layout = pixel_format(file)
    read = open_frames(file, layout)
    return np.stack([read(i) for i in range(layout.frames)])


def with_frame(path: Path, syntax: uid.UID, frame: bytes, *, items: int = 1, **header: int) -> Path:
    """Write a code stream in the place of an image's pixels."""
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([frame], fragments_per_frame=items)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.update(header)
    dataset.save_as(path)
    return path
