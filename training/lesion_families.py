"""What lesions do from one examination to the next, as ellipsoids: stay, grow, vanish, appear, part, fuse, crowd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from plugins.contract import Point
from training.phantom import Nodule

Parts = tuple[Nodule, ...]
"""The ellipsoids that one lesion is made of."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """Lesions that belong together or lie close together; positions relative to its middle, mm."""

    kind: str
    """What it was drawn as."""
    before: tuple[Parts, ...]
    """Lesions of the first examination."""
    now: tuple[Parts, ...]
    """Lesions of the second, at the places they would have if nothing had moved."""
    links: tuple[tuple[int, int], ...]
    """Which of the one are which of the other."""

    @property
    def radius_mm(self) -> float:
        """Return how far it reaches from its middle at either examination, mm."""
        parts = [n for lesion in (*self.before, *self.now) for n in lesion]
        return max(float(np.linalg.norm(n.centre_mm)) + max(n.diameters_mm) / 2 for n in parts)

    def at(self, middle_mm: Point) -> Family:
        """Return it at a place, LPS mm."""
        return replace(self, before=_moved(self.before, middle_mm), now=_moved(self.now, middle_mm))


def draw_family(rng: np.random.Generator) -> Family:
    """Return a family drawn at random."""
    kinds = list(KINDS)
    shares = np.array([KINDS[k][0] for k in kinds])
    kind = kinds[int(rng.choice(len(kinds), p=shares / shares.sum()))]
    return KINDS[kind][1](kind, rng)


def _moved(lesions: tuple[Parts, ...], by_mm: Point) -> tuple[Parts, ...]:
    return tuple(tuple(replace(n, centre_mm=_add(n.centre_mm, by_mm)) for n in parts) for parts in lesions)


def _add(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> Point:
    return (float(a[0] + b[0]), float(a[1] + b[1]), float(a[2] + b[2]))


def _ellipsoid(diameter_mm: float, rng: np.random.Generator, centre_mm: Point = (0.0, 0.0, 0.0)) -> Nodule:
    a, b, c = diameter_mm * np.exp(rng.normal(0, 0.1, 3))
    return Nodule(
        name="",
        kind="solid",
        centre_mm=centre_mm,
        diameters_mm=(float(a), float(b), float(c)),
        angle_deg=float(rng.uniform(0, 180)),
        hu=float(rng.uniform(-100, 60)),
        suv=0.0,
    )


def _grown(nodule: Nodule, rng: np.random.Generator, most: float = 1.7) -> Nodule:
    """Return it with another size (diameters 0.6 to 1.7 times, never below 5 mm) and its middle a little elsewhere."""
    factor = float(np.exp(rng.uniform(np.log(0.6), np.log(most))))
    factor = max(factor, 5.0 / min(nodule.diameters_mm))
    a, b, c = (d * factor for d in nodule.diameters_mm)
    room = abs(factor - 1) * max(nodule.diameters_mm) / 2
    way = _direction(rng) * rng.uniform(0, 0.7 * room)
    return replace(nodule, diameters_mm=(a, b, c), centre_mm=_add(nodule.centre_mm, way))


def _direction(rng: np.random.Generator) -> np.ndarray:
    way = rng.standard_normal(3)
    return np.asarray(way / np.linalg.norm(way))


def _size(rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(np.log(6), np.log(32))))


def _one(kind: str, rng: np.random.Generator) -> Family:
    lesion = _ellipsoid(_size(rng), rng)
    return Family(kind=kind, before=((lesion,),), now=((_grown(lesion, rng),),), links=((0, 0),))


def _vanish(kind: str, rng: np.random.Generator) -> Family:
    return Family(kind=kind, before=((_ellipsoid(_size(rng) * 0.7, rng),),), now=(), links=())


def _appear(kind: str, rng: np.random.Generator) -> Family:
    return Family(kind=kind, before=(), now=((_ellipsoid(_size(rng) * 0.7, rng),),), links=())


def _part(kind: str, rng: np.random.Generator) -> Family:
    """Return a lesion that shrinks to two parts inside it, at least 3 mm apart."""
    long_mm = float(rng.uniform(24, 42))
    whole = replace(
        _ellipsoid(long_mm, rng),
        diameters_mm=(long_mm, long_mm * rng.uniform(0.6, 0.8), long_mm * rng.uniform(0.6, 0.8)),
    )
    angle = np.deg2rad(whole.angle_deg)
    along = np.array([np.cos(angle), np.sin(angle), 0.0])
    parts = [
        _ellipsoid(long_mm * rng.uniform(0.28, 0.36), rng, _add((0, 0, 0), sign * 0.26 * long_mm * along))
        for sign in (-1, 1)
    ]
    return Family(kind=kind, before=((whole,),), now=tuple((p,) for p in parts), links=((0, 0), (0, 1)))


def _fuse(kind: str, rng: np.random.Generator) -> Family:
    """Return two neighbours that grow into one."""
    sizes = rng.uniform(8, 20, 2)
    apart = float(sizes.sum() / 2 * 1.15 + rng.uniform(2, 4))
    along = _direction(rng)
    pair = [
        _ellipsoid(float(s), rng, _add((0, 0, 0), sign * apart / 2 * along))
        for s, sign in zip(sizes, (-1, 1), strict=True)
    ]
    need = 1.15 * apart / float(sizes.sum() / 2)
    grown = tuple(
        replace(n, diameters_mm=_times(n.diameters_mm, need * rng.uniform(1.0, 1.15))) for n in pair
    )
    return Family(kind=kind, before=tuple((n,) for n in pair), now=(grown,), links=((0, 0), (1, 0)))


def _times(diameters: Point, factor: float) -> Point:
    a, b, c = (float(d * factor) for d in diameters)
    return (a, b, c)


def _crowd(kind: str, rng: np.random.Generator) -> Family:
    """Return two neighbours 12 to 20 mm apart: both stay, or one goes, or one comes, or one goes and one comes."""
    apart = float(rng.uniform(12, 20))
    along = _direction(rng)
    most = min(12.0, apart / 1.2 - 5.0)
    pair = [
        _ellipsoid(float(rng.uniform(5, most)), rng, _add((0, 0, 0), s * apart / 2 * along)) for s in (-1, 1)
    ]
    later = [_grown(n, rng, most=1.25) for n in pair]
    what = str(rng.choice(["both", "one goes", "one comes", "one for another"], p=[0.5, 0.2, 0.2, 0.1]))
    before = tuple((n,) for n in (pair if what in ("both", "one goes") else pair[:1]))
    now = {"one goes": later[:1], "one for another": later[1:]}.get(what, later)
    links = {"both": ((0, 0), (1, 1)), "one for another": ()}.get(what, ((0, 0),))
    return Family(kind=f"{kind}: {what}", before=before, now=tuple((n,) for n in now), links=links)


KINDS: dict[str, tuple[float, Callable[[str, np.random.Generator], Family]]] = {
    "one": (0.40, _one),
    "vanish": (0.10, _vanish),
    "appear": (0.14, _appear),
    "part": (0.10, _part),
    "fuse": (0.10, _fuse),
    "crowd": (0.16, _crowd),
}
"""What is drawn, how often, and how."""


__all__ = ["Family", "Parts", "draw_family"]
