"""Tables of measurements row by row, and the refusal of one."""

from __future__ import annotations

import pytest

from plugins.errors import Refused
from store.response.table import read_table

HEADER = "patient,lesion,date,role,site,node,long_axis_mm,short_axis_mm,status"


def table(*rows: str, header: str = HEADER) -> bytes:
    return "\n".join([header, *rows, ""]).encode()


def refusal(data: bytes) -> Refused:
    with pytest.raises(Refused) as caught:
        read_table(data)
    return caught.value
