"""How often the gate answers as it should, on simulated hold-outs: `python -m training.gate_power [--times N]`.

A case of the challenger has the champion's Dice, a true gain, what suits or does not suit its patient, and chance, the
last two of Student's t with 4 degrees of freedom: most cases change little, few change much. Groups are dealt out by
chance. Other figures do not change and the models are asked in one setting; more of either refuses more often.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from training.evaluate.crops import AS_GIVEN
from training.evaluate.drawn import Row
from training.gate import judge
from training.margins import Margins
from training.verdict import Outcome, Verdict

OF_PATIENT, OF_CASE = 0.02, 0.03
"""Scale of what changes for a patient and for a case (Dice); times the root of 2 is the standard deviation."""
KINDS = {"kernel": 2, "texture": 4, "origin": 2}
"""How many different values each property has."""
SIZES_MM, SLICES_MM = (5.0, 8.0, 14.0, 25.0), (0.8, 1.5, 2.5)
GAINS = (-0.02, 0.0, 0.01, 0.02, 0.03, 0.05)
PATIENTS = (20, 40, 80, 160)
LOSSES = (0.0, 0.02, 0.03, 0.05, 0.1)
GROUP = (3, 5, 7, 8, 12, 20)
GAIN, OF = 0.03, 80
"""Gain of the others, and patients in all, when one group loses."""
MARGINS = Margins(resamples=500)
HARMED = "harmed"


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What is true of a simulated hold-out."""

    patients: int
    """Patients, of one to three cases each."""
    gain: float
    """Mean gain in Dice of everybody but the harmed."""
    harmed: int = 0
    """Patients of one scanner that the challenger suits less."""
    loss: float = 0.0
    """Their mean loss."""


def hold_out(truth: Truth, random: np.random.Generator) -> tuple[list[Row], list[Row]]:
    """Return the rows of champion and challenger on a hold-out drawn at random."""
    was: list[Row] = []
    now: list[Row] = []
    for number in range(truth.patients):
        is_harmed = number < truth.harmed
        suits = (-truth.loss if is_harmed else truth.gain) + OF_PATIENT * random.standard_t(4)
        known: dict[str, float | str] = {name: str(random.integers(values)) for name, values in KINDS.items()}
        known["scanner"] = HARMED if is_harmed else f"scanner {random.integers(3)}"
        known["slice_thickness_mm"] = float(random.choice(SLICES_MM))
        for case in range(int(random.integers(1, 4))):
            known["size_mm"] = float(random.choice(SIZES_MM))
            dice = float(np.clip(random.normal(0.8, 0.08), 0.05, 0.95))
            changed = float(np.clip(dice + suits + OF_CASE * random.standard_t(4), 0.01, 0.99))
            for rows, value in ((was, dice), (now, changed)):
                rows.append(_row(f"P{number}", f"P{number}_{case}", dict(known), value))
    return was, now


def _row(patient: str, case: str, known: dict[str, float | str], dice: float) -> Row:
    same = {"hd95_mm": 2.0, "truth_ml": 1.0, "volume_error": 0.1, "long_axis_error_mm": 1.0}
    none = dict.fromkeys(("open_dice", "volume_covered", "diameter_covered"))
    return Row(
        case_id=case,
        patient_id=patient,
        fold=None,
        setting=AS_GIVEN,
        known=known,
        figures={"dice": dice, **same, **none},
        reliability=None,
    )


def verdicts(truth: Truth, times: int, seed: int = 0) -> Iterator[Verdict]:
    """Yield the verdicts on so many hold-outs."""
    random = np.random.default_rng(seed)
    for _ in range(times):
        yield judge(*hold_out(truth, random), MARGINS)


def proposed(truth: Truth, times: int, seed: int = 0) -> float:
    """Return how often the challenger is proposed, 0 to 1."""
    return sum(verdict.is_proposed for verdict in verdicts(truth, times, seed)) / times


def caught(truth: Truth, times: int, seed: int = 0) -> float:
    """Return how often the harmed group is named as a reason to refuse, 0 to 1."""
    return (
        sum(
            any(HARMED in one.title and one.outcome is Outcome.FAILED for one in verdict.checks)
            for verdict in verdicts(truth, times, seed)
        )
        / times
    )


def main() -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(description="How often the gate answers as it should.")
    parser.add_argument("--times", type=int, default=200, help="hold-outs for each figure")
    times = parser.parse_args().times
    say = sys.stdout.write
    say(f"proposed, per cent of {times}; true gain in Dice across, patients down\n")
    say("patients " + "".join(f"{gain:+8.3f}" for gain in GAINS) + "\n")
    for patients in PATIENTS:
        found = (proposed(Truth(patients=patients, gain=gain), times) for gain in GAINS)
        say(f"{patients:8} " + "".join(f"{100 * one:8.0f}" for one in found) + "\n")
    say(
        f"\ngroup named as a reason, per cent; its true loss across, its patients down; {OF} in all gain {GAIN}\n"
    )
    say("patients " + "".join(f"{loss:8.3f}" for loss in LOSSES) + "\n")
    for harmed in GROUP:
        truths = (Truth(patients=OF, gain=GAIN, harmed=harmed, loss=loss) for loss in LOSSES)
        found = (caught(truth, times) for truth in truths)
        say(f"{harmed:8} " + "".join(f"{100 * one:8.0f}" for one in found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())


__all__ = ["Truth", "caught", "hold_out", "proposed", "verdicts"]
