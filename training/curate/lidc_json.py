"""A `Reading` as JSON, and back: equal to what was written."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from plugins.errors import Refused
from training.curate.lidc_reading import Annotation, Contour, PointMark, Ratings, Reading, ReadingSession

FORMAT = "nadir-lidc-1"


def reading_json(reading: Reading) -> str:
    """Return the reading as JSON text; contours are lists of [x, y], column and row from 0."""
    return json.dumps({"format": FORMAT, **asdict(reading)}, allow_nan=False) + "\n"


def read_lidc_json(path: Path) -> Reading:
    """Return the reading of a JSON file. Refuses `bad-lidc-json`."""
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        if plain.pop("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        sessions = tuple(_session(one) for one in plain.pop("sessions"))
        return Reading(**plain, sessions=sessions)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused("bad-lidc-json", f"{path} is no reading of LIDC-IDRI ({error})") from error


def _session(plain: dict[str, Any]) -> ReadingSession:
    annotations = tuple(_annotation(one) for one in plain.pop("annotations"))
    marks = tuple(PointMark(**{**one, "point": _point(one["point"])}) for one in plain.pop("marks"))
    return ReadingSession(**plain, annotations=annotations, marks=marks)


def _annotation(plain: dict[str, Any]) -> Annotation:
    rated, drawn = plain.pop("ratings"), plain.pop("contours")
    contours = tuple(Contour(**{**one, "points": tuple(map(_point, one["points"]))}) for one in drawn)
    return Annotation(**plain, ratings=None if rated is None else Ratings(**rated), contours=contours)


def _point(plain: list[int]) -> tuple[int, int]:
    x, y = plain
    return int(x), int(y)


__all__ = ["read_lidc_json", "reading_json"]
