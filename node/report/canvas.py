"""Grey planes of a volume as pictures, with lines and words on them. Positions on a plane are (row, column)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from node.report.typeface import typeface
from plugins.contract import Volume
from store.reading_order import in_order, joined, turns

Rgb = tuple[int, int, int]
RowCol = tuple[float, float]
INK: Rgb = (232, 236, 241)
DARK_INK: Rgb = (38, 46, 56)
MUTED: Rgb = (150, 160, 172)
GROUND: Rgb = (13, 17, 23)
SMOOTH = 3


@dataclass(frozen=True, kw_only=True)
class Window:
    """The grey scale of a picture."""

    low: float
    """Value shown darkest (brightest when inverted)."""
    high: float
    """Value at the other end."""
    inverted: bool = False
    """True for PET: uptake is dark."""
    words: str = ""
    """How the picture names it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Plane:
    """A flat cut or projection of a volume, rows downwards on the picture."""

    values: NDArray[np.float32]
    """`(R, C)`."""
    spacing_mm: tuple[float, float]
    """Distance of rows and of columns, mm."""
    letters: tuple[str, str, str, str]
    """Which side of the patient lies left, right, up and down."""


@lru_cache(maxsize=16)
def font(size: int, bold: bool = False, *, as_stored: bool = False) -> ImageFont.FreeTypeFont:
    """Return a typeface that the installed packages bring along; with `as_stored` it leaves their order alone."""
    layout = ImageFont.Layout.BASIC if as_stored else None
    return ImageFont.truetype(str(typeface(bold)), size, layout_engine=layout)


def write(pen: ImageDraw.ImageDraw, place: tuple[float, float], text: str, size: int, ink: Rgb) -> None:
    """Draw a text from outside, in bold, from a place to the right."""
    face = font(size, bold=True, as_stored=turns(text))
    pen.text(place, in_order(joined(text)), font=face, fill=ink, anchor="lm")


def _letter(direction: NDArray[np.float64]) -> str:
    axis = int(np.argmax(np.abs(direction)))
    return ("LR", "PA", "HF")[axis][0 if direction[axis] > 0 else 1]


def letters_of(right: NDArray[np.float64], down: NDArray[np.float64]) -> tuple[str, str, str, str]:
    """Return the letters of the patient's sides at left, right, top and bottom, by directions on a picture in LPS."""
    return (_letter(-right), _letter(right), _letter(-down), _letter(down))


def slice_plane(volume: Volume, k: int) -> Plane:
    """Return slice k of a volume."""
    affine = volume.geometry.affine[:3, :3]
    _, r_mm, c_mm = volume.spacing_mm
    return Plane(
        values=volume.array[k], spacing_mm=(r_mm, c_mm), letters=letters_of(affine[:, 2], affine[:, 1])
    )


def across_plane(volume: Volume, values: NDArray[np.float32]) -> Plane:
    """Return `values` `(K, C)`, a cut or projection along the rows, last slice on top (coronal for axial ones)."""
    affine = volume.geometry.affine[:3, :3]
    k_mm, _, c_mm = volume.spacing_mm
    return Plane(
        values=values[::-1], spacing_mm=(k_mm, c_mm), letters=letters_of(affine[:, 2], -affine[:, 0])
    )


class Panel:
    """A square picture of one plane; the one thing here that is drawn on and changed."""

    def __init__(self, plane: Plane, window: Window, size: int, *, centre: RowCol, field_mm: float) -> None:
        self.size = size
        self.plane = plane
        self.centre = centre
        self.mm_per_pixel = field_mm / size
        self.on_white = window.inverted
        self.image = self._grey(window).convert("RGB")

    @classmethod
    def whole(cls, plane: Plane, window: Window, size: int) -> Panel:
        """Return a picture of the whole plane."""
        rows, columns = plane.values.shape
        extent = max(rows * plane.spacing_mm[0], columns * plane.spacing_mm[1])
        return cls(plane, window, size, centre=((rows - 1) / 2, (columns - 1) / 2), field_mm=extent)

    def _indices(self) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        offset_mm = (np.arange(self.size) + 0.5 - self.size / 2) * self.mm_per_pixel
        rows = self.centre[0] + offset_mm / self.plane.spacing_mm[0]
        columns = self.centre[1] + offset_mm / self.plane.spacing_mm[1]
        return rows, columns

    def _sample(self, values: NDArray[np.float32], outside: float, order: int = 1) -> NDArray[np.float32]:
        rows, columns = self._indices()
        grid = np.meshgrid(rows, columns, indexing="ij")
        out = ndimage.map_coordinates(
            values, grid, order=order, mode="constant", cval=outside, prefilter=False
        )
        return np.asarray(out, dtype=np.float32)

    def _grey(self, window: Window) -> Image.Image:
        values = self._sample(self.plane.values, window.low)
        level = np.clip((values - window.low) / (window.high - window.low), 0, 1)
        level = 1 - level if window.inverted else level
        return Image.fromarray((level * 255).astype(np.uint8), mode="L")

    def at(self, point: RowCol) -> tuple[float, float]:
        """Return the pixel (x, y) of a point of the plane."""
        (row, column), (r_mm, c_mm) = point, self.plane.spacing_mm
        return (
            (column - self.centre[1]) * c_mm / self.mm_per_pixel + self.size / 2,
            (row - self.centre[0]) * r_mm / self.mm_per_pixel + self.size / 2,
        )

    def tint(self, region: NDArray[np.bool_], colour: Rgb, strength: float) -> None:
        """Colour the voxels of a region `(R, C)`; the grey shines through."""
        share = self._sample(region.astype(np.float32), 0.0, order=0)
        alpha = Image.fromarray((share * 255 * strength).astype(np.uint8), mode="L")
        self.image.paste(Image.new("RGB", self.image.size, colour), mask=alpha)

    def lines(self, paths: Iterable[Sequence[RowCol]], colour: Rgb, width: float) -> None:
        """Draw open lines through points of the plane, with smooth edges and a dark rim."""
        layer = Image.new("L", (self.size * SMOOTH, self.size * SMOOTH), 0)
        rim = layer.copy()
        pens = ((ImageDraw.Draw(rim), width + 1.6), (ImageDraw.Draw(layer), width))
        for path in paths:
            pixels = [(x * SMOOTH, y * SMOOTH) for x, y in map(self.at, path)]
            for pen, thick in pens:
                pen.line(pixels, fill=255, width=max(1, round(thick * SMOOTH)), joint="curve")
        for mask, ink, strength in ((rim, (0, 0, 0), 0.55), (layer, colour, 1.0)):
            small = mask.resize(self.image.size, Image.Resampling.BOX).point(lambda v, s=strength: int(v * s))
            self.image.paste(Image.new("RGB", self.image.size, ink), mask=small)

    def ring(self, point: RowCol, radius_px: float, colour: Rgb, width: float = 1.5) -> None:
        """Draw a circle of fixed size on the picture around a point of the plane."""
        turn = np.linspace(0, 2 * np.pi, 49)
        r_px, c_px = (mm / self.mm_per_pixel for mm in self.plane.spacing_mm)
        row, column = point
        circle = [(row + radius_px * np.sin(t) / r_px, column + radius_px * np.cos(t) / c_px) for t in turn]
        self.lines([circle], colour, width)

    def words(
        self, x: float, y: float, text: str, *, size: int = 12, colour: Rgb | None = None, anchor: str = "la"
    ) -> None:
        """Write words at a pixel, readable on any grey."""
        dark_on_white = self.on_white and colour is None
        ink, halo = (DARK_INK, (255, 255, 255)) if dark_on_white else (colour or INK, (0, 0, 0))
        pen = ImageDraw.Draw(self.image)
        pen.text((x, y), text, font=font(size), fill=ink, anchor=anchor, stroke_width=2, stroke_fill=halo)

    def letter_sides(self) -> None:
        """Write which side of the patient is where."""
        left, right, up, down = self.plane.letters
        middle, edge = self.size / 2, self.size - 6
        for x, y, text, anchor in (
            (6, middle, left, "lm"),
            (edge, middle, right, "rm"),
            (middle, 6, up, "ma"),
            (middle, edge, down, "md"),
        ):
            self.words(x, y, text, size=13, anchor=anchor)

    def scale_bar(self, *, length_mm: float) -> None:
        """Draw a bar of known length in the lower left corner."""
        pixels = length_mm / self.mm_per_pixel
        y, x = self.size - 12, 12
        pen = ImageDraw.Draw(self.image)
        ink, rim = (DARK_INK, (255, 255, 255)) if self.on_white else (INK, (0, 0, 0))
        pen.rectangle((x - 1, y - 1, x + pixels + 1, y + 3), fill=rim)
        pen.rectangle((x, y, x + pixels, y + 2), fill=ink)
        self.words(x, y - 4, f"{length_mm:g} mm", size=11, anchor="ld")
