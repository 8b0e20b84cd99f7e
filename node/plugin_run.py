"""An analysis asked for what it finds: foreign code, whose faults are its own and reach no other analysis."""

from __future__ import annotations

from node.fault import place
from plugins.contract import Finding, Flag, Plugin, Study
from plugins.errors import Broken, NadirError


def lock(study: Study) -> None:
    """Make the voxels of a study read-only: every analysis is given the same arrays."""
    for array in (*(v.array for v in study.volumes), *(d.mask.voxels for d in study.drawn)):
        array.flags.writeable = False


def given(plugin: Plugin, study: Study) -> tuple[Finding | Flag, ...] | None:
    """Return what a plugin gave, None when the study has nothing for it. Raises Refused, or Broken for its fault."""
    try:
        gave = plugin.run(study) if plugin.accepts(study) else None
    except (NadirError, MemoryError):
        raise
    except Exception as error:  # a plugin is foreign code: whatever it raises is its fault, and only its own
        raise Broken(f"plugin '{plugin.name}' {plugin.version} failed: {place(error)}") from error
    for one in gave or ():
        if isinstance(one, Finding):
            _check(plugin, one, study)
    return gave


def _check(plugin: Plugin, finding: Finding, study: Study) -> None:
    """Raise Broken for a finding that does not lie on the grid of its series."""
    shape = study.volume(finding.series_instance_uid).array.shape
    if finding.mask.shape != shape:
        raise Broken(
            f"plugin '{plugin.name}' {plugin.version} gave a finding whose mask has the shape {finding.mask.shape}; "
            f"its series has {shape}: slice, row, column"
        )


__all__ = ["given", "lock"]
