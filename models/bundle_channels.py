"""How the channels of a bundle's answer are read: as one picture of labels, or each as a mask of its own.

A bundle says it by its post-processing (`Activationsd`, `AsDiscreted`) and by the names in `channel_def`:

- An argmax or a softmax makes labels that exclude each other: one picture, in which 0 is nothing, whatever its name.
- A threshold without either makes channels that know nothing of each other: each that is named is a mask, and masks may
  overlap. Channel 0 is a mask too, unless it is called background.
- One channel is a picture of labels, unless it is thresholded and channel 0 is the only one that has a name.
- Several channels of which the post-processing says nothing are a picture when channel 0 is called background; nobody
  can tell what they are otherwise, and they are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.files import BadModel

Kind = Literal["exclusive", "own", "unsaid"]
SAYS = frozenset(
    name + form for name in ("AsDiscrete", "Activations") for form in ("", "d", "D", "Dict")
)  # the names that MONAI has for the two transforms
LIKELY = 0.5


@dataclass(frozen=True, kw_only=True)
class Layers:
    """What a bundle drew: pictures of numbers that may overlap, and 0 is nothing in each."""

    pictures: tuple[NDArray[np.int32], ...]
    """The pictures, `(x, y, z)`."""
    names: Mapping[int, str]
    """What the numbers in all of them mean."""


def kind_of(postprocessing: object) -> Kind:
    """Return what a post-processing, as it is written in the configuration, says of its channels; runs nothing."""
    said = list(_arguments(postprocessing))
    # An expression or a reference is read by MONAI alone.
    if any(isinstance(value, str) for _, value in said):
        return "unsaid"
    names = {name for name, value in said if value is not None and value is not False}
    if names & {"argmax", "softmax"}:
        return "exclusive"
    return "own" if "threshold" in names else "unsaid"


def _arguments(section: object) -> Iterator[tuple[str, object]]:
    """Yield name and value of what is given to the transforms that tell; each value of a list for itself."""
    if isinstance(section, dict):
        if section.get("_disabled_") is True:
            return
        if str(section.get("_target_", "")).rpartition(".")[2] in SAYS:
            for name in ("argmax", "softmax", "threshold"):
                value = section.get(name)
                yield from ((name, one) for one in (value if isinstance(value, list) else [value]))
        for value in section.values():
            yield from _arguments(value)
    elif isinstance(section, list):
        for value in section:
            yield from _arguments(value)


def layers_of(answer: NDArray[Any], labels: Mapping[int, str], has_background: bool, kind: Kind) -> Layers:
    """Return the pictures in an answer `(channel, x, y, z)`; a mask bears the number of its channel and one more.

    `labels` names what there is besides the background. Raises BadModel (`bundle-channels`) when nobody can tell how
    the channels are meant.
    """
    count = answer.shape[0]
    numbers = {*labels, *([0] if has_background else [])}
    if kind == "own" and numbers == set(range(count)):
        return Layers(
            pictures=tuple(
                np.where(answer[n] > LIKELY, np.int32(n + 1), np.int32(0)) for n in sorted(labels)
            ),
            names={n + 1: name for n, name in labels.items()},
        )
    if count > 1 and (kind == "own" or (kind == "unsaid" and not has_background)):
        named = ", ".join(f"{n}" for n in sorted(numbers))
        raise BadModel("bundle-channels", _undecided(count, named, kind))
    picture = answer.argmax(axis=0) if count > 1 else np.rint(answer[0])
    return Layers(
        pictures=(np.asarray(picture, dtype=np.int32),),
        names={n: name for n, name in labels.items() if n != 0},
    )


def _undecided(count: int, named: str, kind: Kind) -> str:
    if kind == "own":
        return (
            f"the bundle thresholds {count} channels, each a mask of its own, and channel_def in configs/metadata.json"
            f" names {named}; it has to name each of 0 to {count - 1}"
        )
    return (
        f"the bundle gives {count} channels, and neither its post-processing (softmax, argmax or threshold) nor a"
        " channel 0 called background says whether they exclude each other; state one of them in its configuration"
    )


__all__ = ["Kind", "Layers", "kind_of", "layers_of"]
