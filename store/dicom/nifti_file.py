"""A NIfTI file (.nii, .nii.gz), judged by its header alone before anything of it is unpacked, and read to its end.

Header extensions are skipped and never held. gzip keeps checksum and length behind the last byte: who stops at the last
voxel takes damaged voxels for sound ones.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from numpy.typing import NDArray

from plugins.errors import Refused

MOST_VOXELS = 1 << 29
"""As many as a volume of DICOM may have."""
MOST_BESIDE = 64 << 20
"""Bytes before the voxels, and bytes behind them."""
LONGEST_HEADER = 540
BLOCK = 1 << 20


@contextmanager
def open_nifti(
    path: Path, refusal: str, most_voxels: int = MOST_VOXELS, name: str = ""
) -> Iterator[tuple[Any, Any]]:
    """Give the header of a NIfTI file and its voxels `(i, j, k)`, which become an array inside; then check the rest.

    Refusals call the file `name`, else as it is called in its folder. Refuses `too-large` (more voxels than
    `most_voxels`, or more than 64 MiB before or behind them), and with the code `refusal` what cannot be read or does
    not fit its own checksum.
    """
    from nibabel.arrayproxy import ArrayProxy

    name = name or path.name
    try:
        with _stream(path) as stream:
            header = _header(stream)
            _require_bounds(header, name, most_voxels)
            yield header, ArrayProxy(stream, header)
            _read_rest(stream, name)
    except Refused:
        raise
    except Exception as error:  # nibabel and gzip raise many kinds of error on damaged files
        why = f"{name} cannot be read as NIfTI ({type(error).__name__})"
        if isinstance(error, EOFError | zlib.error | gzip.BadGzipFile):
            why += ": its gzip stream is damaged or ends early; copy it again from where it is whole"
        raise Refused(refusal, why) from error


def one_volume(voxels: NDArray[Any], refusal: str, name: str) -> NDArray[Any]:
    """Return voxels `(i, j, k)`, of one frame when they have further axes. Refuses with the code `refusal`."""
    while voxels.ndim > 3 and voxels.shape[-1] == 1:
        voxels = voxels[..., 0]
    if voxels.ndim != 3 or 0 in voxels.shape:
        raise Refused(refusal, f"{name} has the shape {voxels.shape}; give one volume")
    return voxels


def _stream(path: Path) -> Any:
    return gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb")


def _header(stream: BinaryIO) -> Any:
    """Return the header of NIfTI-1 or NIfTI-2, of either byte order. Raises ValueError for what is none."""
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    head = stream.read(LONGEST_HEADER)
    for kind in (Nifti1Header, Nifti2Header):
        if kind.may_contain_header(head):
            return kind(head[: kind.sizeof_hdr])
    raise ValueError("no header of NIfTI")


def _require_bounds(header: Any, name: str, most_voxels: int) -> None:
    """Refuse `too-large`. Raises ValueError for voxels that begin in the header."""
    shape = header.get_data_shape()
    if math.prod(shape) > most_voxels:
        size = " x ".join(map(str, shape))
        raise Refused("too-large", f"{size} voxels of {name} are too many; cut or resample it")
    offset = header.get_data_offset()
    if offset < header.single_vox_offset:
        raise ValueError("its voxels begin in its header")
    if offset > MOST_BESIDE:
        raise _beside(name, "before")


def _read_rest(stream: BinaryIO, name: str) -> None:
    """Read a gzip stream to its end, where its checksum is compared. Refuses `too-large`."""
    left = MOST_BESIDE
    while isinstance(stream, gzip.GzipFile) and (block := stream.read(BLOCK)):
        left -= len(block)
        if left < 0:
            raise _beside(name, "behind")


def _beside(name: str, where: str) -> Refused:
    return Refused(
        "too-large",
        f"{name} holds more than {MOST_BESIDE >> 20} MiB {where} its voxels; save it anew without",
    )


__all__ = ["one_volume", "open_nifti"]
