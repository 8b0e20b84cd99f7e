"""The index of the Imaging Data Commons, a row a series: Parquet as the package `idc-index-data` brings it, or CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from models.extras import how_to_install
from plugins.errors import Refused

HOW = f"the index of IDC is not installed: {how_to_install('idc')}, or name an index (.parquet, .csv) with --index"
COLUMNS = (
    "collection_id",
    "PatientID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "instanceCount",
    "series_size_MB",
    "license_short_name",
    "source_DOI",
    "aws_bucket",
    "crdc_series_uuid",
    "series_aws_url",
)
NEEDED = frozenset({"collection_id", "PatientID", "SeriesInstanceUID", "Modality"})


def installed_index() -> Path:
    """Return the index that is installed. Refuses `no-idc-index`."""
    try:
        import idc_index_data
    except ImportError as error:
        raise Refused("no-idc-index", HOW) from error
    if idc_index_data.IDC_INDEX_PARQUET_FILEPATH is None:
        raise Refused("no-idc-index", HOW)
    return Path(idc_index_data.IDC_INDEX_PARQUET_FILEPATH)


@dataclass(frozen=True, kw_only=True)
class IdcIndex:
    """The rows of an index file, read when they are asked for."""

    named: Path | None = None
    """The file, `.parquet` or `.csv`; the installed one when None."""

    @cached_property
    def path(self) -> Path:
        """Return the file. Refuses `no-idc-index`."""
        return self.named or installed_index()

    @cached_property
    def version(self) -> str:
        """Return the version that the file tells of itself, else its name."""
        if self.path.suffix == ".parquet":
            metadata = self._parquet().schema.metadata or {}
            if version := metadata.get(b"idc_index_data_version"):
                return f"idc-index-data {version.decode('ascii', 'replace')}"
        return self.path.name

    @cached_property
    def collections(self) -> frozenset[str]:
        """Return the names of all collections."""
        return frozenset(str(row["collection_id"]) for row in self._all(("collection_id",)))

    def rows(self, column: str, values: frozenset[str]) -> list[dict[str, Any]]:
        """Return the rows whose `column` is one of the values. Refuses `bad-idc-index`."""
        if self.path.suffix != ".parquet":
            return [dict(row) for row in self._all(COLUMNS) if row[column] in values]
        dataset = self._parquet()
        import pyarrow.compute as compute

        wanted = compute.field(column).isin(sorted(values))
        table = dataset.to_table(
            columns=[name for name in COLUMNS if name in dataset.schema.names], filter=wanted
        )
        return [dict(row) for row in table.to_pylist()]

    def _all(self, columns: tuple[str, ...]) -> Iterator[Mapping[str, Any]]:
        if self.path.suffix == ".parquet":
            yield from self._parquet().to_table(columns=list(columns)).to_pylist()
            return
        try:
            with self.path.open(encoding="utf-8", newline="") as file:
                reader = csv.DictReader(file)
                self._require(reader.fieldnames or ())
                yield from reader
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise Refused("bad-idc-index", f"the index {self.path} cannot be read ({error})") from error

    def _parquet(self) -> Any:
        try:
            import pyarrow
            from pyarrow import dataset
        except ImportError as error:
            raise Refused("no-idc-index", HOW) from error
        try:
            opened = dataset.dataset(self.path, format="parquet")
        except (OSError, pyarrow.ArrowException) as error:
            raise Refused("bad-idc-index", f"the index {self.path} cannot be read") from error
        self._require(opened.schema.names)
        return opened

    def _require(self, names: Any) -> None:
        if lacking := NEEDED - set(names):
            text = f"the index {self.path} has no columns {', '.join(sorted(lacking))}"
            raise Refused("bad-idc-index", text)


__all__ = ["IdcIndex", "installed_index"]
