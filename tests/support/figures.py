"""What the fault tests measured, kept in `bench/reliability.json`: one entry a test and tier, the newest wins."""

from __future__ import annotations

import fcntl
import json
import os
from datetime import UTC, datetime
from pathlib import Path

FILE = Path(__file__).parents[2] / "bench" / "reliability.json"


def write_figure(
    fault: str, *, tier: str = "quick", file: Path = FILE, **figures: float | str | bool
) -> None:
    """Write what was measured for one fault; safe while other tests write theirs."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = json.loads(file.read_text()) if file.is_file() else {}
        known[f"{fault} ({tier})"] = {**figures, "at": datetime.now(UTC).isoformat(timespec="seconds")}
        new = file.with_suffix(".new")
        new.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
        os.replace(new, file)
