"""The best response of a course of dated verdicts, with and without confirmation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from plugins.errors import Refused
from store.response.rules import USUAL, Rules


@dataclass(frozen=True, kw_only=True)
class Words:
    """How a set of criteria calls its verdicts."""

    complete: str = "CR"
    """Complete response."""
    partial: str = "PR"
    """Partial response."""
    stable: str = "SD"
    """Stable disease."""
    persisting: str = "NON-CR/NON-PD"
    """Disease that was never measured and is neither gone nor progressing."""
    progressive: str = "PD"
    """Progression; what follows the first one is left out."""
    unconfirmed: str = ""
    """Progression that is not confirmed and ends nothing; empty where there is none."""


RECIST = Words()
METABOLIC = Words(complete="CMR", partial="PMR", stable="SMD", progressive="PMD")
IRECIST = Words(
    complete="iCR",
    partial="iPR",
    stable="iSD",
    persisting="NON-iCR/NON-iUPD",
    progressive="iCPD",
    unconfirmed="iUPD",
)
NOT_EVALUABLE = "NE"
NOT_DONE = "ND"


def best_overall(
    verdicts: Sequence[tuple[date, str]], start: date, rules: Rules = USUAL, words: Words = RECIST
) -> str | None:
    """Return the best verdict up to the first progression; None without a verdict (NE with `missing_as_ne`).

    Stable disease counts from `rules.min_stable_days` after `start`, and is NE before. `verdicts` come in any
    order, baseline excluded. Order: complete, partial, stable, persisting, progressive, unconfirmed, NE, ND;
    that of admiralonco's `derive_param_bor`. Refuses a word that `words` does not know (`unknown-verdict`).
    """
    course = _course(verdicts, rules, words)
    called = [
        _when_stable(at, word, start, rules) if word in (words.stable, words.persisting) else word
        for at, word in course
    ]
    return _best(called, rules, words)


def best_confirmed(
    verdicts: Sequence[tuple[date, str]], start: date, rules: Rules = USUAL, words: Words = RECIST
) -> str | None:
    """Return the best verdict when complete and partial response need confirmation, else as `best_overall`.

    A complete response needs another one at least `rules.confirm_days` later, with nothing but complete
    responses and at most `most_not_evaluable` NE between. A partial response needs a partial or complete one
    likewise; one SD may lie between with `accept_stable`, and no partial response may follow a complete one.
    A response that is not confirmed is stable disease when it lies `min_stable_days` after `start`, else NE.
    Source: admiralonco `derive_param_confirmed_bor`; where that says NE although disease came back after a
    complete response, the answer is progression (RECIST 1.1, table 3 and its footnote).
    """
    course = _course(verdicts, rules, words)
    called = [_confirmed(course, index, start, rules, words) for index in range(len(course))]
    best = _best(called, rules, words)
    if best == NOT_EVALUABLE and _came_back(course, words):
        return words.unconfirmed or words.progressive
    return best


def _confirmed(
    course: Sequence[tuple[date, str]], index: int, start: date, rules: Rules, words: Words
) -> str:
    at, word = course[index]
    if word == words.complete and _is_confirmed(course, index, {words.complete}, 0, rules, words):
        return words.complete
    if word == words.partial:
        stable = 1 if rules.accept_stable else 0
        if _is_confirmed(course, index, {words.complete, words.partial}, stable, rules, words):
            return words.partial
    if word in (words.complete, words.partial):
        return _when_stable(at, words.stable, start, rules)
    if word in (words.stable, words.persisting):
        return _when_stable(at, word, start, rules)
    return word


def _is_confirmed(
    course: Sequence[tuple[date, str]], index: int, by: set[str], most_stable: int, rules: Rules, words: Words
) -> bool:
    """Whether one of `by` follows late enough with only `by`, few NE and at most `most_stable` SD between."""
    earliest = course[index][0] + timedelta(days=rules.confirm_days)
    stable = not_evaluable = 0
    was_complete = False
    for at, word in course[index + 1 :]:
        if word == words.partial and was_complete:
            return False
        if word in by and at >= earliest:
            return True
        was_complete = was_complete or word == words.complete
        stable += word == words.stable
        not_evaluable += word == NOT_EVALUABLE
        if word not in by | {words.stable, NOT_EVALUABLE}:
            return False
        if stable > most_stable or not_evaluable > rules.most_not_evaluable:
            return False
    return False


def _when_stable(at: date, word: str, start: date, rules: Rules) -> str:
    return word if at >= start + timedelta(days=rules.min_stable_days) else NOT_EVALUABLE


def _came_back(course: Sequence[tuple[date, str]], words: Words) -> bool:
    said = [word for _, word in course]
    disease = {words.partial, words.stable, words.persisting}
    return words.complete in said and bool(disease & set(said[said.index(words.complete) :]))


def _course(verdicts: Sequence[tuple[date, str]], rules: Rules, words: Words) -> tuple[tuple[date, str], ...]:
    known = _order(words)
    for at, word in verdicts:
        if word not in known:
            sentence = f"{word!r} on {at} is none of the verdicts {', '.join(known)}."
            raise Refused("unknown-verdict", sentence)
    course = sorted(verdicts, key=lambda verdict: verdict[0])
    if not rules.cut_at_progression:
        return tuple(course)
    ends = [at for at, word in course if word == words.progressive]
    return tuple((at, word) for at, word in course if not ends or at <= ends[0])


def _order(words: Words) -> tuple[str, ...]:
    responses = (words.complete, words.partial, words.stable, words.persisting)
    progressions = (words.progressive, words.unconfirmed) if words.unconfirmed else (words.progressive,)
    return (*responses, *progressions, NOT_EVALUABLE, NOT_DONE)


def _best(called: Sequence[str], rules: Rules, words: Words) -> str | None:
    if not called:
        return NOT_EVALUABLE if rules.missing_as_ne else None
    return min(called, key=_order(words).index)


__all__ = ["IRECIST", "METABOLIC", "RECIST", "Words", "best_confirmed", "best_overall"]
