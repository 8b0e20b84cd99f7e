"""Where earlier studies come from: a DICOM peer or a DICOMweb root, asked and fetched from in the same words."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from datetime import date
from pathlib import Path
from typing import Protocol

from node.address import parse_destination
from node.deliveries import key_of
from node.pacs import DicomWeb, HeldInstance, HeldSeries, PatientStudy
from node.query_retrieve import Called, QueryRetrieve
from node.series_files import series_files
from node.settings import Settings
from plugins.errors import Refused, Unavailable
from store.objects import ObjectStore


class PriorSource(Protocol):
    """One archive. Every call raises `Unavailable` when asking again may help and `Refused` when it will not."""

    name: str

    def patient_studies(self, patient_id: str, since: date, until: date) -> Iterable[PatientStudy]:
        """Give the studies between two dates that the archive takes for the patient's; to be checked by who asks."""

    def study_series(self, study_instance_uid: str) -> tuple[HeldSeries, ...]:
        """Return the series of a study."""

    def series_instances(self, study: str, series: str) -> tuple[HeldInstance, ...]:
        """Return the instances of a series."""

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
        """Bring instances here; `whole` when they are all of their series.

        `keep` takes in each file; `Refused` out of it is about that object alone. `missing` says which are not here.
        """

    def close(self) -> None:
        """Close the connections."""


class WebSource:
    """A DICOMweb root (QIDO-RS and WADO-RS).

    Parameters
    ----------
    dicomweb
        The client.
    objects
        Where files go while they arrive.
    reserve_bytes
        Nothing is fetched while less disk than this is free.

    """

    def __init__(self, dicomweb: DicomWeb, objects: ObjectStore, *, reserve_bytes: int = 0) -> None:
        self.name = dicomweb.root_url
        self._objects = objects
        self._reserve_bytes = reserve_bytes
        self._dicomweb = dicomweb
        self.patient_studies = dicomweb.patient_studies
        self.study_series = dicomweb.study_series
        self.series_instances = dicomweb.series_instances
        self.close = dicomweb.close

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
        """Retrieve the series in one request when all of it is wanted and given so, else instance by instance."""
        uid, sops = series.series_instance_uid, [one.sop_instance_uid for one in instances]
        new_path = self._objects.temporary
        with closing(series_files(self._dicomweb, study, uid, sops, new_path, whole=whole)) as paths:
            for path in paths:
                self._keep(path, keep)

    def _keep(self, path: Path, keep: Callable[[Path], None]) -> None:
        if self._objects.free_bytes() < self._reserve_bytes:
            path.unlink(missing_ok=True)
            raise Unavailable("the disk is nearly full; nothing is fetched")
        with suppress(Refused):
            keep(path)


def open_source(
    address: str, settings: Settings, objects: ObjectStore, *, tls: ssl.SSLContext | None = None
) -> PriorSource:
    """Return the archive at an address of the settings: `AE@host:port` or a DICOMweb root."""
    parsed = parse_destination(address)
    source: PriorSource
    if isinstance(parsed, str):
        source = WebSource(DicomWeb(parsed, tls=tls), objects, reserve_bytes=settings.reserve_bytes)
    else:
        ae_title, host, port = parsed
        source = QueryRetrieve(
            Called(ae_title=ae_title, host=host, port=port, calling_ae=settings.ae_title, tls=tls),
            new_file=objects.temporary,
            free_bytes=objects.free_bytes,
            largest_bytes=settings.max_object_bytes,
            reserve_bytes=settings.reserve_bytes,
            how=settings.priors_by,
        )
    source.name = key_of(address)  # as the list in SQL has it
    return source


__all__ = ["PriorSource", "WebSource", "open_source"]
