"""Rows of a judgement as a gate is given them: patients with one or two lesions, of known kinds, of two scanners."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from models.calibration import reliability
from training.evaluate.crops import AS_GIVEN
from training.evaluate.drawn import Row

SIZES_MM = (5.0, 14.0, 25.0)


def rows_of(
    *, patients: int, scanners: Mapping[str, int] | None = None, said: float = 0.7, seed: int = 0
) -> list[Row]:
    """Return the rows of a champion; every second patient has two lesions. The first patients are of `scanners`."""
    random = np.random.default_rng(seed)
    rare = [name for name, count in (scanners or {}).items() for _ in range(count)]
    rows = []
    for number in range(patients):
        known: dict[str, float | str] = {
            "slice_thickness_mm": float(random.choice([0.8, 2.5])),
            "scanner": rare[number] if number < len(rare) else "AB"[number % 2],
            "kernel": str(random.choice(["sharp", "soft"])),
            "texture": str(random.choice(["solid", "ground glass"])),
            "origin": str(random.choice(["corrected", "drawn"])),
            "size_mm": float(random.choice(SIZES_MM)),
        }
        for lesion in range(1 + (number % 2)):
            target = random.random(400) < 0.7
            figures: dict[str, float | None] = {
                "dice": float(random.normal(0.8, 0.03)),
                "open_dice": None,
                "hd95_mm": float(random.normal(2.0, 0.3)),
                "truth_ml": 1.0 + number,
                "volume_error": float(random.normal(0.0, 0.1)),
                "long_axis_error_mm": float(random.normal(0.0, 0.5)),
                "volume_covered": 1.0,
                "diameter_covered": 1.0,
            }
            rows.append(
                Row(
                    case_id=f"P{number:03d}_{lesion}",
                    patient_id=f"P{number:03d}",
                    fold=None,
                    setting=AS_GIVEN,
                    known=known,
                    figures=figures,
                    reliability=reliability(np.full(400, said), target),
                )
            )
    return rows


def with_figures(row: Row, **figures: float) -> Row:
    """Return the row with other figures."""
    return replace(row, figures={**row.figures, **figures})


def plus(row: Row, change: float) -> Row:
    """Return the row with another Dice."""
    return with_figures(row, dice=(row.figures["dice"] or 0.0) + change)


__all__ = ["plus", "rows_of", "with_figures"]
