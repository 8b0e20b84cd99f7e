"""Models as the terminal shows them: a list by family, and everything that is known of one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from node import printing

if TYPE_CHECKING:
    from node.model_view import Entry

COLUMNS = {
    "number": "number",
    "version": "version",
    "state": "state",
    "made": "made",
    "since": "since",
    "by": "by",
    "why": "why",
}
DECIDED = {
    "at": "when (UTC)",
    "done": "what",
    "to": "counts from then on",
    "instead_of": "in place of",
    "by": "by",
    "note": "why",
}
CHECKED = {"title": "asked", "outcome": "answer", "sentence": "found"}


def print_models(found: Sequence[Entry]) -> None:
    """Print the models of each family as a table."""
    for family in dict.fromkeys(entry.family for entry in found):
        rows = [_row(entry) for entry in found if entry.family == family]
        printing.print_table(rows, COLUMNS, numbers=("number",), wrapped=("by", "why"), title=family)


def print_decisions(past: Sequence[Mapping[str, Any]]) -> None:
    """Print what `node.model_view.decisions` tells as a table; nothing when nobody decided anything."""
    if past:
        rows = [{**done, "at": f"{done['at']:%Y-%m-%d %H:%M}"} for done in past]
        printing.print_table(rows, DECIDED, wrapped=("by", "note"), title="Who decided what")


def print_model(told: Mapping[str, Any]) -> None:
    """Print everything that `node.model_view.details` tells of a model."""
    rows = [{"what": what, "said": said} for what, said in _lines(told) if said]
    named, state = f"{told['family']} {told['number']}", f"version {told['version']}, {told['state']}"
    printing.print_table(rows, {"what": named, "said": state}, wrapped=("said",))
    figures = told.get("figures") or {}
    if checks := figures.get("checks"):
        printing.print_table(checks, CHECKED, wrapped=("title", "sentence"), title="What the gate asked")


def _row(entry: Entry) -> dict[str, Any]:
    return {
        **asdict(entry),
        "made": f"{entry.made_at:%Y-%m-%d}" if entry.made_at else "",
        "since": f"{entry.decided_at:%Y-%m-%d}" if entry.decided_at else "",
        "why": entry.why.partition(". ")[0],
    }


def _lines(told: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "files", told["files"]
    yield "for", told.get("intended_use") or ""
    yield "input", told.get("input") or ""
    yield "limits", " ".join(told.get("limits") or ())
    yield "learned from", told.get("training_data") or ""
    yield "its sha256", told.get("data_sha256") or ""
    if "judged_against" in told:
        run = f", by run {told['run']}" if told["run"] else ""
        yield "made", f"{told['made_at']:%Y-%m-%d %H:%M} UTC{run}"
        yield "judged against", f"{told['judged_against']} ({told['champion_sha256']})"
        yield "judged on", told["judged_sha256"]
        yield (
            "the gate",
            ("proposed it. " if told["is_proposed"] else "did not propose it. ") + told["because"],
        )
        yield "folder", told["folder"]
    yield "manifest", told["manifest_sha256"]
    yield "commit", told.get("source_commit") or ""
    yield "environment", "; ".join(_pairs(one) for one in told.get("environment") or ())
    yield "seeds", ", ".join(f"fold {fold}: {seed}" for fold, seed in (told.get("seeds") or {}).items())
    yield from _decided(told)
    for device in told["devices"]:
        if "error" in device:
            yield device["analysis"], f"cannot be used with it: {device['error']}"
        else:
            yield device["analysis"], f"Device UID {device['device_uid']}"
            yield "its model hash", device["model_sha256"]


def _decided(told: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for done in told["history"]:
        note = f" ({done['note']})" if done["note"] else ""
        counts = f"{done['to']} counts in place of {done['instead_of']}"
        yield f"{done['at']:%Y-%m-%d %H:%M}", f"{done['done']} by {done['by']}: {counts}{note}"


def _pairs(said: Mapping[str, Any]) -> str:
    words = {key: value if isinstance(value, str) else json.dumps(value) for key, value in said.items()}
    return ", ".join(f"{key} {word}" for key, word in words.items())


__all__ = ["print_decisions", "print_model", "print_models"]
