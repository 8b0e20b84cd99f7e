"""What every model that comes from elsewhere has in common: a folder that somebody vouches for, and one series."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from models.card import ModelCard
from models.files import BadModel
from models.tree import verify_tree
from plugins.contract import Finding, Flag, Study, Volume
from plugins.errors import Refused
from plugins.series_order import preferred, reformat_doubts, standing

ROLES = ("ct", "pet_suv", "mr")


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """A foreign model as an analysis: set up in the settings, under a name of its own, as often as wanted.

    A foreign model is a program. Its folder is held against `trusted` before anything in it is read, and again right
    before and after each run: what was found with other bytes is not kept.
    """

    name: str
    """Name of the analysis."""
    folder: str = ""
    """Folder of the model; it has to be said."""
    trusted: str = ""
    """sha256 of the folder, as `nadir models hash` tells it; it has to be said: who says it vouches for the program."""
    role: str = "ct"
    """What it is run on: `ct`, `pet_suv`, `mr`; of several such series the acquired one with the most slices."""
    device: str = "cpu"
    """Where torch runs it."""

    def __post_init__(self) -> None:
        if not self.folder:
            raise ValueError("'folder' is not said; name the folder of the model")
        if not self.trusted:
            raise ValueError(
                f"'trusted' is not said; write the sha256 that 'nadir models hash {self.folder}' tells, if you vouch "
                "for what is in that folder"
            )
        if self.role not in ROLES:
            raise ValueError(f"role is one of {', '.join(ROLES)}, not '{self.role}'")

    @property
    def title(self) -> str:
        """Return the name for people."""
        return f"{self.name}: {self.model.name} {self.version}"

    @property
    def version(self) -> str:
        """Return the version of the model. Refuses as `model` does."""
        return self.model.version

    @property
    def model(self) -> ModelCard:
        """Return the card of the model. Refuses what is not vouched for, and what is no such model."""
        try:
            return self._card
        except BadModel as bad:
            raise Refused(bad.code, bad.sentence, where=self.folder) from bad

    @cached_property
    def sha256(self) -> str:
        """Return the hash of the folder, once it was held against `trusted`. Raises BadModel."""
        return verify_tree(Path(self.folder), [self.trusted])

    @cached_property
    def _card(self) -> ModelCard:
        return self.card()

    def card(self) -> ModelCard:
        """Return the card; for the kind of model to say. Raises BadModel."""
        raise NotImplementedError

    def find(self, volume: Volume) -> tuple[Finding, ...]:
        """Return what the model finds on one series; for the kind of model to do. Raises BadModel."""
        raise NotImplementedError

    def accepts(self, study: Study) -> bool:
        """Return True when the study holds a series of the role."""
        return bool(study.by_role(self.role))

    def looks_at(self, study: Study) -> tuple[Volume, ...]:
        """Return the series of the role, that with the most slices first; reformats stand behind what was acquired."""
        fit = preferred(study.by_role(self.role))
        return tuple(sorted(fit, key=lambda v: (standing(v), -v.array.shape[0])))

    def run(self, study: Study) -> tuple[Finding | Flag, ...]:
        """Return what the model finds on the series of the role with the most slices.

        Refuses `no-series`, `changed-model`, and what the model stopped with.
        """
        series = self.looks_at(study)
        if not series:
            raise Refused("no-series", f"the study holds no series of the role '{self.role}'")
        try:
            self._hold()
            try:
                return (*self.find(series[0]), *reformat_doubts(series[0], series, self.name))
            finally:
                self._hold()
        except BadModel as bad:
            raise Refused(bad.code, bad.sentence, where=self.name) from bad

    def _hold(self) -> None:
        """Hold the folder, as it is now, against `trusted`. Raises BadModel (`changed-model`)."""
        try:
            verify_tree(Path(self.folder), [self.trusted])
        except BadModel as bad:
            raise BadModel(
                "changed-model",
                f"the folder of the model is not, or did not stay, what is vouched for, so that nothing is told of it"
                f" ({bad.sentence}); put it back, or vouch for what it is now, and let nothing write in it",
            ) from bad


__all__ = ["Adapter"]
