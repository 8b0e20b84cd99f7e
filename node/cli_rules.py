"""The options of a protocol: one for each field of `store.response.rules.Rules`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Annotated, Any, get_type_hints

import typer

from store.response.rules import Rules


def _option(*flags: str, **about: Any) -> Any:
    return typer.Option(*flags, rich_help_panel="Protocol", **about)


OPTIONS: Mapping[str, Any] = {
    "confirm_days": _option(min=0, help="Days after which a response is confirmed."),
    "min_stable_days": _option(min=0, help="Days from the start to stable disease as best response."),
    "most_not_evaluable": _option(
        "--max-ne", min=0, help="Visits not evaluable between a response and its confirmation."
    ),
    "accept_stable": _option(
        "--accept-stable", help="One stable visit may lie between a partial response and its confirmation."
    ),
    "cut_at_progression": _option(
        "--cut-at-progression/--after-progression",
        help="Whether what follows progression is left out of the best response.",
    ),
    "missing_as_ne": _option(
        "--missing-as-ne", help="Best response is NE without a visit after the baseline."
    ),
    "progression_confirm_days": _option(
        "--progression-days", min=0, help="iRECIST: days after which progression is confirmed."
    ),
    "progression_confirm_latest_days": _option(
        "--progression-latest-days",
        min=0,
        help="iRECIST: days after which a confirmation is told to be late.",
    ),
    "pr_persistence": _option(
        help="eortc: a partial response lasts until progression; strict: each visit by its own sum."
    ),
    "most_targets": _option("--max-targets", min=1, help="Target lesions in all."),
    "most_targets_per_organ": _option("--max-targets-per-organ", min=1, help="Target lesions of one organ."),
    "nodes_are_one_organ": _option(
        "--nodes-one-organ/--nodes-by-site", help="Whether all lymph nodes are one organ."
    ),
    "unconfirmed_new": _option(
        help="With --patient: what an algorithm alone calls new is told (doubt) or is progression (count)."
    ),
    "least_new_confidence": _option(min=0, max=1, help="With count: how sure the algorithm has to be."),
    "least_new_mm": _option(min=0, help="With count: the least long axis."),
    "volume_change_percent": _option(
        "--volume-change",
        min=0,
        help="Change of volume, in percent, that is more than chance; by the long axis when not given.",
        show_default=False,
    ),
    "incomparable_scans": _option(
        help="PERCIST: what is said of PETs whose liver or uptake time differ too much."
    ),
    "markedly_above_liver": _option(min=1, help="Lugano: uptake over liver for Deauville 5."),
    "deauville_change_percent": _option(
        "--deauville-change", min=0, help="Lugano: change of uptake, in percent, that is one."
    ),
}


def with_rules(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with an option for each parameter of a protocol, in place of its `**protocol`."""
    hints = get_type_hints(Rules)
    given = inspect.signature(command, eval_str=True).parameters.values()
    fixed = [p.replace(kind=p.KEYWORD_ONLY) for p in given if p.kind is not p.VAR_KEYWORD]
    options = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=Annotated[hints[field.name], OPTIONS.get(field.name, _option())],
        )
        for field in fields(Rules)
    ]
    # Typer reads a command's options from these two, and nothing else can tell it of options made at run time.
    command.__signature__ = inspect.Signature([*fixed, *options])  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in (*fixed, *options)}
    return command


__all__ = ["with_rules"]
