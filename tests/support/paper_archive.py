"""An archive on paper: earlier studies as files in a folder, given out as a `PriorSource`, well or badly behaved."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

from node.pacs import HeldInstance, HeldSeries, PatientStudy, plain
from plugins.errors import Refused, Unavailable


@dataclass
class PaperArchive:
    """Files of studies, and the ways in which a PACS may be wrong."""

    folder: Path
    """Where files for the node are copied."""
    name: str = "PACS@127.0.0.1:104"
    """What it is called."""
    knows_modalities: bool = True
    """Whether it tells ModalitiesInStudy."""
    knows_modality: bool = True
    """Whether it tells the Modality of a series."""
    hides: set[str] = field(default_factory=set)
    """SOP Instance UIDs that it holds and does not list."""
    knows_issuer: bool = True
    """Whether it tells IssuerOfPatientID."""
    failure: Exception | None = None
    """Raised by every call."""
    breaks_after: int = 10**6
    """Objects that it gives before it breaks off."""
    swaps: dict[str, Path] = field(default_factory=dict)
    """What it gives instead of an instance."""
    asked: list[str] = field(default_factory=list)
    """PatientIDs that it was asked for."""
    given: list[str] = field(default_factory=list)
    """SOP Instance UIDs that it gave."""
    files: dict[str, tuple[Path, Dataset]] = field(default_factory=dict)

    def add(self, paths: Iterable[Path]) -> None:
        """Hold files."""
        for path in paths:
            header = dcmread(path, stop_before_pixels=True)
            self.files[str(header.SOPInstanceUID)] = (path, header)

    def patient_studies(self, patient_id: str, since: date, until: date) -> Iterator[PatientStudy]:
        """Give every study that it holds, whatever it was asked for."""
        self._fail()
        self.asked.append(patient_id)
        studies: dict[str, list[Dataset]] = {}
        for _, header in self.files.values():
            studies.setdefault(str(header.StudyInstanceUID), []).append(header)
        for uid, headers in studies.items():
            yield PatientStudy(
                study_instance_uid=uid,
                patient_id=plain("\\".join(_values(headers[0].PatientID))),
                issuer=str(headers[0].get("IssuerOfPatientID", "")) if self.knows_issuer else "",
                study_date=str(headers[0].StudyDate),
                modalities=frozenset(h.Modality for h in headers) if self.knows_modalities else frozenset(),
            )

    def study_series(self, study_instance_uid: str) -> tuple[HeldSeries, ...]:
        """Return the series of a study."""
        self._fail()
        found = {
            str(h.SeriesInstanceUID): str(h.Modality)
            for _, h in self.files.values()
            if h.StudyInstanceUID == study_instance_uid
        }
        return tuple(
            HeldSeries(series_instance_uid=uid, modality=m if self.knows_modality else "")
            for uid, m in found.items()
        )

    def series_instances(self, study: str, series: str) -> tuple[HeldInstance, ...]:
        """Return the instances of a series."""
        self._fail()
        return tuple(
            HeldInstance(series_instance_uid=series, sop_instance_uid=uid, sop_class_uid=str(h.SOPClassUID))
            for uid, (_, h) in self.files.items()
            if h.SeriesInstanceUID == series and uid not in self.hides
        )

    def fetch(
        self,
        study: str,
        series: HeldSeries,
        instances: Sequence[HeldInstance],
        *,
        whole: bool,
        keep: Callable[[Path], None],
        missing: Callable[[], frozenset[str]],
    ) -> None:
        """Give the instances, or what it takes for them."""
        for number, one in enumerate(instances):
            if number == self.breaks_after:
                raise Unavailable("the archive broke off")
            path, _ = self.files[one.sop_instance_uid]
            copy = self.folder / f"{one.sop_instance_uid}.part"
            shutil.copyfile(self.swaps.get(one.sop_instance_uid, path), copy)
            self.given.append(one.sop_instance_uid)
            with suppress(Refused):
                keep(copy)

    def close(self) -> None:
        """Close nothing."""

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure


def _values(text: str | Sequence[str]) -> Sequence[str]:
    return [text] if isinstance(text, str) else text
