"""An analysis asked for what it finds: foreign code, whose faults are its own and reach no other analysis."""

from __future__ import annotations

from collections.abc import Iterable

from node.fault import place
from plugins.contract import Finding, Flag, Plugin, Study
from plugins.errors import Broken, NadirError


def lock(study: Study) -> None:
    """Make the voxels of a study read-only: every analysis is given the same arrays."""
    for array in (*(v.array for v in study.volumes), *(d.mask.voxels for d in study.drawn)):
        array.flags.writeable = False


def given(plugin: Plugin, study: Study) -> tuple[Finding | Flag, ...] | None:
    """Return what a plugin gave, None when the study has nothing for it. Raises Refused, or Broken for its fault."""
    who = f"plugin '{plugin.name}' {plugin.version}"
    try:
        if not plugin.accepts(study):
            return None
        gave: object = plugin.run(study)
        told = tuple(gave) if isinstance(gave, Iterable) else None
    except (NadirError, MemoryError, KeyboardInterrupt):
        raise
    except BaseException as error:  # a plugin is foreign code: if it raises or exits, only it has failed
        raise Broken(f"{who} failed: {place(error, plugin)}") from error
    if told is None:
        kind = type(gave).__name__
        raise Broken(f"{who} returned {kind}; 'run' returns a tuple, an empty one when nothing was found")
    return tuple(_checked(one, number, study, who) for number, one in enumerate(told, start=1))


def _checked(one: object, number: int, study: Study, who: str) -> Finding | Flag:
    """Return what is a flag, or a measured finding, told by its number, on the grid of a series. Raises Broken."""
    if isinstance(one, Flag):
        return one
    if not isinstance(one, Finding):
        raise Broken(
            f"{who} returned a {type(one).__name__} among what it found; it returns Findings and Flags"
        )
    volume = next((v for v in study.volumes if v.series_instance_uid == one.series_instance_uid), None)
    if volume is None:
        raise Broken(
            f"{who} gave a finding on the series {one.series_instance_uid}, which is no volume of the study"
        )
    if one.mask.shape != volume.array.shape:
        raise Broken(
            f"{who} gave a finding whose mask has the shape {one.mask.shape}; "
            f"its series has {volume.array.shape}: slice, row, column"
        )
    slices = len(volume.array)
    for measurement in one.measurements:
        if measurement.slice_index is not None and measurement.slice_index >= slices:
            raise Broken(
                f"{who} gave finding {number} a measurement '{measurement.name}' in slice "
                f"{measurement.slice_index}; its series has the slices 0 to {slices - 1}"
            )
    if not one.measurements:
        raise Broken(f"{who} gave finding {number} without a measurement; its report needs at least one")
    return one


__all__ = ["given", "lock"]
