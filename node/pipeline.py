"""The one path from files to results: read the study, find, decide identity, encode, write.

It runs in a child process (see `node.child`), holds no connection to SQL or to the network, and is the same
for a study that came by DICOM and for a folder on disk.
"""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.sr.coding import Code

from node.deliveries import MORE_KINDS
from node.fault import disk_fault, place
from node.identity import Follower, follower, identify, legally_called, linked
from node.plugin_run import given, lock
from node.task import Analysed, Answer, Identity, Task
from plugins.contract import Finding, Flag, Measurement, Plugin, Volume, parted
from plugins.errors import Absent, Broken, NadirError, Refused
from plugins.flag_codes import NOTHING_HERE
from plugins.registry import load_plugins
from store.analysed import AnalysedFindings, Coded, Found, Measured, SeriesFacts, Told, Written
from store.dicom.rules import check
from store.dicom.seg import Identified, encode_seg
from store.dicom.series import ReadStudy, read_mask, read_study
from store.dicom.sr import Report, encode_nothing_found, encode_planar, encode_volumetric
from store.dicom.values import integer
from store.facts import facts_of
from store.provenance import Provenance

Encoder = Callable[[Callable[[str], int], Sequence[Dataset]], list[tuple[str, Dataset]]]
"""Gives more results, with the kind of each, for a giver of series numbers and the results made so far."""
NOT_MEASURED = {
    "no-images",
    "localizer",
    "secondary-capture",
    "single-slice",
    "unsupported-modality",
    "withdrawn",
}
"""Codes of what a study may hold besides, or only, and that is no reason for a person to look."""


def analyse(task: Task) -> Answer:
    """Return what each analysis of the task found, after its results are written to `task.out`.

    A study that is refused, and an analysis that declines (but for `Absent`) or fails, give an `error_code`: one
    plugin's fault takes no other's results away. MemoryError is passed on: what comes after it is not to be trusted.
    """
    plugins = load_plugins(task.plugin_settings, task.plugins, task.models)
    began = time.monotonic()
    refused: tuple[Flag, ...] = ()
    read: ReadStudy | None = None
    try:
        read = read_study([Path(f) for f in task.files], task.doubts)
        refused = read.study.refused
        if (reason := _why_useless(read)) is not None:
            raise reason
        if task.mask is not None:
            drawn = read_mask(Path(task.mask), read)
            read = replace(read, study=replace(read.study, drawn=drawn))
        if task.marks:
            read = replace(read, study=replace(read.study, marks=(*task.requests, *read.study.marks)))
    except Refused as refusal:
        declined = tuple(_without_study(plugin, task, refusal, refused) for plugin in plugins)
        pages = _write_pages(task, read, declined, {}, plugins) if task.pages and read is not None else ()
        return Answer(analysed=declined, pages=pages)
    lock(read.study)
    seconds = {"read": time.monotonic() - began}
    identified: dict[str, tuple[Identified, ...]] = {}
    followed = follower(task.past)
    analysed = tuple(_run(plugin, read, task, seconds, identified, followed) for plugin in plugins)
    pages = _write_pages(task, read, analysed, identified, plugins) if task.pages else ()
    return Answer(analysed=analysed, pages=pages)


def _why_useless(read: ReadStudy) -> Refused | None:
    """Return the reason when every image that is of a kind that is measured was refused."""
    if read.study.volumes:
        return None
    reasons = [f for f in read.study.refused if f.code not in NOT_MEASURED]
    return Refused(reasons[0].code, reasons[0].sentence) if reasons else None


def _without_study(plugin: Plugin, task: Task, refusal: Refused, refused: Iterable[Flag]) -> Analysed:
    """Return the answer for a study that could not be read, of which `refused` is known, or that holds no image."""
    told = _told(refused, True)
    if is_empty := refusal.code in NOT_MEASURED:
        told = (Told(code=refusal.code, sentence=refusal.sentence),)
    key = Identity.of(plugin).job_key(task.manifest_sha256, task.run)
    analysed = Analysed(plugin=plugin.name, job_key=key, results=AnalysedFindings(told=told))
    return replace(analysed, applicable=False) if is_empty else _failed(analysed, refusal)


def _failed(answer: Analysed, error: NadirError) -> Analysed:
    code = error.code if isinstance(error, Refused) else "broken"
    sentence = error.sentence if isinstance(error, Refused) else str(error)
    told = Told(code=code, sentence=sentence, refused=True)
    known = answer.results.told
    is_known = any((t.code, t.sentence) == (code, sentence) for t in known)
    return replace(
        answer,
        results=AnalysedFindings(told=known if is_known else (*known, told)),
        error_code=None if isinstance(error, Absent) else code,
        error_text=None if isinstance(error, Absent) else sentence,
    )


def _write_pages(
    task: Task,
    read: ReadStudy,
    analysed: Sequence[Analysed],
    identified: Mapping[str, Sequence[Identified]],
    plugins: Sequence[Plugin],
) -> tuple[str, ...]:
    # Pictures need libraries that a job of the node mostly does without.
    from node.present import study_report, write_pages

    told = [t for a in analysed for t in a.results.told]
    files = [Path(w.path).relative_to(task.out) for a in analysed for w in a.results.written]
    ran = [(p, a) for p, a in zip(plugins, analysed, strict=True) if p.name in identified]
    made = {plugin.name: _made(plugin, answer) for plugin, answer in ran}
    report = study_report(read, identified, told, files, made)
    return write_pages(report, Path(task.out), datetime.fromisoformat(task.started_at))


def _made(plugin: Plugin, analysed: Analysed) -> dict[str, str]:
    """Return what made the numbers of an analysis, as the page tells it."""
    identity = Identity.of(plugin)
    made = {
        "plugin_version": identity.plugin_version,
        "model_sha256": identity.model_sha256,
        "settings_sha256": identity.config_sha256,
        "job_key": analysed.job_key,
    }
    return {name: value for name, value in made.items() if value}


def _told(flags: Iterable[Flag], refused: bool) -> tuple[Told, ...]:
    return tuple(
        Told(code=f.code, sentence=f.sentence, series_instance_uid=f.series_instance_uid, refused=refused)
        for f in flags
    )


def _doubts(read: ReadStudy) -> tuple[Flag, ...]:
    """Return what is doubtful about the study and its series."""
    return (*read.flags, *(f for v in read.study.volumes for f in v.flags))


def _run(
    plugin: Plugin,
    read: ReadStudy,
    task: Task,
    seconds: Mapping[str, float],
    identified: dict[str, tuple[Identified, ...]],
    followed: Follower,
) -> Analysed:
    answer = Analysed(
        plugin=plugin.name,
        job_key=Identity.of(plugin).job_key(task.manifest_sha256, task.run),
        study_instance_uid=read.study.study_instance_uid,
        results=AnalysedFindings(told=(*_told(read.study.refused, True), *_told(_doubts(read), False))),
        seconds=seconds,
    )
    began = time.monotonic()
    try:
        gave = given(plugin, read.study)
        if gave is None:
            sentence = f"the study holds nothing that '{plugin.name}' analyses"
            told = (*answer.results.told, Told(code=NOTHING_HERE, sentence=sentence))
            return replace(answer, applicable=False, results=AnalysedFindings(told=told))
        found_at = time.monotonic()
        findings, doubts = parted(gave)
        findings, illegal = legally_called(plugin.name, findings)
        story = followed(plugin, read.study, findings)
        followed_at = time.monotonic()
        own, flags = identify(
            plugin.name,
            read.study.study_instance_uid,
            story.findings,
            story.names,
            task.past.strangers,
        )
        flags = (*doubts, *illegal, *story.flags, *flags)
        results = _results(plugin, own, flags, read, task, answer)
        series = _series(plugin, findings, read)
        results = replace(results, links=tuple(map(linked, story.links)), series=series)
        results.to_json()  # what cannot be handed over costs this analysis its results, and no other
        identified[plugin.name] = own
    except Refused as refusal:  # of the plugin: what writes its results raises Broken
        return replace(_failed(answer, refusal), declined=True)
    except (MemoryError, KeyboardInterrupt):
        raise
    except BaseException as error:  # headers of strangers meet the encoders: the other analyses go on
        if fault := disk_fault(error):
            raise fault from error
        if isinstance(error, NadirError):
            return _failed(answer, error)
        where = place(error, plugin)
        return _failed(answer, Broken(f"the results of '{plugin.name}' cannot be written: {where}"))
    parts = {**seconds, "find": found_at - began, "write": time.monotonic() - followed_at}
    if not task.past.is_empty:
        parts["follow"] = followed_at - found_at
    return replace(answer, results=results, seconds=parts)


def _results(
    plugin: Plugin,
    identified: Sequence[Identified],
    flags: Sequence[Flag],
    read: ReadStudy,
    task: Task,
    answer: Analysed,
) -> AnalysedFindings:
    """Return findings as plain values, after the DICOM objects are written (none when a mask was given)."""
    written: tuple[Written, ...] = ()
    if task.mask is None and task.more:
        flags = (*flags, *_without_picture(identified))
    if task.mask is None:
        provenance = Provenance(
            **asdict(Identity.of(plugin)),
            manifest_sha256=task.manifest_sha256,
            job_key=answer.job_key,
            software_version=version("nadir"),
            started_at=task.started_at,
        )
        predecessors = {kind: dcmread(file) for kind, file in task.predecessors.items()}
        told = (*answer.results.told, *_told(flags, False))
        more = partial(_encode_more, task.more, identified, read, provenance, told) if task.more else None
        written = write_results(identified, read, provenance, predecessors, Path(task.out), flags, more)
    return AnalysedFindings(
        found=tuple(_found(i, read.study.volume(i.finding.series_instance_uid)) for i in identified),
        told=(*answer.results.told, *_told(flags, False)),
        written=written,
    )


def write_results(
    identified: Sequence[Identified],
    read: ReadStudy,
    provenance: Provenance,
    predecessors: Mapping[str, Dataset],
    out: Path,
    flags: Sequence[Flag],
    more: Encoder | None = None,
) -> tuple[Written, ...]:
    """Return the DICOM objects written into `out`: one SEG per source series, the SRs, and what `more` makes.

    Raises `Broken` rather than leave an object that breaks the project's own rules.
    """
    study = read.study
    written_at = datetime.fromisoformat(provenance.started_at)
    number = _SeriesNumbers(read.headers.values(), provenance.job_key).take
    series = dict.fromkeys(i.finding.series_instance_uid for i in identified)
    drawn = {uid: [i for i in identified if i.finding.series_instance_uid == uid] for uid in series}
    segs = [
        encode_seg(own, study.volume(uid), read.headers, provenance, number("seg", uid), written_at)
        for uid, own in drawn.items()
    ]
    objects = [("seg", seg) for seg in segs]
    told = (*_doubts(read), *(f for i in identified for f in i.finding.flags), *flags)

    def report(kind: str, replaces: Iterable[str]) -> Report:
        return Report(
            headers=read.headers,
            provenance=provenance,
            series_number=number(kind, study.study_instance_uid),
            written_at=written_at,
            flags=told,
            refused=study.refused,
            predecessors=[predecessors[k] for k in replaces if k in predecessors],
        )

    if identified:
        for kind, encode in (("sr-volumetric", encode_volumetric), ("sr-planar", encode_planar)):
            objects.append((kind, encode(identified, study.volumes, segs, report(kind, [kind]))))
    else:  # one report stands for both kinds, and supersedes both
        kind = "sr-volumetric"
        objects.append((kind, encode_nothing_found(study.volumes, report(kind, sorted(predecessors)))))
    if more is not None:
        objects += more(
            lambda kind: number(kind, study.study_instance_uid), [dataset for _, dataset in objects]
        )
    return tuple(
        _write(kind, dataset, segs, Path(out) / f"{provenance.plugin}-{kind}-{n}.dcm")
        for n, (kind, dataset) in enumerate(objects, start=1)
    )


def _without_picture(identified: Sequence[Identified]) -> tuple[Flag, ...]:
    from node.present import without_picture

    return without_picture(len(identified))


def _encode_more(
    kinds: Sequence[str],
    identified: Sequence[Identified],
    read: ReadStudy,
    provenance: Provenance,
    told: Sequence[Told],
    number: Callable[[str], int],
    sources: Sequence[Dataset],
) -> list[tuple[str, Dataset]]:
    # Pictures need libraries that a job of the node mostly does without.
    from node.present import encode_fallbacks, study_report

    report = study_report(read, {provenance.plugin: identified}, told)
    return list(encode_fallbacks(kinds, report, read, provenance, number, sources))


class _SeriesNumbers:
    """Gives each result series a number that is the same when it is written again.

    No source series and no other result of the job has it; that a result of another job has it is only unlikely.
    """

    def __init__(self, headers: Iterable[Dataset], job_key: str) -> None:
        self._taken = {integer(header, "SeriesNumber") for header in headers}
        self._job_key = job_key

    def take(self, kind: str, uid: str) -> int:
        """Return the number for one kind of result on one series: 5 digits, from a hash, moved up when taken."""
        number = 10_000 + zlib.crc32(f"{self._job_key}|{kind}|{uid}".encode()) % 80_000
        while number in self._taken:
            number += 1
        self._taken.add(number)
        return number


def _write(kind: str, dataset: Dataset, segs: Sequence[Dataset], path: Path) -> Written:
    # Written before it is judged: what looks at the encoded sequences takes them apart.
    dataset.save_as(path, enforce_file_format=True)
    violations = () if kind in MORE_KINDS else check(dataset, segs)
    if violations:
        path.unlink()
        first = violations[0]
        raise Broken(f"the {kind} breaks rule {first.rule} at {first.where}: {first.sentence}")
    return Written.of(kind, dataset, path)


def _coded(code: Code) -> Coded:
    return Coded(value=code.value, scheme=code.scheme_designator, meaning=code.meaning)


def _found(identified: Identified, volume: Volume) -> Found:
    finding = identified.finding
    return Found(
        label=finding.label,
        tracking_identifier=identified.tracking_identifier,
        tracking_uid=identified.tracking_uid,
        before_uid=identified.before_uid,
        series_instance_uid=finding.series_instance_uid,
        segment_number=identified.segment_number,
        category=_coded(finding.category),
        type=_coded(finding.type),
        site=_coded(finding.site) if finding.site else None,
        laterality=_coded(finding.laterality) if finding.laterality else None,
        confidence=finding.confidence,
        automatic=finding.automatic,
        centroid_mm=volume.centroid_mm(finding.mask),
        measurements=tuple(_measured(m, volume) for m in finding.measurements),
        flags=_told(finding.flags, False),
        uncertainties=tuple((n, float(v)) for n, v in finding.uncertainties.items() if math.isfinite(v)),
    )


def _series(plugin: Plugin, findings: Sequence[Finding], read: ReadStudy) -> tuple[SeriesFacts, ...]:
    """Return what the series were like that findings lie on; without a finding, what the analysis took or could."""
    uids = dict.fromkeys(finding.series_instance_uid for finding in findings)
    volumes = [read.study.volume(uid) for uid in uids]
    if not volumes:
        looks_at = getattr(plugin, "looks_at", None)
        volumes = list(read.study.volumes) if looks_at is None else list(looks_at(read.study)[:1])
    return tuple(facts_of(volume, read.headers[volume.sop_instance_uids[0]]) for volume in volumes)


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
