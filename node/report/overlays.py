"""Pictures of findings: where they are, their outline, and the long and short axis as they were measured."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage
from skimage.measure import find_contours

from node.report.canvas import (
    GROUND,
    INK,
    MUTED,
    Panel,
    Plane,
    Rgb,
    RowCol,
    Window,
    across_plane,
    font,
    slice_plane,
    write,
)
from node.report.shown import RESEARCH_USE, ShownFinding, StudyReport
from node.report.typeface import drawable
from plugins.contract import Mask, Volume
from store.decimals import in_decimals
from store.dicom.drawing import on_slice
from store.reading_order import APART

OUTLINE: Rgb = (255, 209, 64)
LONG: Rgb = (255, 107, 92)
SHORT: Rgb = (86, 204, 242)
LOW_DENSITY: Rgb = (255, 92, 76)
REGION: Rgb = (64, 156, 255)
PANEL, TILE, BAR, FOOT, GAP = 480, 288, 40, 58, 6
COLUMNS = 4

LUNG_WINDOW = Window(low=-1350.0, high=150.0, words="W 1500 L -600")
SOFT_WINDOW = Window(low=-160.0, high=240.0, words="W 400 L 40")


def window_of(volume: Volume, around: NDArray[np.float32]) -> Window:
    """Return the grey scale for a volume, given the values around what is to be seen."""
    return window_for(volume.role, volume.modality, around)


def window_for(role: str, modality: str, around: NDArray[np.float32]) -> Window:
    """Return the grey scale for values of a role (`ct`, `pet_suv`, ...) and modality."""
    if role == "ct":
        return LUNG_WINDOW if np.percentile(around, 25) < -400 else SOFT_WINDOW
    if role == "pet_suv":
        return Window(low=0.0, high=10.0, inverted=True, words="SUV 0-10")
    low, high = (float(np.percentile(around, q)) for q in (1, 99.5))
    return Window(
        low=low,
        high=max(high, low + 1e-6),
        inverted=modality == "PT",
        words=f"{low:.4g} to {high:.4g}",
    )


def key_slice(finding: ShownFinding, mask: Mask, volume: Volume) -> int:
    """Return the slice of the long axis, or the one with the largest area when there is no long axis."""
    axis = finding.measurement("long_axis")
    if axis is not None and axis.end_points_mm is not None:
        k = round(float(volume.to_index(axis.end_points_mm[0])[0]))
        if 0 <= k < volume.array.shape[0]:
            return k
    return mask.origin[0] + int(np.argmax(mask.voxels.sum(axis=(1, 2))))


def overlay(finding: ShownFinding, report: StudyReport) -> Image.Image | None:
    """Return the picture of one finding, or None when its mask or its volume is not at hand."""
    volume, mask = report.volume_of(finding), finding.mask
    if volume is None or mask is None or mask.count == 0:
        return None
    k = key_slice(finding, mask, volume)
    if finding.measurement("long_axis") is None:
        panels = _region_panels(finding, mask, volume, k)
    else:
        panels = _lesion_panels(finding, mask, volume, k)
    return _frame(panels, f"{finding.label}", f"{finding.plugin}  ·  {report.date}", numbers_line(finding))


def numbers_line(finding: ShownFinding) -> str:
    """Return the main numbers of a finding in one line."""
    shown = []
    for name, words in MAIN_NUMBERS:
        measurement = finding.measurement(name)
        if measurement is not None:
            shown.append(f"{words} {rounded(measurement.value)} {pretty_unit(measurement.unit)}".rstrip())
    return "   ".join(shown[:6])


MAIN_NUMBERS = (
    ("long_axis", "long"),
    ("short_axis", "short"),
    ("volume", "volume"),
    ("suv_max", "SUVmax"),
    ("suv_peak", "SUVpeak"),
    ("mtv", "MTV"),
    ("hu_mean", "mean"),
    ("suv_mean", "SUVmean"),
    ("liver_threshold", "liver threshold"),
    ("mean_lung_density", "mean"),
    ("laa_950", "LAA-950"),
    ("perc_15", "Perc15"),
)


def rounded(value: float) -> str:
    """Return a number with about three meaning digits, never in powers of ten."""
    size = abs(value)
    text = in_decimals(value, 0 if size >= 100 else 1 if size >= 10 else 2)
    return text.replace("-", "\N{MINUS SIGN}")


PRETTY = {
    "[hnsf'U]": "HU",
    "[HU]": "HU",
    "{SUVbw}g/ml": "",
    "g/ml{SUVbw}": "",
    "g/ml{SUVlbm(Janma)}": "",
    "1": "",
    "mL": "ml",
    "mm2": "mm²",
    "mm3": "mm³",
}


def pretty_unit(unit: str) -> str:
    """Return a UCUM unit as people read it."""
    return PRETTY.get(unit, unit)


def _lesion_panels(finding: ShownFinding, mask: Mask, volume: Volume, k: int) -> list[Panel]:
    row, column = _middle(mask, k)
    zoomed = _zoom(finding, mask, volume, k, PANEL)
    if volume.role.startswith("pet"):
        overview = Panel.whole(across_plane(volume, volume.array.max(axis=1)), _pet_window(volume), PANEL)
        _mark(overview, mask, 12)
        _corner(overview, "maximum projection", "")
    else:
        plane = slice_plane(volume, k)
        overview = Panel.whole(plane, _window_near(volume, mask, k), PANEL)
        half = zoomed.mm_per_pixel * PANEL / 2
        dr, dc = (half / mm for mm in plane.spacing_mm)
        box = [
            (row - dr, column - dc),
            (row - dr, column + dc),
            (row + dr, column + dc),
            (row + dr, column - dc),
        ]
        overview.lines([[*box, box[0]]], OUTLINE, 1.3)
        _corner(overview, f"slice {k + 1} of {volume.array.shape[0]}", _window_near(volume, mask, k).words)
    overview.letter_sides()
    return [overview, zoomed]


def _zoom(finding: ShownFinding, mask: Mask, volume: Volume, k: int, size: int) -> Panel:
    """Return the finding large, with outline and axes."""
    plane = slice_plane(volume, k)
    extent = max(n * mm for n, mm in zip(mask.voxels.shape[1:], plane.spacing_mm, strict=True))
    field_mm = max(50.0, 2.4 * extent)
    window = _window_near(volume, mask, k)
    panel = Panel(plane, window, size, centre=_middle(mask, k), field_mm=field_mm)
    panel.lines(_outlines(mask, k), OUTLINE, 1.6)
    for name, colour in (("long_axis", LONG), ("short_axis", SHORT)):
        measurement = finding.measurement(name)
        if measurement is not None and measurement.end_points_mm is not None:
            ends = on_slice(measurement.end_points_mm, volume, k)
            panel.lines([[(float(r), float(c)) for r, c in ends]], colour, 1.8)
    panel.scale_bar(length_mm=10.0 if field_mm < 150 else 50.0)
    panel.letter_sides()
    if size >= PANEL:
        _corner(panel, f"slice {k + 1} of {volume.array.shape[0]}", window.words)
        _legend(panel, finding)
    return panel


def _legend(panel: Panel, finding: ShownFinding) -> None:
    y = panel.size - 12.0
    for name, words, colour in (("short_axis", "short", SHORT), ("long_axis", "long", LONG)):
        measurement = finding.measurement(name)
        if measurement is not None:
            text = f"{words} {in_decimals(measurement.value)} {pretty_unit(measurement.unit)}"
            panel.words(panel.size - 10, y, text, size=13, colour=colour, anchor="rd")
            y -= 18


def _region_panels(finding: ShownFinding, mask: Mask, volume: Volume, k: int) -> list[Panel]:
    full = mask.full()
    r = round(_middle(mask, k)[0])
    cuts: tuple[tuple[Plane, NDArray[np.bool_], NDArray[np.float32]], ...] = (
        (slice_plane(volume, k), full[k], volume.array[k]),
        (across_plane(volume, volume.array[:, r]), full[::-1, r], volume.array[::-1, r]),
    )
    panels = []
    window = _window_near(volume, mask, k)
    for number, (plane, region, values) in enumerate(cuts):
        panel = Panel.whole(plane, window, PANEL)
        panel.tint(region, REGION, 0.16)
        if finding.measurement("laa_950") is not None:
            panel.tint(region & (values < -950), LOW_DENSITY, 0.8)
        panel.lines(_paths(ndimage.binary_fill_holes(region), (0, 0)), REGION, 1.2)
        where = f"slice {k + 1} of {volume.array.shape[0]}" if number == 0 else f"row {r + 1}"
        _corner(panel, where, window.words)
        panel.letter_sides()
        panel.scale_bar(length_mm=50.0)
        panels.append(panel)
    if finding.measurement("laa_950") is not None:
        panels[1].words(PANEL - 10, PANEL - 12, "below -950 HU", size=13, colour=LOW_DENSITY, anchor="rd")
    return panels


def _corner(panel: Panel, first: str, second: str) -> None:
    panel.words(8, 8, first, size=12)
    panel.words(8, 24, second, size=12)


def _middle(mask: Mask, k: int) -> RowCol:
    layer = mask.voxels[min(max(k - mask.origin[0], 0), mask.voxels.shape[0] - 1)]
    inside = np.argwhere(layer if layer.any() else mask.voxels.any(axis=0))
    low, high = inside.min(axis=0), inside.max(axis=0)
    row, column = (low + high) / 2 + np.asarray(mask.origin[1:])
    return (float(row), float(column))


def _window_near(volume: Volume, mask: Mask, k: int) -> Window:
    row, column = (round(v) for v in _middle(mask, k))
    reach = max(16, *mask.voxels.shape[1:])
    around = volume.array[k, max(row - reach, 0) : row + reach, max(column - reach, 0) : column + reach]
    return window_of(volume, around)


def _pet_window(volume: Volume) -> Window:
    return window_of(volume, volume.array.max(axis=1))


def _outlines(mask: Mask, k: int) -> list[list[RowCol]]:
    layer = k - mask.origin[0]
    if not 0 <= layer < mask.voxels.shape[0]:
        return []
    return _paths(mask.voxels[layer], mask.origin[1:])


def _paths(region: NDArray[np.bool_], origin: tuple[int, ...]) -> list[list[RowCol]]:
    padded = np.pad(region, 1).astype(np.float32)
    return [
        [(float(r) - 1 + origin[0], float(c) - 1 + origin[1]) for r, c in path]
        for path in find_contours(padded, 0.5)
    ]


def _frame(panels: Sequence[Panel], title: str, subtitle: str, numbers: str) -> Image.Image:
    width = sum(p.size for p in panels) + GAP * (len(panels) + 1)
    image = Image.new("RGB", (width, BAR + PANEL + FOOT), GROUND)
    pen = ImageDraw.Draw(image)
    write(pen, (GAP + 6, BAR / 2), _cut(drawable(title), 46), 17, INK)
    pen.text((width - GAP - 6, BAR / 2), subtitle, font=font(13), fill=MUTED, anchor="rm")
    x = GAP
    for panel in panels:
        image.paste(panel.image, (x, BAR))
        x += panel.size + GAP
    y = BAR + PANEL
    pen.text((GAP + 6, y + 18), numbers, font=font(15), fill=INK, anchor="lm")
    pen.text(
        (GAP + 6, y + 42), f"{RESEARCH_USE}. Computed, not verified.", font=font(11), fill=MUTED, anchor="lm"
    )
    return image


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def largest(findings: Sequence[ShownFinding], report: StudyReport, most: int) -> tuple[ShownFinding, ...]:
    """Return the findings that can be shown, in their order: at most `most`, then those of the largest volume."""
    sizes = {
        finding: finding.mask.count * volume.voxel_volume_mm3
        for finding in findings
        if finding.mask is not None and (volume := report.volume_of(finding)) is not None
    }
    chosen = set(sorted(sizes, key=lambda finding: -sizes[finding])[:most])
    return tuple(finding for finding in sizes if finding in chosen)


def montage(report: StudyReport, *, most: int = 14, note: str = "") -> Image.Image | None:
    """Return one picture of a study: projections with every lesion marked, then each lesion large.

    At most `most` lesions are shown large, the largest in the order of the findings; `note` stands below. None when
    there is nothing to show.
    """
    lesions = [
        f
        for f in report.findings
        if f.measurement("long_axis") and f.mask is not None and report.volume_of(f)
    ]
    tiles = [*_projections(report, lesions)]
    for finding in largest(lesions, report, most):
        volume = report.volume_of(finding)
        if volume is not None and finding.mask is not None and finding.mask.count:
            panel = _zoom(finding, finding.mask, volume, key_slice(finding, finding.mask, volume), TILE)
            tiles.append(_tile(panel, finding.label, numbers_line(finding)))
    if not tiles:
        return None
    columns = min(COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    width, height = tiles[0].size
    image = Image.new("RGB", (columns * (width + GAP) + GAP, BAR + rows * (height + GAP) + 22), GROUND)
    pen = ImageDraw.Draw(image)
    write(pen, (GAP + 6, BAR / 2), drawable(f"{report.date}{APART}   {report.description}"), 16, INK)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        image.paste(tile, (GAP + column * (width + GAP), BAR + row * (height + GAP)))
    shown = f"The {most} largest of {len(lesions)} lesions are shown here." if len(lesions) > most else ""
    foot = "   ".join(filter(None, (f"{RESEARCH_USE}. Computed, not verified.", shown, note)))
    pen.text((GAP + 6, image.height - 13), foot, font=font(11), fill=MUTED, anchor="lm")
    return image


def _tile(panel: Panel, title: str, numbers: str) -> Image.Image:
    image = Image.new("RGB", (TILE, TILE + 42), GROUND)
    image.paste(panel.image, (0, 0))
    pen = ImageDraw.Draw(image)
    write(pen, (4, TILE + 11), _cut(drawable(title), 34), 13, INK)
    short = "   ".join(numbers.split("   ")[:3])
    pen.text((4, TILE + 30), _cut(short, 52), font=font(10), fill=MUTED, anchor="lm")
    return image


def _projections(report: StudyReport, lesions: Sequence[ShownFinding]) -> list[Image.Image]:
    tiles = []
    for role, words in (("ct", "CT, mean projection"), ("pet_suv", "PET, maximum projection")):
        marked = [f for f in lesions if (v := report.volume_of(f)) is not None and v.role == role]
        volumes = {f.series_instance_uid: report.volume_of(f) for f in marked}
        volume = next(iter(volumes.values()), None) or next(iter(report.study.by_role(role)), None)
        if volume is None:
            continue
        panel = _projection(volume)
        masks = [f.mask for f in marked if f.mask and f.series_instance_uid == volume.series_instance_uid]
        for mask in masks:
            _mark(panel, mask, 7)
        panel.letter_sides()
        tiles.append(_tile(panel, words, f"{len(masks)} lesion{'' if len(masks) == 1 else 's'} marked"))
    return tiles


def _mark(panel: Panel, mask: Mask, least_px: float) -> None:
    """Put a ring around a region on a picture of `across_plane`."""
    (k, _, c), (slices, _, columns) = mask.origin, mask.voxels.shape
    middle = (mask.shape[0] - 1 - (k + (slices - 1) / 2), c + (columns - 1) / 2)
    k_mm, c_mm = panel.plane.spacing_mm
    reach_mm = float(np.hypot(slices * k_mm, columns * c_mm)) / 2
    panel.ring(middle, least_px + reach_mm / panel.mm_per_pixel, OUTLINE, 1.4)


def _projection(volume: Volume) -> Panel:
    if volume.role == "ct":
        flat = np.clip(volume.array, -1000, 1000).mean(axis=1, dtype=np.float32)
        low, high = (float(np.percentile(flat, q)) for q in (2, 99.5))
        return Panel.whole(across_plane(volume, flat), Window(low=low, high=max(high, low + 1)), TILE)
    return Panel.whole(across_plane(volume, volume.array.max(axis=1)), _pet_window(volume), TILE)
