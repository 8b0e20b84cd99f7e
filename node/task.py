"""What goes into the child process and what comes out of it, as plain values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from models.place import ModelPlace
from plugins.contract import Flag, Mark, Plugin
from plugins.registry import config_sha256
from store.analysed import AnalysedFindings, build
from store.keys import job_key
from store.tracking.past import Past


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What makes a plugin's result its own: equal identities on equal input give equal results."""

    plugin: str
    """Name of the plugin."""
    plugin_version: str
    """Its version."""
    model_name: str
    """Name of the model inside, or of the plugin when it has none."""
    model_version: str
    """Version of the model."""
    model_sha256: str
    """Hash of the model card; of the plugin's name and version when it has none."""
    config_sha256: str
    """Hash of the settings."""
    model_kind: str = "classical"
    """`learned` or `classical`, as the model card says; part of no key, which the card's hash is already."""

    @classmethod
    def of(cls, plugin: Plugin) -> Self:
        """Return the identity of a plugin."""
        card = plugin.model
        return cls(
            plugin=plugin.name,
            plugin_version=plugin.version,
            model_name=card.name if card else plugin.name,
            model_version=card.version if card else plugin.version,
            model_sha256=card.sha256 if card else "",
            config_sha256=config_sha256(plugin),
            model_kind=card.kind if card else "classical",
        )

    def job_key(self, manifest_sha256: str, run: int = 0) -> str:
        """Return the key of this analysis of one manifest, asked for again `run` times."""
        return job_key(
            manifest_sha256, self.plugin, self.plugin_version, self.model_sha256, self.config_sha256, run
        )


@dataclass(frozen=True, kw_only=True)
class Task:
    """What crosses into the child process: one study revision and the analyses to run on it."""

    files: tuple[str, ...]
    """Part 10 files of the revision."""
    manifest_sha256: str
    """Hash of the manifest."""
    plugins: tuple[str, ...]
    """Names of the analyses."""
    plugin_settings: Mapping[str, Mapping[str, object]]
    """Settings of the analyses, by name."""
    out: str
    """An empty folder that the results are written to."""
    started_at: str
    """ISO 8601 time in the zone of this node: times in results are local, as those of other devices are."""
    predecessors: Mapping[str, str]
    """Files of the SRs that the new ones supersede, by kind; only for a task of one plugin."""
    mask: str | None = None
    """A file of regions to measure instead of those that came with the study; then nothing is written."""
    more: tuple[str, ...] = ()
    """Those of `node.deliveries.MORE_KINDS` that are asked for."""
    marks: tuple[tuple[float, float, float], ...] = ()
    """Points, LPS mm, at which lesions are asked for beside those that were marked in the study."""
    pages: bool = False
    """True to write overlay pictures, a CSV and a page beside the DICOM objects."""
    past: Past = field(default_factory=Past)
    """What is known of the patient from other times."""
    models: Mapping[str, ModelPlace] = field(default_factory=dict)
    """The models made here that count, by family."""
    run: int = 0
    """How often the same work had been asked for before."""
    doubts: tuple[Flag, ...] = ()
    """What is doubtful about the study that its files do not tell."""

    @property
    def requests(self) -> tuple[Mark, ...]:
        """Return the points as marks."""
        who = "the person who asked for it"
        return tuple(Mark(point_mm=p, label="", source="request", made_by=who) for p in self.marks)

    def to_json(self) -> str:
        """Return the task as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the task that `to_json` wrote."""
        raw = json.loads(text)
        raw |= {name: tuple(raw[name]) for name in ("files", "plugins", "more")}
        marks = tuple(tuple(point) for point in raw["marks"])
        models = {family: ModelPlace(**place) for family, place in raw["models"].items()}
        raw["doubts"] = tuple(Flag(**doubt) for doubt in raw["doubts"])
        return cls(**{**raw, "marks": marks, "past": build(Past, raw["past"]), "models": models})


@dataclass(frozen=True, kw_only=True)
class Analysed:
    """What one analysis gave for one study."""

    plugin: str
    """Name of the plugin."""
    job_key: str
    """Key of the job."""
    study_instance_uid: str = ""
    """The study; empty when it could not even be read."""
    applicable: bool = True
    """False when the study holds nothing for this plugin."""
    results: AnalysedFindings = field(default_factory=AnalysedFindings)
    """Findings with identity decided, objects written, refusals and doubts."""
    error_code: str | None = None
    """Code of the reason why there is no result, when the analysis was refused as a whole."""
    error_text: str | None = None
    """That reason in a sentence."""
    declined: bool = False
    """True when it was the analysis that refused, after it had looked: nothing failed, and no attempt is to come."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """How long its parts took: `read`, `find`, `follow` (when there is a past), `write`."""

    def to_json(self) -> dict[str, object]:
        """Return plain data for a JSON file."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**plain, "results": self.results.to_json()}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """Return the value that `to_json` wrote."""
        return cls(**{**plain, "results": AnalysedFindings.from_json(plain["results"])})


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What comes back from the child process."""

    analysed: tuple[Analysed, ...]
    """One for each analysis of the task."""
    pages: tuple[str, ...] = ()
    """Pictures, CSV and page, when they were asked for."""

    def to_json(self) -> dict[str, object]:
        """Return plain data for a JSON file."""
        return {"analysed": [a.to_json() for a in self.analysed], "pages": self.pages}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """Return the value that `to_json` wrote."""
        analysed = tuple(Analysed.from_json(a) for a in plain["analysed"])
        return cls(analysed=analysed, pages=tuple(plain["pages"]))


__all__ = ["Analysed", "Answer", "Identity", "Task"]
