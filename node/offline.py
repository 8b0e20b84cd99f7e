"""The node without a network: a folder in, the same pipeline, files out."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from models.place import NOWHERE, Places
from node.child import run_in_child
from node.deliveries import MORE_KINDS
from node.prior_folder import PriorFolder
from node.settings import Settings
from node.task import Analysed, Answer, Task
from plugins.contract import Point
from plugins.errors import Refused
from plugins.flag_codes import NOTHING_HERE
from plugins.registry import load_plugins, load_working
from store.analysed import AnalysedFindings, Found, Told
from store.dicom.series import group_by_study
from store.file_hash import sha256_of
from store.part10 import scan_header
from store.studies import manifest_hash
from store.tracking.past import Past
from store.walk import all_files_under

NO_PAST = Past()
RESULTS = "results"
MARKED = "marked_lesion"


def analyse_folder(
    path: Path,
    out: Path,
    settings: Settings,
    *,
    plugins: Sequence[str] | None = None,
    also: Sequence[str] = (),
    marks: Sequence[Point] = (),
    prior: Path | None = None,
    models: Places = NOWHERE,
) -> dict[str, Any]:
    """Return what every analysis found in the studies of a folder, after results are written to `out`.

    The answer has `findings`, `refused`, `flags`, `outputs` and `failed` (True when a study has no result). Of several
    studies each has a folder `study-N`. Files of the same name are written over, once their study is analysed;
    nothing is deleted. `also` names kinds of result beside SEG and SR: `capture`, `pdf`. `marks` are points, LPS mm, at
    which lesions are asked for; then only they are analysed, unless `plugins` names others too. `prior` is a folder
    with the patient's earlier studies and what Nadir made of them: lesions keep the identity that they have there.
    `models` are those made here that count.
    Refuses `no-such-path`, `closed-folder`, `no-dicom`, `unknown-plugin`, `no-plugin`, `point-not-used`, `unknown-kind`
    and `bad-folder`.
    """
    if marks and plugins and MARKED not in plugins:
        raise Refused(
            "point-not-used",
            f"points are for the analysis {MARKED}, not {', '.join(plugins)}; leave --at or --plugin out, or name "
            f"{MARKED} too",
        )
    names, broken = _names(settings, plugins or ((MARKED,) if marks else None))
    if not names:
        raise Refused("no-plugin", "no analysis is enabled; name one with --plugin")
    for kind in also:
        if kind not in MORE_KINDS:
            raise Refused("unknown-kind", f"'{kind}' is no kind of result; use {' or '.join(MORE_KINDS)}")
    studies = _studies(path)
    folder = None if prior is None else PriorFolder(prior)
    pasts = {uid: Past() if folder is None else folder.past(files) for uid, files in studies.items()}
    _make(out)
    answers: list[tuple[str, Answer]] = []
    for number, (uid, files) in enumerate(studies.items(), start=1):
        target = out if len(studies) == 1 else _make(out / f"study-{number}")
        with _scratch(target) as scratch:
            answer = _run(
                files,
                scratch,
                names,
                settings,
                more=tuple(also),
                marks=tuple(marks),
                past=pasts[uid],
                models=models,
            )
            answers.append((uid, _moved(answer, scratch / RESULTS, target)))
    report = summary(answers)
    nowhere = {"series_instance_uid": None, "study_instance_uid": None}
    report["refused"] += [{"code": b.code, "sentence": b.sentence, **nowhere} for b in broken]
    return report


def _names(settings: Settings, asked: Sequence[str] | None) -> tuple[tuple[str, ...], tuple[Refused, ...]]:
    """Return the analyses to run, and why others cannot; one that was asked for by name must work."""
    if asked:
        return tuple(plugin.name for plugin in load_plugins(settings.plugins, asked)), ()
    loaded = load_working(settings.plugins, settings.enabled)
    return tuple(plugin.name for plugin in loaded.plugins), loaded.broken


def measure_mask(path: Path, mask: Path, settings: Settings) -> dict[str, Any]:
    """Return the measurements of the regions of a SEG, RTSTRUCT or NIfTI mask on the images of a folder.

    The answer is that of `analyse_folder`, without outputs. Refuses `no-such-path`, `closed-folder`, `no-dicom`,
    `several-studies` and what the mask's reader refuses.
    """
    if not mask.is_file():
        raise Refused("no-such-path", f"the mask {mask} is not a file")
    studies = _studies(path)
    if len(studies) > 1:
        raise Refused("several-studies", f"{path} holds {len(studies)} studies; name the folder of one")
    ((uid, files),) = studies.items()
    with _scratch(None) as scratch:
        return summary([(uid, _run(files, scratch, ("contours",), settings, mask=mask))])


def summary(answers: Iterable[tuple[str, Answer]]) -> dict[str, Any]:
    """Return the answers of studies (by their UID) as plain data: findings, refused, flags, outputs, failed."""
    findings: list[dict[str, Any]] = []
    told: dict[tuple[bool, str, str, str | None, str], None] = {}
    outputs: list[str] = []
    failed = False
    for uid, answer in answers:
        study = next((a.study_instance_uid for a in answer.analysed if a.study_instance_uid), uid)
        ran = [a for a in answer.analysed if a.applicable and a.error_code is None]
        failed = failed or not ran
        heard = [t for a in answer.analysed for t in a.results.told]
        heard += [t for a in answer.analysed for found in a.results.found for t in found.flags]
        if not any(a.applicable for a in answer.analysed):
            heard = [*(t for t in heard if t.code != NOTHING_HERE), _not_applicable(answer)]
        told |= {(t.refused, t.code, t.sentence, t.series_instance_uid, study): None for t in heard}
        findings += [_finding(f, a) for a in answer.analysed for f in a.results.found]
        outputs += [w.path for a in answer.analysed for w in a.results.written]
        outputs += answer.pages
    plain = {
        wanted: [
            {"code": code, "sentence": sentence, "series_instance_uid": series, "study_instance_uid": study}
            for refused, code, sentence, series, study in told
            if refused is wanted
        ]
        for wanted in (True, False)
    }
    return {
        "findings": findings,
        "refused": plain[True],
        "flags": plain[False],
        "outputs": outputs,
        "failed": failed,
    }


def _not_applicable(answer: Answer) -> Told:
    names = ", ".join(a.plugin for a in answer.analysed)
    return Told(
        code=NOTHING_HERE,
        sentence=f"the study holds nothing that an analysis applies to (asked: {names})",
        refused=True,
    )


def _run(
    files: Sequence[Path],
    scratch: Path,
    plugins: tuple[str, ...],
    settings: Settings,
    *,
    mask: Path | None = None,
    more: tuple[str, ...] = (),
    marks: tuple[Point, ...] = (),
    past: Past = NO_PAST,
    models: Places = NOWHERE,
) -> Answer:
    """Return the answer of one study, its results in `scratch`; a child that ended badly is an answer too."""
    segmentations = [Path(file) for earlier in past.earlier for file in earlier.segmentations]
    others = [(f"mark {point}", "") for point in marks] + [("prior", sha256_of(seg)) for seg in segmentations]
    task = Task(
        files=tuple(str(f.absolute()) for f in files),
        # Results of other points, or with another past, are others, and get other UIDs.
        manifest_sha256=manifest_hash([*_pairs(files), *others]),
        plugins=plugins,
        plugin_settings={name: settings.plugins.get(name, {}) for name in plugins},
        out=str(scratch / RESULTS),
        started_at=datetime.now().astimezone().isoformat(),
        predecessors={},
        more=more,
        marks=marks,
        mask=None if mask is None else str(mask.absolute()),
        pages=mask is None,
        past=past,
        models=models,
    )
    try:
        plain = run_in_child(
            task.to_json(), scratch, memory_bytes=settings.job_memory_bytes, seconds=settings.job_seconds
        )
    except Refused as refusal:
        told = Told(code=refusal.code, sentence=refusal.sentence, refused=True)
        return Answer(
            analysed=tuple(
                Analysed(
                    plugin=name,
                    job_key="",
                    results=AnalysedFindings(told=(told,)),
                    error_code=refusal.code,
                    error_text=refusal.sentence,
                )
                for name in plugins
            )
        )
    return Answer.from_json(plain)


@contextmanager
def _scratch(folder: Path | None) -> Iterator[Path]:
    """Give a folder for the child with an empty one for results, in `folder` so that these can be renamed into it."""
    try:
        scratch = tempfile.TemporaryDirectory(prefix=".nadir-", dir=folder)
    except OSError as error:
        raise Refused("bad-folder", f"the folder {folder} cannot be written: {error.strerror}") from error
    with scratch as name:
        (Path(name) / RESULTS).mkdir()
        yield Path(name)


def _moved(answer: Answer, source: Path, target: Path) -> Answer:
    """Return the answer after its files were moved, each at once, to the same places in `target`."""

    def move(path: str) -> str:
        place = target / Path(path).relative_to(source)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            Path(path).replace(place)
        except OSError as error:
            raise Refused("bad-folder", f"{place} cannot be written: {error.strerror}") from error
        return str(place)

    def with_files(analysed: Analysed) -> Analysed:
        written = tuple(replace(w, path=move(w.path)) for w in analysed.results.written)
        return replace(analysed, results=replace(analysed.results, written=written))

    return Answer(
        analysed=tuple(with_files(a) for a in answer.analysed), pages=tuple(move(p) for p in answer.pages)
    )


def _studies(path: Path) -> Mapping[str, Sequence[Path]]:
    if not path.exists():
        raise Refused("no-such-path", f"{path} does not exist")
    files = [path] if path.is_file() else all_files_under(path)
    studies = group_by_study(files)
    if not studies:
        raise Refused("no-dicom", f"{path} holds no DICOM file that can be read")
    return studies


def _pairs(files: Iterable[Path]) -> list[tuple[str, str]]:
    """Return (SOP Instance UID, sha256) of each file for the manifest, once, without results of Nadir itself.

    Refuses `unreadable-file`.
    """
    pairs = set()
    for file in files:
        try:
            sha256 = sha256_of(file)
        except OSError as error:
            sentence = f"{file} cannot be read ({error.strerror}); let the user that runs nadir read it"
            raise Refused("unreadable-file", sentence) from error
        try:
            header = scan_header(file)
        except Refused:
            uid = ""
        else:
            if header.own:
                continue
            uid = header.sop_instance_uid
        pairs.add((uid, sha256))
    return sorted(pairs)


def _finding(f: Found, analysed: Analysed) -> dict[str, Any]:
    return {
        "label": f.label,
        "plugin": analysed.plugin,
        "study_instance_uid": analysed.study_instance_uid,
        "series_instance_uid": f.series_instance_uid,
        "segment_number": f.segment_number,
        "tracking_identifier": f.tracking_identifier,
        "tracking_uid": f.tracking_uid,
        "confidence": f.confidence,
        "centroid_mm": list(f.centroid_mm),
        "measurements": {
            m.name: {
                "value": m.value,
                "unit": m.unit,
                "method": m.method,
                **({"end_points_mm": [list(p) for p in m.end_points_mm]} if m.end_points_mm else {}),
            }
            for m in f.measurements
        },
        "flags": [_plain(flag) for flag in f.flags],
        **_since(f, analysed),
    }


def _since(f: Found, analysed: Analysed) -> dict[str, Any]:
    """Return what a lesion was at earlier times; nothing when there was nothing to compare with."""
    for link in analysed.results.links:
        if link.is_found and link.tracking_uid == f.tracking_uid:
            return {"link": link.kind, "link_confidence": link.confidence, "link_reason": link.reason}
    return {}


def _plain(told: Told) -> dict[str, Any]:
    return {"code": told.code, "sentence": told.sentence, "series_instance_uid": told.series_instance_uid}


def _make(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused("bad-folder", f"the folder {folder} cannot be made: {error.strerror}") from error
    return folder
