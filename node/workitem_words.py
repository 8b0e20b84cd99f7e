"""What a worklist is told in words of a workitem: why it is not done, and what is to be said beside its results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from node.ups import Step
from store.asked import Asked


def not_done_here(step: Step) -> tuple[str, str]:
    """Return sentence and reason (a key of `node.ups.REASONS`) for a workitem whose codes ask for nothing of ours."""
    codes = ", ".join(code.key for code in step.codes) or "no code"
    return f"This node does not do what is asked for ({codes}).", "not-for-us"


def without_study(step: Step) -> tuple[str, str]:
    """Return sentence and reason for a workitem of which nobody knows what study is meant."""
    several = len({one.study for one in step.inputs})
    if not several:
        return "The workitem names no study.", "input"
    sentence = (
        f"The input is of {several} studies, and the workitem does not say which of them is to be analysed."
    )
    return sentence, "input"


def comments(asked: Asked, content: Mapping[str, Any], study: str, *, is_over: bool) -> list[str]:
    """Return what is to be said beside the results; `content` is the workitem's row of that name."""
    told = list(asked.told) if is_over else []
    nowhere = sum(not one.places for one in asked.outputs)
    if is_over and nowhere:
        told.append(f"{nowhere} more objects are not at a destination yet.")
    others = list(dict.fromkeys(one["study"] for one in content.get("inputs", ()) if one["study"] != study))
    if others:
        told.append(f"Input of other studies was not looked at: {', '.join(others)}.")
    if asked.more_series:
        told.append(f"{asked.more_series} more series of the study were looked at.")
    if content.get("parameters"):
        told.append("Processing parameters of the workitem were not used.")
    return told


__all__ = ["comments", "not_done_here", "without_study"]
