"""Pixel data to arrays of stored values, for every transfer syntax that carries a whole image.

Sizes are checked before a decoder runs: a small file may declare a huge image. Decoders are numpy (native), an own
RLE reader and imagecodecs (libjpeg-turbo, CharLS, OpenJPEG), all under permissive licences.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset

from plugins.errors import Refused
from store.dicom.codestreams import (
    BadStream,
    jpeg_2000_is_lossy,
    jpeg_2000_size,
    jpeg_ls_is_lossy,
    jpeg_size,
    require_whole_jpeg,
    require_whole_jpeg_2000,
)
from store.dicom.files import File
from store.dicom.values import integer, text, told_once

Stored = NDArray[Any]

NATIVE = {
    str(uid.ImplicitVRLittleEndian),
    str(uid.ExplicitVRLittleEndian),
    str(uid.DeflatedExplicitVRLittleEndian),
    str(uid.ExplicitVRBigEndian),
}
WHOLE_BYTES = {str(uid.ImplicitVRLittleEndian), str(uid.ExplicitVRLittleEndian)}
JPEG = {
    str(uid.JPEGBaseline8Bit),
    str(uid.JPEGExtended12Bit),
    str(uid.JPEGLossless),
    str(uid.JPEGLosslessSV1),
}
JPEG_LS = {str(uid.JPEGLSLossless), str(uid.JPEGLSNearLossless)}
JPEG_2000 = {str(uid.JPEG2000Lossless), str(uid.JPEG2000)}
HT_JPEG_2000 = {str(uid.HTJ2KLossless), str(uid.HTJ2KLosslessRPCL), str(uid.HTJ2K)}
RLE = str(uid.RLELossless)
DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"
LOSSY = {str(uid.JPEGBaseline8Bit), str(uid.JPEGExtended12Bit)}
MAY_BE_LOSSY = {str(uid.JPEGLSNearLossless), str(uid.JPEG2000), str(uid.HTJ2K)}
HEAD_BYTES = 4096
MAX_BYTES = 4 << 30


@dataclass(frozen=True, kw_only=True)
class PixelFormat:
    """How pixels are stored."""

    rows: int
    """Rows of a frame."""
    columns: int
    """Columns of a frame."""
    frames: int
    """Number of frames."""
    bits_allocated: int
    """1, 8, 16 or 32."""
    bits_stored: int
    """Bits that carry the value."""
    high_bit: int
    """Highest of them."""
    signed: bool
    """Two's complement."""

    @property
    def frame_pixels(self) -> int:
        """Return the pixels of one frame."""
        return self.rows * self.columns

    @property
    def cells(self) -> PixelFormat:
        """Return the format in which all bits of a cell carry the value."""
        return replace(self, bits_stored=self.bits_allocated, high_bit=self.bits_allocated - 1)

    @property
    def lowest(self) -> int:
        """Return the lowest value that the stored bits can hold."""
        return -(1 << (self.bits_stored - 1)) if self.signed else 0

    @property
    def highest(self) -> int:
        """Return the highest value that the stored bits can hold."""
        return self.lowest + (1 << self.bits_stored) - 1

    @property
    def whole_bytes(self) -> int:
        """Return the bytes of all frames, uncompressed."""
        return (self.frame_pixels * self.frames * self.bits_allocated + 7) // 8


def pixel_format(file: File) -> PixelFormat:
    """Return how the pixels of a grey image are stored, checked before anything is decoded.

    Refuses colour (`colour-image`), no or non-integer pixels (`no-pixel-data`, `unsupported-pixels`), more than 4 GiB
    (`too-large`), native data that are too short (`truncated-pixel-data`), a syntax without decoder (`no-decoder`).
    """
    if file.pixel_kind is None:
        raise Refused("no-pixel-data", f"instance {file.sop_instance_uid} has no pixel data; send it again")
    if file.pixel_kind != "integer":
        raise Refused("unsupported-pixels", "its pixels are not integers")
    layout = _stated_format(file.header)
    _check_size(file, layout)
    return layout


STATED: Final = ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")


@told_once(*STATED, "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames")
def _stated_format(header: Dataset) -> PixelFormat:
    rows, columns, allocated, stored, high, signed = (integer(header, keyword) for keyword in STATED)
    if (integer(header, "SamplesPerPixel") or 1) != 1:
        raise Refused(
            "colour-image", f"{text(header, 'PhotometricInterpretation') or 'colour'} images are not measured"
        )
    if rows is None or columns is None or allocated is None:
        raise Refused("unsupported-pixels", "Rows, Columns or BitsAllocated is absent")
    stored = allocated if stored is None else stored
    high = stored - 1 if high is None else high
    if allocated not in (1, 8, 16, 32) or not 0 < stored <= allocated or not stored - 1 <= high < allocated:
        raise Refused(
            "unsupported-pixels", f"{stored} bits of {allocated} with high bit {high} cannot be read"
        )
    return PixelFormat(
        rows=rows,
        columns=columns,
        frames=integer(header, "NumberOfFrames") or 1,
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=high,
        signed=bool(signed),
    )


def _check_size(file: File, layout: PixelFormat) -> None:
    if layout.rows < 1 or layout.columns < 1 or layout.frames < 1:
        raise Refused("unsupported-pixels", "an image has no rows, columns or frames")
    if layout.whole_bytes > MAX_BYTES:
        raise Refused(
            "too-large",
            f"{layout.rows} x {layout.columns} x {layout.frames} pixels are more than {MAX_BYTES >> 30} GiB",
        )
    if file.transfer_syntax in NATIVE:
        if file.pixel_bytes_there < layout.whole_bytes:
            raise Refused(
                "truncated-pixel-data",
                f"the pixel data of instance {file.sop_instance_uid} end before the image does; send it again",
            )
    elif file.transfer_syntax not in {*JPEG, *JPEG_LS, *JPEG_2000, *HT_JPEG_2000, RLE, DEFLATED_FRAMES}:
        name = uid.UID(file.transfer_syntax).name
        raise Refused("no-decoder", f"there is no decoder for {name}; send it uncompressed")


def is_lossy(file: File) -> bool:
    """Return whether an image was compressed with loss, by its transfer syntax or the head of its code stream."""
    syntax = file.transfer_syntax
    if syntax not in MAY_BE_LOSSY:
        return syntax in LOSSY
    try:
        head = file.first_fragment(HEAD_BYTES)
        return jpeg_ls_is_lossy(head) if syntax in JPEG_LS else jpeg_2000_is_lossy(head)
    except BadStream:  # for who decodes it
        return False


def can_decode(transfer_syntax_uid: str) -> bool:
    """Return True when images of this transfer syntax can be decoded on this machine."""
    codecs = (
        (JPEG, ("JPEG8",)),
        (JPEG_LS, ("JPEGLS",)),
        (JPEG_2000 | HT_JPEG_2000, ("JPEG2K",)),
        ({RLE}, ("PACKBITS",)),
    )
    for syntaxes, names in codecs:
        if transfer_syntax_uid in syntaxes:
            try:
                import imagecodecs

                return all(bool(getattr(imagecodecs, name).available) for name in names)
            except (ImportError, AttributeError):
                return False
    return transfer_syntax_uid in {*NATIVE, DEFLATED_FRAMES}


def open_frames(file: File, layout: PixelFormat) -> Callable[[int], Stored]:
    """Return a function from frame index to the stored values `(R, C)`, sign and unused bits settled.

    Refuses as `open_cells`.
    """
    cells = open_cells(file, layout)
    return lambda index: settle(cells(index), layout)


def open_cells(file: File, layout: PixelFormat) -> Callable[[int], Stored]:
    """Return a function from frame index to the cells `(R, C)` as they are, with whatever is in unused bits.

    A frame is read or decoded when it is asked for, into an array of its own. Refuses (`truncated-pixel-data`,
    `bad-pixel-data`), also when a frame is asked for.
    """
    if file.transfer_syntax in WHOLE_BYTES and layout.bits_allocated > 1:
        return lambda index: _plain(layout, index, file)
    if file.transfer_syntax in NATIVE:
        data = file.pixel_bytes()
        return lambda index: _native(data, layout, index, file)
    encoded = file.pixel_frames(layout.frames)
    return lambda index: decode_frame(encoded[index], layout, file)


def _plain(layout: PixelFormat, index: int, file: File) -> Stored:
    """Return one frame that lies in the file as it is in memory."""
    frame = np.empty((layout.rows, layout.columns), dtype=f"<u{layout.bits_allocated // 8}")
    file.read_pixels(index * frame.nbytes, frame)
    return frame


def _native(data: bytes, layout: PixelFormat, index: int, file: File) -> Stored:
    """Return one uncompressed frame; single bits are packed across frames (PS3.5 8.1.1)."""
    count, first = layout.frame_pixels, index * layout.frame_pixels
    if layout.bits_allocated == 1:
        raw = np.frombuffer(data, dtype=np.uint8)[first // 8 : (first + count + 7) // 8]
        flat = np.unpackbits(raw, bitorder="little")[first % 8 : first % 8 + count]
    elif layout.bits_allocated == 8 and file.transfer_syntax == uid.ExplicitVRBigEndian:
        flat = _swapped_bytes(file, data)[first : first + count]
    else:
        order = ">" if file.transfer_syntax == uid.ExplicitVRBigEndian else "<"
        width = layout.bits_allocated // 8
        flat = np.frombuffer(data, dtype=f"{order}u{width}", count=count, offset=first * width)
    return flat.reshape(layout.rows, layout.columns)


def _swapped_bytes(file: File, data: bytes) -> Stored:
    """Return the 8-bit pixels of a big endian file, which lie swapped in words when the VR is OW (PS3.5 annex D)."""
    with file.path.open("rb") as handle:
        handle.seek(file.pixel_offset - 8)
        is_words = handle.read(2) == b"OW"
    if not is_words:
        return np.frombuffer(data, dtype=np.uint8)
    return np.frombuffer(data[: len(data) // 2 * 2], dtype=np.uint16).byteswap().view(np.uint8)


def decode_frame(data: bytes, layout: PixelFormat, file: File) -> Stored:
    """Return one decoded frame `(R, C)`. Refuses (`bad-pixel-data`) what does not fit the header or the codec."""
    decoder = _decoder(file.transfer_syntax, layout)
    try:
        _check_stream(data, layout, file.transfer_syntax)
        frame = decoder(data)
        if frame.shape != (layout.rows, layout.columns):
            raise BadStream(f"it decodes to shape {frame.shape}")
    except Exception as error:  # each codec has its own errors; a frame that none can read is one thing to us
        why = error if isinstance(error, BadStream) else type(error).__name__
        raise Refused(
            "bad-pixel-data",
            f"a frame of instance {file.sop_instance_uid} cannot be decoded ({why}); send it again",
        ) from error
    if file.transfer_syntax not in (RLE, DEFLATED_FRAMES) and not _fits(frame, layout):
        raise Refused(
            "bad-pixel-data",
            f"a frame of instance {file.sop_instance_uid} decodes to values from {frame.min()} to {frame.max()}, which "
            f"its header's {layout.bits_stored} bits cannot hold; correct BitsStored or PixelRepresentation",
        )
    return frame


def _fits(frame: Stored, layout: PixelFormat) -> bool:
    """Tell whether decoded values are of the bits up to the high bit; negative ones may come as signed or not."""
    limit = 1 << (layout.high_bit + 1)
    if frame.min() >= 0 and frame.max() < limit:
        return True
    values = frame.view(f"i{frame.itemsize}")
    return layout.signed and bool(-limit <= 2 * int(values.min()) and 2 * int(values.max()) < limit)


def _decoder(syntax: str, layout: PixelFormat) -> Callable[[bytes], Stored]:
    import imagecodecs

    if syntax == RLE:
        return lambda data: _rle(data, layout)
    if syntax == DEFLATED_FRAMES:
        return lambda data: _inflated(data, layout)
    if syntax in JPEG_LS:
        return lambda data: imagecodecs.jpegls_decode(data)
    if syntax in JPEG_2000 or syntax in HT_JPEG_2000:
        return lambda data: imagecodecs.jpeg2k_decode(data)
    return lambda data: imagecodecs.jpeg8_decode(data)


def _rle(data: bytes, layout: PixelFormat) -> Stored:
    """Decode PS3.5 annex G: one PackBits segment per byte of a pixel, highest byte first."""
    import imagecodecs

    size = layout.bits_allocated // 8
    head = np.frombuffer(data[:64], dtype="<u4")
    if len(head) < 16 or head[0] != size:
        raise ValueError("the RLE header does not fit the pixels")
    starts = [int(s) for s in head[1 : 1 + size]]
    ends = [*starts[1:], len(data)]
    planes = np.empty((layout.frame_pixels, size), dtype=np.uint8)
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        part = np.frombuffer(imagecodecs.packbits_decode(data[start:end]), dtype=np.uint8)
        planes[:, size - 1 - i] = part[: layout.frame_pixels]
    return planes.view(f"<u{size}").reshape(layout.rows, layout.columns)


def _inflated(data: bytes, layout: PixelFormat) -> Stored:
    """Inflate one deflated frame, never to more than it must hold."""
    size = (layout.frame_pixels * layout.bits_allocated + 7) // 8
    plain = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size)
    if layout.bits_allocated == 1:
        bits = np.unpackbits(np.frombuffer(plain, dtype=np.uint8), bitorder="little")
        return bits[: layout.frame_pixels].reshape(layout.rows, layout.columns)
    flat = np.frombuffer(plain, dtype=f"<u{layout.bits_allocated // 8}")
    return flat.reshape(layout.rows, layout.columns)


def _check_stream(data: bytes, layout: PixelFormat, syntax: str) -> None:
    """Raise `BadStream` where a code stream declares another size than the header or ends early."""
    if syntax in (RLE, DEFLATED_FRAMES):
        return
    is_jpeg_2000 = syntax in JPEG_2000 or syntax in HT_JPEG_2000
    rows, columns = jpeg_2000_size(data) if is_jpeg_2000 else jpeg_size(data)
    if (rows, columns) != (layout.rows, layout.columns):
        raise BadStream(f"it declares {rows} x {columns}")
    if is_jpeg_2000:
        require_whole_jpeg_2000(data)
    elif syntax in JPEG:  # CharLS refuses what ends early itself
        require_whole_jpeg(data)


def settle(frame: Stored, layout: PixelFormat) -> Stored:
    """Return the cells of a frame without the bits beside the value, as whole numbers of their width, signed or not."""
    if layout.bits_allocated == 1:
        return frame
    width = layout.bits_allocated // 8
    unsigned = frame.astype(f"u{width}", copy=False)
    left = layout.bits_allocated - 1 - layout.high_bit
    right = layout.bits_allocated - layout.bits_stored
    values = unsigned.view(f"i{width}") if layout.signed else unsigned
    if right == 0:
        return values
    shifted = values << left
    shifted >>= right
    return shifted
