"""Models and runs of retraining in the words of a page: the class and the words of a chip."""

from __future__ import annotations

from typing import Final

from store.runs import State

STAGES: Final = {
    State.COLLECTING: "collecting what people drew",
    State.FITTING: "learning",
    State.JUDGING: "judging both models",
}
"""The stages of a run, in their order."""
ENDED: Final = {
    State.PROPOSED: ("good", "proposed"),
    State.REFUSED: ("wait", "not proposed"),
    State.TOO_FEW: ("plain", "too few drawings"),
    State.FAILED: ("bad", "failed"),
    State.ABANDONED: ("bad", "stopped"),
}
STANDING: Final = {
    "active": ("good", "counts"),
    "proposed": ("wait", "waits for a person"),
    "refused": ("bad", "not proposed"),
    "overtaken": ("plain", "overtaken"),
    "retired": ("plain", "counted once"),
    "replaced": ("plain", "replaced"),
}
OUTCOME: Final = {"passed": "good", "failed": "bad", "not judged": "plain"}


def run_chip(state: str, *, is_alive: bool = True) -> tuple[str, str]:
    """Return the chip of a run; one that is silent for longer than its lease has stopped."""
    known = State(state)
    if known in ENDED:
        return ENDED[known]
    return ("run", STAGES[known]) if is_alive else ("bad", "silent for too long")


def stages_done(state: str) -> int:
    """Return how many of the stages a run has behind it, 0 to 3."""
    known = State(state)
    return list(STAGES).index(known) if known in STAGES else len(STAGES)


__all__ = ["OUTCOME", "STAGES", "STANDING", "run_chip", "stages_done"]
