"""Which organ a lesion counts for, so that not too many targets are of one."""

from __future__ import annotations

import re

from store.response.rules import USUAL, Rules

LYMPH_NODES = "lymph nodes"
NO_SITE = "an unknown organ"
SIDES = frozenset({"left", "right", "bilateral", "both", "l", "r"})
PLACES = frozenset({"upper", "middle", "lower", "superior", "inferior", "anterior", "posterior"})
FILLING = frozenset({"lobe", "of", "the", "structure"})
SEGMENT = frozenset({"segment", "segments"})
_NUMBERED = re.compile(r"(\d+|[ivx]+)[a-d]?|and")
_NAMES = {"hepatic": "liver"}


def organ(site: str, node: bool, rules: Rules = USUAL) -> str:
    """Return the organ that a lesion counts for: without its side, its part and its segment, nodes being one."""
    if node and rules.nodes_are_one_organ:
        return LYMPH_NODES
    words = [word for part in re.split(r"[\s/,-]+", site.lower()) if (word := part.strip("(),;."))]
    left_out = SIDES | PLACES | FILLING | SEGMENT
    if not SEGMENT.isdisjoint(words):
        left_out |= {word for word in words if _NUMBERED.fullmatch(word)}
    name = " ".join(_one(word) for word in words if word not in left_out)
    return _NAMES.get(name, name) or " ".join(words) or NO_SITE


def _one(word: str) -> str:
    """Return a word in the singular, as far as organs need it: lungs, kidneys, ovaries; but pancreas, pelvis."""
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word if word.endswith(("ss", "us", "is", "as")) else word.removesuffix("s")


__all__ = ["NO_SITE", "organ"]
