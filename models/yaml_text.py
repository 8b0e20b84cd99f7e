"""A YAML text as plain values, whoever wrote it: nothing in it runs, and what it says has an end."""

from __future__ import annotations

from typing import Any

MOST_VALUES = 100_000
"""So many values a text may hold; what an alias (`*name`) says again is counted again."""
NO_VALUE = (ValueError, LookupError, AttributeError, TypeError, ArithmeticError)
"""What PyYAML stops with at a word that is not of the kind that it looks like, or is said to be."""


def read_yaml(text: str) -> Any:
    """Return what a text holds.

    Raises YAMLError (no YAML) and ValueError: a word that is no such date or number, values that lie too deep in each
    other, more than `MOST_VALUES` of them, as of a list that holds itself.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_object(self, node: Any, deep: bool = False) -> Any:
            if node.id != "scalar":
                return super().construct_object(node, deep)
            try:
                return super().construct_object(node, deep)
            except NO_VALUE as error:
                word, kind = node.value[:40], node.tag.rpartition(":")[2]
                raise ValueError(
                    f"'{word}' in line {node.start_mark.line + 1} cannot be read as {kind}; put it between quotes if it"
                    " is a text"
                ) from error

    try:
        if _values(yaml.compose(text, Loader=yaml.SafeLoader), {}) > MOST_VALUES:
            raise ValueError(
                f"it holds more than {MOST_VALUES} values, with those that its aliases (*name) say again"
            )
        return Loader(text).get_single_data()
    except RecursionError as error:
        raise ValueError("its values lie too deep in each other") from error


def _values(node: Any, known: dict[int, int]) -> int:
    """Return how many values a node means; too many for one that lies in itself."""
    if node is None or isinstance(node.value, str):
        return 1
    if id(node) not in known:
        known[id(node)] = MOST_VALUES + 1
        inner = node.value if node.id == "sequence" else [one for pair in node.value for one in pair]
        known[id(node)] = 1 + sum(_values(one, known) for one in inner)
    return known[id(node)]


__all__ = ["MOST_VALUES", "read_yaml"]
