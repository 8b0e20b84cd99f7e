"""A patient's earlier studies in a folder, for who analyses folders: images, and what Nadir made of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path

from plugins.errors import Refused
from store.part10 import Header, scan_header
from store.tracking.past import EarlierResults, Past, SeriesFiles
from store.walk import all_files_under

NO_IMAGES = frozenset({"SEG", "SR", "RTSTRUCT", "PR", "KO", "DOC", "RTPLAN", "RTDOSE"})


class PriorFolder:
    """The earlier studies of a folder.

    Refuses `no-such-path`, `closed-folder`, and `no-dicom` when no file can be read.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.exists():
            raise Refused("no-such-path", f"{folder} does not exist")
        self._files = [
            (path, header) for path in all_files_under(folder) if (header := _header(path)) is not None
        ]
        if not self._files:
            raise Refused("no-dicom", f"{folder} holds no DICOM file that can be read")

    def past(self, files: Sequence[Path]) -> Past:
        """Return the studies made before the one that `files` are of, the newest first.

        Refuses `prior-of-another-patient`, and `no-prior` when no earlier study is there that Nadir segmented.
        """
        own = next((h for h in map(_header, files) if h is not None and not h.own), None)
        if own is None or own.study_date is None:
            raise Refused("no-prior", "the study has no date, so that nothing is earlier")
        patients = {(h.patient_id, h.issuer) for _, h in self._files}
        if not own.patient_id or patients != {(own.patient_id, own.issuer)}:
            raise Refused(
                "prior-of-another-patient", "the folder of earlier studies is not of this patient alone"
            )
        found: dict[tuple[date, str], list[tuple[Path, Header]]] = {}
        for path, header in self._files:
            if header.study_date is not None and header.study_date < own.study_date:
                found.setdefault((header.study_date, header.study_instance_uid), []).append((path, header))
        earlier = [_results(on, uid, found[on, uid]) for on, uid in sorted(found, reverse=True)]
        if not any(one.segmentations for one in earlier):
            raise Refused("no-prior", "the folder holds no SEG that Nadir made of an earlier study")
        return Past(earlier=tuple(one for one in earlier if one.segmentations))


def _results(on: date, uid: str, files: Sequence[tuple[Path, Header]]) -> EarlierResults:
    images: dict[str, list[str]] = {}
    for path, header in files:
        if header.modality not in NO_IMAGES:
            images.setdefault(header.series_instance_uid, []).append(str(path.absolute()))
    return EarlierResults(
        study_instance_uid=uid,
        study_date=on.isoformat(),
        segmentations=tuple(str(p.absolute()) for p, h in files if h.own and h.modality == "SEG"),
        images=tuple(
            SeriesFiles(series_instance_uid=series, files=tuple(paths)) for series, paths in images.items()
        ),
    )


def _header(path: Path) -> Header | None:
    try:
        return scan_header(path)
    except Refused:
        return None


__all__ = ["PriorFolder"]
