"""The cards of shipped models held against a new judgement of each.

`python -m training.evaluate.cards DATA` judges every shipped model again, each fold on the patients that it had not
seen, and fails with the difference where a figure of a card cannot be reproduced; DATA is the folder of data sets.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from plugins.errors import NadirError
from training.evaluate.card_figures import TASKS, card_figures, differences
from training.evaluate.data import open_data
from training.evaluate.families import open_subject
from training.evaluate.judging import judge_model

SHIPPED = Path(__file__).parents[2] / "models" / "weights"


def reproduce(folder: Path, data: Path) -> list[str]:
    """Return the differences of one shipped model's card from a new judgement.

    Its data set is the folder of that name in `data`, or what lies in several folders there.
    """
    card = json.loads((folder / "card.json").read_text())
    if not any(task in card["figures"] for task in TASKS):
        return ["the card holds no figures of a judgement (training.evaluate.card_figures)"]
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


__all__ = ["reproduce"]
