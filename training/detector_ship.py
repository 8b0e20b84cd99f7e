"""A finished run of the nodule detector becomes a model: `python -m training.detector_ship RUN DATA OUT`.

The probability from which a candidate is taken for a nodule is that at which unseen scans have `RATE` false positives.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from models.files import BadModel
from plugins.errors import NadirError
from training.evaluate.card_figures import card_figures
from training.evaluate.data import Data, open_data
from training.evaluate.detector import LIMITS, MIRRORED
from training.evaluate.judging import judge_model
from training.evaluate.runs import open_run
from training.evaluate.subject import Subject
from training.nodules_in_scans import is_crop
from training.ship import About, ship

RATE = 2
"""False positives per scan at which the shipped detector works."""
ABOUT = About(
    name="nodule_detector",
    version="1.1.0",
    licence="Apache-2.0",
    training_data="856 nodule crops of 471 patients (LIDC-IDRI, doi:10.7937/K9/TCIA.2015.LO9QL9SX, CC BY 3.0) set into "
    "five chest CTs: NSCLC Radiogenomics R01-001 (doi:10.7937/K9/TCIA.2017.7hs46erv, CC BY 3.0), 4D-Lung 113_HM10395 "
    "(doi:10.7937/K9/TCIA.2016.ELN8YGLE, CC BY 3.0), Lung-PET-CT-Dx A0001 (doi:10.7937/TCIA.2020.NNC2-0461, "
    "CC BY 4.0), and the two lung CTs in the sources of pyradiomics 3.0.1; thin slices also as thick ones.",
    input="CT in HU and candidates in its closed lungs; patches of 24 x 24 x 24 voxels of 1 and of 2 mm.",
    intended_use="Tells nodules from vessels and walls among candidates in the lungs of a chest CT; for research only.",
    limits=(
        *LIMITS,
        "Its probability is of the nodules and scans that it was made from, where nodules are frequent; it is no "
        "probability of cancer.",
        "The level was chosen with one fold asked at a time; together the folds are surer of what is none.",
    ),
)


def pack(run: Path, data: Data, out: Path, told: Data | None = None) -> str:
    """Write the model of a run with its figures into a folder; return the hash of its manifest.

    The level is chosen on all scans of `data`. The figures are of `told` where only some of the scans are to be had by
    everybody, and a sentence among the limits gives those of all.
    """
    subject = open_run(run)
    judged = _judged(subject, data)
    decided = {
        "search": subject.card["task"]["search"],
        "mirrors": MIRRORED,
        "level": judged["detection"]["levels"][f"{RATE:g}"] or 0.0,
        "false_positives_per_scan": RATE,
    }
    if told is None:
        return ship(run, data.manifest, out, ABOUT, decided, card_figures(judged))
    about = replace(ABOUT, limits=(*ABOUT.limits, _of_all(judged, data, told)))
    return ship(run, data.manifest, out, about, decided, card_figures(_judged(subject, told)))


def _judged(subject: Subject, data: Data) -> dict[str, Any]:
    return judge_model(subject, data, made_at=datetime.now(UTC)).plain()


def _of_all(judged: Mapping[str, Any], data: Data, told: Data) -> str:
    """Return the sentence with the figures of all scans."""
    count, some = (sum(not is_crop(case) for case in of.cases) for of in (data, told))
    found = judged["detection"]["sensitivity_at_false_positives_per_scan"]
    reached = ", ".join(f"{one['value']:.2f} at {rate}" for rate, one in found.items())
    return (
        f"The figures are of the {some} whole scans that lie with the other data; of all {count} that it was made "
        f"from, the sensitivity is {reached} false positives per scan."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Pack a run; return 2 for input that cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m training.detector_ship", description=__doc__)
    parser.add_argument("run", type=Path, help="a run of nadir train, with fold0, fold1 ... in it")
    parser.add_argument("data", type=Path, help="the crops and scans that it learned from")
    parser.add_argument("out", type=Path, help="the folder of the model")
    parser.add_argument(
        "--told", type=Path, help="where only some of the scans lie: the figures are of these"
    )
    given = parser.parse_args(arguments)
    try:
        sha256 = pack(
            given.run, open_data(given.data), given.out, open_data(given.told) if given.told else None
        )
    except (NadirError, BadModel, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{sha256}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
