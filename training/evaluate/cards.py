"""Figures on a model's card: taken from a judgement, and held against a new one.

`python -m training.evaluate.cards DATA` judges every shipped model again, each fold on the patients that it had not
seen, and fails with the difference where a figure of a card cannot be reproduced; DATA is the folder of data sets.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from plugins.errors import NadirError
from training.evaluate.data import open_data
from training.evaluate.families import open_subject
from training.evaluate.judging import judge_model
from training.evaluate.learning import CURVE

SHIPPED = Path(__file__).parents[2] / "models" / "weights"
TASKS = ("segmentation", "detection", "classification", "survival")
LEAVES_OUT = ("cases", "groups", "confusion", "threshold")
"""Parts of a judgement that do not go on a card."""
PART_OF_INTERVAL = 0.1
"""A figure is reproduced when it is off by less than this part of its interval: other processors round otherwise."""


def card_figures(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a card keeps of a `report.json`: every figure with its interval, by task and setting, and on what."""
    kept = {
        task: {key: value for key, value in part.items() if key not in LEAVES_OUT}
        for task, part in report.items()
        if task in TASKS
    }
    also = {key: report[key] for key in ("data", "made", CURVE) if key in report}
    return {**also, **kept}


def differences(said: Mapping[str, Any], found: Mapping[str, Any], place: str = "") -> Iterator[str]:
    """Yield one sentence for each figure of a card (nested; a figure has a `value`) that a new judgement does not have.

    A figure without an interval has to be equal to six digits.
    """
    for key, value in said.items():
        name = f"{place}{key}"
        if not isinstance(value, Mapping) or (not place and key not in TASKS):
            continue
        now = found.get(key)
        if "value" not in value:
            yield from differences(value, now if isinstance(now, Mapping) else {}, f"{name} / ")
        elif not isinstance(now, Mapping) or "value" not in now:
            yield f"{name}: {value['value']:.6g} on the card, nothing now"
        elif abs(now["value"] - value["value"]) > _allowed(value):
            yield f"{name}: {value['value']:.6g} on the card, {now['value']:.6g} now"


def _allowed(value: Mapping[str, Any]) -> float:
    exact = 1e-6 * abs(float(value["value"]))
    if value.get("low") is None or value.get("high") is None:
        return exact
    return max(exact, PART_OF_INTERVAL * float(value["high"] - value["low"]))


def reproduce(folder: Path, data: Path) -> list[str]:
    """Return the differences of one shipped model's card from a new judgement.

    Its data set is the folder of that name in `data`, or what lies in several folders there.
    """
    card = json.loads((folder / "card.json").read_text())
    if not any(task in card["figures"] for task in TASKS):
        return ["the card holds no figures of a judgement (training.evaluate.cards.card_figures)"]
    subject = open_subject(str(folder))
    own = data / card["figures"]["data"]["name"]
    found = judge_model(subject, open_data(own if own.is_dir() else data), made_at=datetime.now(UTC))
    return list(differences(card["figures"], card_figures(found.plain())))


def main() -> int:
    """Judge every shipped model again and print what differs; return 1 when anything does."""
    data = Path(sys.argv[1])
    folders = sorted(path.parent for path in SHIPPED.glob("*/card.json"))
    different = 0
    for folder in folders:
        try:
            found = reproduce(folder, data)
        except (NadirError, KeyError) as error:
            found = [f"cannot be judged: {error!r}"]
        sys.stdout.write(f"{folder.name}: {'reproduced' if not found else f'{len(found)} figures differ'}\n")
        sys.stdout.writelines(f"  {line}\n" for line in found)
        different += bool(found)
    if not folders:
        sys.stdout.write(f"no model is shipped in {SHIPPED}\n")
    return 1 if different or not folders else 0


if __name__ == "__main__":
    sys.exit(main())


__all__ = ["card_figures", "differences", "reproduce"]
