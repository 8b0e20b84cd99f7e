"""A node that only listens."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from orthanc_module import Ear


@pytest.fixture
def ear() -> Iterator[Ear]:
    """Give what the hook tells, and what it is answered."""
    made = Ear()
    made.thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
