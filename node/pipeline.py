"""The one path from files to results: read the study, find, decide identity, encode, write.

It runs in a child process (see `node.child`), holds no connection to SQL or to the network, and is the same
for a study that came by DICOM and for a folder on disk.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.sr.coding import Code

from node.report.folder import write_report
from node.report.shown import ShownFinding, StudyReport
from plugins.contract import Finding, Flag, Mask, Measurement, Plugin, Point, Provenance, Study, Volume
from plugins.errors import Broken, Refused
from plugins.registry import config_sha256, load_plugins
from store.dicom.rules import check
from store.dicom.seg import Identified, encode_seg
from store.dicom.series import ReadStudy, read_mask, read_study
from store.dicom.sr import encode_nothing_found, encode_planar, encode_volumetric
from store.dicom.uids import derive_uid
from store.findings import AnalysedFindings, Coded, Found, Measured, Told, Written
from store.jobs import job_key


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

    @classmethod
    def of(cls, plugin: Plugin) -> Identity:
        """Return the identity of a plugin."""
        card = plugin.model
        return cls(
            plugin=plugin.name,
            plugin_version=plugin.version,
            model_name=card.name if card else plugin.name,
            model_version=card.version if card else plugin.version,
            model_sha256=card.sha256 if card else "",
            config_sha256=config_sha256(plugin),
        )

    def job_key(self, manifest_sha256: str) -> str:
        """Return the key of this analysis of one manifest."""
        return job_key(
            manifest_sha256, self.plugin, self.plugin_version, self.model_sha256, self.config_sha256
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
    """ISO 8601 UTC time."""
    predecessors: Mapping[str, str]
    """Files of the SRs that the new ones replace, by kind; only for a task of one plugin."""
    mask: str | None = None
    """A file of regions to measure instead of those that came with the study; then nothing is written."""
    pages: bool = False
    """True to write overlay pictures, a CSV and a page beside the DICOM objects."""

    def to_json(self) -> str:
        """Return the task as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Task:
        """Return the task that `to_json` wrote."""
        raw = json.loads(text)
        raw["files"], raw["plugins"] = tuple(raw["files"]), tuple(raw["plugins"])
        return cls(**raw)


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

    def to_json(self) -> dict[str, object]:
        """Return plain data for a JSON file."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**plain, "results": self.results.to_json()}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Analysed:
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
    def from_json(cls, plain: Mapping[str, Any]) -> Answer:
        """Return the value that `to_json` wrote."""
        analysed = tuple(Analysed.from_json(a) for a in plain["analysed"])
        return cls(analysed=analysed, pages=tuple(plain["pages"]))


def analyse(task: Task) -> Answer:
    """Return what each analysis of the task found, after its results are written to `task.out`.

    A study or an analysis that is refused gives an `Analysed` with `error_code`; nothing is raised for it.
    """
    plugins = load_plugins(task.plugin_settings, task.plugins)
    try:
        read = read_study([Path(f) for f in task.files])
        if task.mask is not None:
            drawn = read_mask(Path(task.mask), read)
            read = replace(read, study=replace(read.study, drawn=drawn))
    except Refused as refusal:
        keys = [Identity.of(plugin).job_key(task.manifest_sha256) for plugin in plugins]
        return Answer(analysed=tuple(_refused(p, key, refusal) for p, key in zip(plugins, keys, strict=True)))
    shown: list[ShownFinding] = []
    analysed = tuple(_run(plugin, read, task, shown) for plugin in plugins)
    pages = _write_pages(task, read, analysed, shown) if task.pages else ()
    return Answer(analysed=analysed, pages=pages)


def _write_pages(
    task: Task, read: ReadStudy, analysed: Sequence[Analysed], shown: Sequence[ShownFinding]
) -> tuple[str, ...]:
    told = {t: None for a in analysed for t in a.results.told}
    flags = {
        refused: tuple(
            Flag(code=t.code, sentence=t.sentence, series_instance_uid=t.series_instance_uid)
            for t in told
            if t.refused is refused
        )
        for refused in (True, False)
    }
    header = next(iter(read.headers.values()), Dataset())
    report = StudyReport(
        study=read.study,
        findings=tuple(shown),
        patient_name=str(header.get("PatientName", "")),
        description=str(header.get("StudyDescription", "")),
        refused=flags[True],
        flags=flags[False],
        files=tuple(Path(w.path) for a in analysed for w in a.results.written),
    )
    made_at = datetime.fromisoformat(task.started_at)
    return tuple(str(p) for p in write_report(Path(task.out), [report], made_at=made_at))


def _refused(plugin: Plugin, key: str, refusal: Refused, study: Study | None = None) -> Analysed:
    told = Told(code=refusal.code, sentence=refusal.sentence, refused=True)
    return Analysed(
        plugin=plugin.name,
        job_key=key,
        study_instance_uid=study.study_instance_uid if study else "",
        results=AnalysedFindings(told=(*_told(study.refused if study else (), True), told)),
        error_code=refusal.code,
        error_text=refusal.sentence,
    )


def _told(flags: Iterable[Flag], refused: bool) -> tuple[Told, ...]:
    return tuple(
        Told(code=f.code, sentence=f.sentence, series_instance_uid=f.series_instance_uid, refused=refused)
        for f in flags
    )


def _run(plugin: Plugin, read: ReadStudy, task: Task, shown: list[ShownFinding]) -> Analysed:
    study = read.study
    identity = Identity.of(plugin)
    key = identity.job_key(task.manifest_sha256)
    told = (*_told(study.refused, True), *_told((f for v in study.volumes for f in v.flags), False))
    answer = Analysed(
        plugin=plugin.name,
        job_key=key,
        study_instance_uid=study.study_instance_uid,
        results=AnalysedFindings(told=told),
    )
    if not plugin.accepts(study):
        return replace(answer, applicable=False)
    provenance = Provenance(
        **asdict(identity),
        manifest_sha256=task.manifest_sha256,
        job_key=key,
        software_version=version("nadir"),
        started_at=task.started_at,
    )
    try:
        findings = plugin.run(study)
    except Refused as refusal:
        return _refused(plugin, key, refusal, study)
    identified, flags = identify(plugin.name, study.study_instance_uid, findings)
    shown += [ShownFinding.of(i.finding, plugin=plugin.name, tracking_uid=i.tracking_uid) for i in identified]
    written: tuple[Written, ...] = ()
    if task.mask is None:
        predecessors = {kind: dcmread(file) for kind, file in task.predecessors.items()}
        written = write_results(identified, read, provenance, predecessors, Path(task.out), flags)
    found = tuple(_found(i, study.volume(i.finding.series_instance_uid)) for i in identified)
    return replace(
        answer,
        results=AnalysedFindings(found=found, told=(*told, *_told(flags, False)), written=written),
    )


def identify(
    plugin: str, study_instance_uid: str, findings: Sequence[Finding]
) -> tuple[tuple[Identified, ...], tuple[Flag, ...]]:
    """Return the findings with segment number and tracking identity, and the flags raised on the way.

    A tracking UID that came with the source is kept, but never given to two findings. The others derive from
    study, plugin, series and the finding's key, so that a repeated run gives the same.
    """
    identified: list[Identified] = []
    flags: list[Flag] = []
    taken: set[str] = set()
    numbers: dict[str, int] = {}
    for finding in findings:
        series = finding.series_instance_uid
        numbers[series] = numbers.get(series, 0) + 1
        uid = finding.tracking_uid
        if uid in taken:
            flags.append(
                Flag(
                    code="tracking-uid-shared",
                    sentence=f"'{finding.label}' has the Tracking UID of another region and was given its own.",
                    series_instance_uid=series,
                    plugin=plugin,
                )
            )
            uid = None
        if uid is None:
            uid = derive_uid(study_instance_uid, "tracking", plugin, series, finding.key)
        taken.add(uid)
        identified.append(
            Identified(
                finding=finding,
                segment_number=numbers[series],
                tracking_identifier=finding.tracking_identifier or finding.label,
                tracking_uid=uid,
            )
        )
    return tuple(identified), tuple(flags)


def write_results(
    identified: Sequence[Identified],
    read: ReadStudy,
    provenance: Provenance,
    predecessors: Mapping[str, Dataset],
    out: Path,
    flags: Sequence[Flag],
) -> tuple[Written, ...]:
    """Return the DICOM objects written into `out`: one SEG per source series, and the SRs.

    Raises `Broken` rather than leave an object that breaks the project's own rules.
    """
    study = read.study
    written_at = datetime.fromisoformat(provenance.started_at)
    number = _SeriesNumbers(read.headers.values(), provenance.plugin).take
    segs = [
        encode_seg(
            [i for i in identified if i.finding.series_instance_uid == uid],
            study.volume(uid),
            read.headers,
            provenance,
            number("seg", uid),
            written_at,
        )
        for uid in dict.fromkeys(i.finding.series_instance_uid for i in identified)
    ]
    objects = [("seg", seg) for seg in segs]
    told = (
        *(f for v in study.volumes for f in v.flags),
        *(f for i in identified for f in i.finding.flags),
        *flags,
    )

    def report(kind: str, encode: Callable[..., Dataset], *content: object) -> tuple[str, Dataset]:
        series_number = number(kind, study.study_instance_uid)
        return kind, encode(
            *content,
            read.headers,
            provenance,
            series_number,
            written_at,
            flags=told,
            refused=study.refused,
            predecessors=[predecessors[kind]] if kind in predecessors else [],
        )

    if identified:
        objects.append(report("sr-volumetric", encode_volumetric, identified, study.volumes, segs))
        objects.append(report("sr-planar", encode_planar, identified, study.volumes, segs))
    else:
        objects.append(report("sr-volumetric", encode_nothing_found, study.volumes))
    return tuple(
        _write(kind, dataset, segs, Path(out) / f"{provenance.plugin}-{kind}-{n}.dcm")
        for n, (kind, dataset) in enumerate(objects, start=1)
    )


class _SeriesNumbers:
    """Gives each result series a number that is the same when it is written again, and that no other has."""

    def __init__(self, headers: Iterable[Dataset], plugin: str) -> None:
        self._taken = {int(h.SeriesNumber) for h in headers if h.get("SeriesNumber") is not None}
        self._plugin = plugin

    def take(self, kind: str, uid: str) -> int:
        """Return the number for one kind of result on one series: 5 digits, from a hash, moved up when taken."""
        number = 10_000 + zlib.crc32(f"{self._plugin}|{kind}|{uid}".encode()) % 80_000
        while number in self._taken:
            number += 1
        self._taken.add(number)
        return number


def _write(kind: str, dataset: Dataset, segs: Sequence[Dataset], path: Path) -> Written:
    violations = check(dataset, segs)
    if violations:
        first = violations[0]
        raise Broken(f"the {kind} breaks rule {first.rule} at {first.where}: {first.sentence}")
    dataset.save_as(path, enforce_file_format=True)
    return Written(
        kind=kind,
        sop_instance_uid=dataset.SOPInstanceUID,
        sop_class_uid=dataset.SOPClassUID,
        series_instance_uid=dataset.SeriesInstanceUID,
        path=str(path),
    )


def _coded(code: Code) -> Coded:
    return Coded(value=code.value, scheme=code.scheme_designator, meaning=code.meaning)


def _found(identified: Identified, volume: Volume) -> Found:
    finding = identified.finding
    return Found(
        label=finding.label,
        tracking_identifier=identified.tracking_identifier,
        tracking_uid=identified.tracking_uid,
        series_instance_uid=finding.series_instance_uid,
        segment_number=identified.segment_number,
        category=_coded(finding.category),
        type=_coded(finding.type),
        site=_coded(finding.site) if finding.site else None,
        laterality=_coded(finding.laterality) if finding.laterality else None,
        confidence=finding.confidence,
        automatic=finding.automatic,
        centroid_mm=centroid_mm(finding.mask, volume),
        measurements=tuple(_measured(m, volume) for m in finding.measurements),
        flags=_told(finding.flags, False),
    )


def centroid_mm(mask: Mask, volume: Volume) -> Point:
    """Return the centre of gravity of a mask, LPS mm."""
    index = np.argwhere(mask.voxels).mean(axis=0) + np.asarray(mask.origin)
    x, y, z = volume.to_mm(index)
    return (float(x), float(y), float(z))


def _measured(measurement: Measurement, volume: Volume) -> Measured:
    k = measurement.slice_index
    return Measured(
        name=measurement.name,
        concept=_coded(measurement.concept),
        value=measurement.value,
        unit=measurement.unit.value,
        method=measurement.method,
        derivation_meaning=measurement.derivation.meaning if measurement.derivation else None,
        uncertainty=measurement.uncertainty,
        end_points_mm=measurement.end_points_mm,
        sop_instance_uid=None if k is None else volume.sop_instance_uids[k],
    )
