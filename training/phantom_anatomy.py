"""The organs of the thorax phantom, as formulas: signed distances in the body frame, painted slice by slice.

The body frame is LPS millimetres with the origin between the lungs. A signed distance is negative inside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

FloatArray = NDArray[np.float32]
Point = tuple[float, float, float]
Axes = tuple[FloatArray, FloatArray, FloatArray]

HU: Mapping[str, float] = {
    "air": -1000.0,
    "fat": -100.0,
    "muscle": 52.0,
    "lung": -852.0,
    "emphysema": -990.0,
    "mediastinum": -75.0,
    "blood": 42.0,
    "heart": 45.0,
    "liver": 60.0,
    "spleen": 50.0,
    "cortex": 520.0,
    "marrow": 170.0,
    "disc": 85.0,
    "cord": 30.0,
    "oesophagus": 30.0,
    "airway wall": -20.0,
    "airway": -1000.0,
    "couch": -650.0,
}
SUV: Mapping[str, float] = {
    "air": 0.0,
    "fat": 0.3,
    "muscle": 0.7,
    "lung": 0.45,
    "mediastinum": 0.8,
    "blood": 1.6,
    "heart": 2.4,
    "liver": 2.2,
    "spleen": 1.8,
    "cortex": 0.6,
    "marrow": 1.3,
    "disc": 0.7,
    "cord": 1.2,
    "oesophagus": 1.4,
    "airway wall": 0.8,
    "airway": 0.1,
    "couch": 0.0,
}
EMPHYSEMA_SHARE = {"right": 0.11, "left": 0.06}
VERTEBRA_MM = 24.0
RIB_MM = 27.0
NOISE_HU, NOISE_LIMIT_HU = 17.0, 38.0
EDGE_MM = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Painted:
    """A painted CT without noise, and where its lungs are."""

    values: FloatArray
    """HU, `(K, R, C)`."""
    lungs: NDArray[np.uint8]
    """1 right, 2 left lung, `(K, R, C)`; airways are still inside."""


def ellipse(x: FloatArray, y: FloatArray, centre: tuple[float, float], a: float, b: float) -> FloatArray:
    """Return the signed distance, mm (first order), to an axis-parallel ellipse with half axes a, b."""
    u, v = (x - centre[0]) / a, (y - centre[1]) / b
    rho = np.sqrt(u * u + v * v) + np.float32(1e-6)
    slope = np.sqrt((u / a) ** 2 + (v / b) ** 2) + np.float32(1e-9)
    return np.asarray(rho * (rho - 1) / slope, dtype=np.float32)


def _cage_scale(z: FloatArray | float) -> FloatArray:
    rise = np.clip((np.asarray(z, dtype=np.float32) + 40) / 172, 0, 1)
    return np.asarray((1 - rise**2.6) ** (1 / 2.6), dtype=np.float32)


def cage(x: FloatArray, y: FloatArray, z: FloatArray | float) -> FloatArray:
    """Return the signed distance, mm, to the inner surface of the rib cage; x, y, z broadcast."""
    scale = np.maximum(_cage_scale(z), 1e-3)
    u, v = x / (132 * scale), y / (92 * scale)
    rho = np.sqrt(u * u + v * v) + np.float32(1e-6)
    slope = np.sqrt((u / (132 * scale)) ** 2 + (v / (92 * scale)) ** 2) + np.float32(1e-9)
    return np.asarray(rho * (rho - 1) / slope, dtype=np.float32)


def chest_wall_x_mm(y: float, z: float) -> float:
    """Return the x > 0 at which the left lung meets the chest wall."""
    scale = float(_cage_scale(z))
    return float(132 * scale * np.sqrt(max(0.0, 1 - (y / (92 * scale)) ** 2)))


def dome(x: FloatArray, y: FloatArray) -> FloatArray:
    """Return the height z, mm, of the diaphragm."""
    right = -66 - 52 * (((x + 62) / 74) ** 2 + ((y + 12) / 92) ** 2)
    left = -80 - 48 * (((x - 68) / 72) ** 2 + ((y + 12) / 92) ** 2)
    return np.maximum(right, left)


def heart(x: FloatArray, y: FloatArray, z: FloatArray | float) -> FloatArray:
    """Return the signed distance, mm (first order), to the heart."""
    dx, dy, dz = x - 20, y + 34, np.asarray(z, dtype=np.float32) + 46
    u = (dx * 0.80 + dy * -0.60) / 60
    v = (dx * 0.60 + dy * 0.80) / 44
    w = dz / 58
    rho = np.sqrt(u * u + v * v + w * w) + np.float32(1e-6)
    return np.asarray((rho - 1) * 48, dtype=np.float32)


def lung(x: FloatArray, y: FloatArray, z: FloatArray | float, side: str) -> FloatArray:
    """Return the signed distance, mm (first order), to one lung; x, y, z broadcast."""
    mirrored = x if side == "left" else -x
    waist = 13 + 17 * np.exp(-(((y - 22) / 34) ** 2)) + 8 * np.exp(-(((y - 75) / 22) ** 2))
    waist = waist + 24 * np.clip((-62 - z) / 36, 0, 1)
    parts = [
        cage(x, y, z),
        np.asarray(waist - mirrored, dtype=np.float32),
        5 - heart(x, y, z),
        np.asarray((dome(x, y) - z) / 1.35, dtype=np.float32),
        3 - ellipse(x, y, (0, 62), 19, 16),
        3 - ellipse(x, y, (0, 94), 42, 16),
        _hilum(mirrored, y, z),
    ]
    if side == "left":
        parts.append(3 - ellipse(x, y, (25, 46), 12.5, 12.5))
    distance = parts[0]
    for part in parts[1:]:
        distance = _soft_max(distance, part)
    return distance


def _hilum(mirrored_x: FloatArray, y: FloatArray, z: FloatArray | float) -> FloatArray:
    """Return minus the signed distance to the root of a lung, where its vessels and bronchi enter."""
    away = np.sqrt((mirrored_x - 34) ** 2 + (y - 8) ** 2 + (0.7 * (np.asarray(z, dtype=np.float32) - 4)) ** 2)
    return np.asarray(15 - away, dtype=np.float32)


def _soft_max(a: FloatArray, b: FloatArray, radius: float = 7.0) -> FloatArray:
    """Return the maximum, rounded within `radius` mm, so that edges of an organ are not knives."""
    blend = np.maximum(radius - np.abs(a - b), 0) / radius
    return np.asarray(np.maximum(a, b) + blend * blend * np.float32(radius / 4), dtype=np.float32)


def _share(distance: FloatArray, edge_mm: float) -> FloatArray:
    return np.asarray(np.clip(np.float32(0.5) - distance / np.float32(edge_mm), 0, 1), dtype=np.float32)


def _tube(
    x: FloatArray, y: FloatArray, z: float, start: Point, end: Point, radius: float
) -> FloatArray | None:
    """Return the distance to a tube that runs mostly along z, or None when it does not reach this slice."""
    low, high = sorted((start[2], end[2]))
    if not low - 0.5 <= z <= high + 0.5:
        return None
    t = (z - start[2]) / (end[2] - start[2])
    cx, cy = (start[i] + t * (end[i] - start[i]) for i in (0, 1))
    return ellipse(x, y, (cx, cy), radius, radius)


_VESSELS: tuple[tuple[Point, Point, float], ...] = (
    ((25, 46, -150), (25, 46, 44), 11.5),  # descending aorta
    ((-14, -20, -20), (-14, -14, 46), 15.0),  # ascending aorta
    ((-30, -12, -10), (-28, -16, 92), 9.0),  # superior vena cava
    ((-14, 2, 60), (-24, -8, 150), 6.0),  # brachiocephalic trunk
    ((6, 8, 60), (14, 0, 150), 4.0),  # left carotid
    ((18, 24, 60), (34, 20, 150), 4.5),  # left subclavian
    ((24, -30, -2), (18, -16, 22), 13.0),  # pulmonary trunk
)


def _arch(x: FloatArray, y: FloatArray, z: float) -> FloatArray | None:
    """Return the distance to the aortic arch: a half ring in a plane that stands obliquely."""
    if not 40 <= z <= 78:
        return None
    ax, ay = 39 / 71.6, 60 / 71.6  # unit vector from the ascending to the descending aorta
    along = (x + 14) * ax + (y + 14) * ay - 35.8
    across = -(x + 14) * ay + (y + 14) * ax
    ring = np.sqrt(along * along + np.float32(max(z - 44, 0) * 1.9) ** 2) - 35.8
    return np.asarray(np.sqrt(ring * ring + across * across) - 12, dtype=np.float32)


Layer = tuple[str, FloatArray]


def _soft_layers(x: FloatArray, y: FloatArray, z: float) -> Iterator[Layer]:
    """Yield (material, signed distance) from the skin inwards, without lungs and bones."""
    narrow = 1 - 0.16 * float(np.clip((z - 60) / 95, 0, 1)) ** 2
    yield (
        "couch",
        np.maximum(
            np.maximum(ellipse(x, y, (0, -258), 402, 402), -ellipse(x, y, (0, -258), 390, 390)),
            np.abs(x) - 205,
        ),
    )
    yield "fat", ellipse(x, y, (0, 2), 168 * narrow, 124 * narrow)
    yield "muscle", ellipse(x, y, (0, 1), 152 * narrow, 110 * narrow)
    inner = cage(x, y, z)
    yield "mediastinum", inner + 1
    yield "muscle", np.maximum(ellipse(x, y, (0, 94), 42, 16), 70 - y)
    below = (z - dome(x, y)) / 1.35 + 2.5
    yield "liver", np.maximum(np.maximum(inner + 4, below), ellipse(x, y, (-62, -14), 112, 92))
    if z < -70:
        yield "spleen", np.maximum(np.maximum(inner + 4, below), ellipse(x, y, (92, 34), 34, 44))
    yield "heart", np.maximum(heart(x, y, z), inner + 3)
    for start, end, radius in _VESSELS:
        tube = _tube(x, y, z, start, end, radius)
        if tube is not None:
            yield "blood", tube
    arch = _arch(x, y, z)
    if arch is not None:
        yield "blood", arch
    yield "oesophagus", ellipse(x, y, (6, 43), 7, 5)


def _bone_layers(x: FloatArray, y: FloatArray, z: float) -> Iterator[Layer]:
    """Yield (material, signed distance) of spine, ribs, sternum and shoulder blades."""
    phase = (z + 300) % VERTEBRA_MM
    if phase < 5:
        yield "disc", ellipse(x, y, (0, 62), 17, 14)
    else:
        yield "cortex", ellipse(x, y, (0, 62), 18, 15)
        yield "marrow", ellipse(x, y, (0, 62), 16.4, 13.4)
    yield "cortex", np.maximum(ellipse(x, y, (0, 87), 15, 13), -ellipse(x, y, (0, 86), 9.5, 8.5))
    yield "cord", ellipse(x, y, (0, 86), 6, 5)
    if phase > 9:
        yield "cortex", ellipse(x, y, (0, 106), 4, 10)
        for side in (-1.0, 1.0):
            yield "cortex", ellipse(x, y, (side * 22, 86), 12, 5)
    if -60 <= z <= 70:
        yield "cortex", ellipse(x, y, (0, -99), 19, 5.5)
        yield "marrow", ellipse(x, y, (0, -99), 17, 3.8)
    wall = cage(x, y, z)
    height = np.abs((z - 0.42 * y + 300) % RIB_MM - RIB_MM / 2) - 6
    visible = np.maximum(-72 - y, 20 - np.abs(x)) if z < 105 else np.full_like(wall, 99)
    rib = np.maximum(np.maximum(np.abs(wall - 6.5) - 4.2, height), visible)
    yield "cortex", np.asarray(rib, dtype=np.float32)
    yield "marrow", np.asarray(rib + 1.6, dtype=np.float32)
    if z > 10:
        for side in (-1.0, 1.0):
            u = (x - side * 104) * 0.80 + (y - 82) * side * 0.60
            v = -(x - side * 104) * side * 0.60 + (y - 82) * 0.80
            yield "cortex", ellipse(u, v, (0, 0), 30, 3.6)


def _mix(values: FloatArray, distance: FloatArray, value: float | FloatArray, edge_mm: float) -> None:
    share = _share(distance, edge_mm)
    values += share * (value - values)


def _paint_slice(
    values: FloatArray,
    x: FloatArray,
    y: FloatArray,
    z: float,
    table: Mapping[str, float],
    edge_mm: float,
    parenchyma: float | FloatArray,
) -> NDArray[np.uint8]:
    """Paint one slice `(R, C)` in place; return its lung mask."""
    lungs = np.zeros(values.shape, dtype=np.uint8)
    for material, distance in _soft_layers(x, y, z):
        _mix(values, distance, table[material], edge_mm)
    for number, side in ((1, "right"), (2, "left")):
        distance = lung(x, y, z, side)
        _mix(values, distance, parenchyma, edge_mm)
        lungs[distance < 0] = number
    for material, distance in _bone_layers(x, y, z):
        _mix(values, distance, table[material], edge_mm)
    return lungs


def paint_ct(axes: Axes, seed: int) -> Painted:
    """Return the CT without airways, vessels of the lung, nodules and noise.

    Emphysema is patches at -990 HU, more of them towards the top, in a share of each lung that is fixed
    (`EMPHYSEMA_SHARE`); all other parenchyma stays above -950 HU, also with noise.
    """
    z_mm, y_mm, x_mm = axes
    shape = (z_mm.size, y_mm.size, x_mm.size)
    values = np.full(shape, HU["air"], dtype=np.float32)
    lungs = np.zeros(shape, dtype=np.uint8)
    x, y = x_mm[None, :], y_mm[:, None]
    fine = _texture(axes, np.random.default_rng((seed, 11)), 4.0)
    patches = _texture(axes, np.random.default_rng((seed, 12)), 7.0)
    lean = (y / 92 * 16).astype(np.float32)
    for k, z in enumerate(z_mm):
        density = np.clip(HU["lung"] + lean + 14 * np.clip(fine[k], -2, 2), -900, None)
        lungs[k] = _paint_slice(values[k], x, y, float(z), HU, EDGE_MM, density)
        solid = (values[k] > -300) & (values[k] < 200)
        values[k][solid] += 5 * fine[k][solid]
    height = (z_mm / 130).astype(np.float32)
    patches += 0.5 * height[:, None, None]
    for number, side in ((1, "right"), (2, "left")):
        inside = (lungs == number) & (values < -820)
        if inside.any():
            level = np.quantile(patches[inside], 1 - EMPHYSEMA_SHARE[side])
            values[inside & (patches > level)] = HU["emphysema"]
    return Painted(values=values, lungs=lungs)


def paint_pet(axes: Axes, spacing_mm: tuple[float, float, float]) -> FloatArray:
    """Return the uptake, SUVbw, `(K, R, C)`, without nodules and noise."""
    z_mm, y_mm, x_mm = axes
    values = np.zeros((z_mm.size, y_mm.size, x_mm.size), dtype=np.float32)
    x, y = x_mm[None, :], y_mm[:, None]
    for k, z in enumerate(z_mm):
        _paint_slice(values[k], x, y, float(z), SUV, spacing_mm[1], SUV["lung"])
    return values


def _texture(axes: Axes, rng: np.random.Generator, grain_mm: float) -> FloatArray:
    """Return smooth noise `(K, R, C)` with mean 0 and standard deviation 1, fixed to the body."""
    low, high = -260.0, 260.0
    step = grain_mm / 2
    count = int((high - low) / step)
    z_mm, y_mm, x_mm = axes
    coarse = rng.standard_normal((int(320 / step), count, count), dtype=np.float32)
    coarse = ndimage.gaussian_filter(coarse, 1.0, mode="wrap")
    coarse /= coarse.std()
    out = np.empty((z_mm.size, y_mm.size, x_mm.size), dtype=np.float32)
    left, top, right, bottom = (float((edge - low) / step) for edge in (x_mm[0], y_mm[0], x_mm[-1], y_mm[-1]))
    for k, z in enumerate(z_mm):
        at = (float(z) + 160) / step
        below = int(np.floor(at)) % coarse.shape[0]
        t = np.float32(at - np.floor(at))
        plane = (1 - t) * coarse[below] + t * coarse[(below + 1) % coarse.shape[0]]
        image = Image.fromarray(plane, mode="F")
        out[k] = np.asarray(
            image.resize((x_mm.size, y_mm.size), Image.Resampling.BICUBIC, box=(left, top, right, bottom))
        )
    return out


def quantum_noise(rng: np.random.Generator, shape: tuple[int, ...]) -> FloatArray:
    """Return the noise of one CT slice, HU, correlated over neighbours and never beyond the limit."""
    white = rng.standard_normal((shape[0] + 2, shape[1] + 2), dtype=np.float32)
    rows = white[:-2] + 2 * white[1:-1] + white[2:]
    both = rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]
    noise = both * np.float32(NOISE_HU / 6)
    return np.asarray(np.clip(noise, -NOISE_LIMIT_HU, NOISE_LIMIT_HU), dtype=np.float32)


def emission_noise(rng: np.random.Generator, shape: tuple[int, ...]) -> FloatArray:
    """Return the relative noise of a PET `(K, R, C)`: 6 % standard deviation, never beyond 18 %."""
    smooth = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), 0.8, mode="wrap")
    return np.asarray(np.clip(smooth * np.float32(0.06 / smooth.std()), -0.18, 0.18), dtype=np.float32)
