"""Parts of a body: read wherever the stream is cut, and written with their true length."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scripted_pacs import multipart, names

from node.multipart import FilesBody, PartWriter, boundary_of
from plugins.errors import Unavailable


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(
        st.lists(
            st.sampled_from([b"\r\n", b"-", b"--b", b"\r\n--b", b"x", b"\r", b"\n", b"\0" * 9]), max_size=12
        ),
        max_size=4,
    ),
    cuts=st.integers(1, 40),
    preamble=st.sampled_from([b"", b"hello", b"hello\r\n"]),
)
def test_parts_come_out_as_they_went_in_wherever_the_stream_is_cut(
    tmp_path: Path, parts: list[list[bytes]], cuts: int, preamble: bytes
) -> None:
    contents = [b"".join(part) for part in parts]
    if preamble and not preamble.endswith(b"\r\n"):
        preamble += b"\r\n"
    body = preamble + multipart(contents) + b"epilogue"
    writer = PartWriter("b0", names(tmp_path), 10_000)
    came = [
        path.read_bytes() for at in range(0, len(body), cuts) for path in writer.feed(body[at : at + cuts])
    ]
    writer.close()
    assert came == contents
    assert writer.finished


def test_what_is_written_as_a_stow_body_is_read_back_and_its_length_is_true(tmp_path: Path) -> None:
    contents = [b"a" * 300_000, b"", b"\r\n--\r\n"]
    for number, content in enumerate(contents):
        (tmp_path / f"in{number}").write_bytes(content)
    body = FilesBody(tmp_path / f"in{number}" for number in range(3))
    whole = b"".join(body)
    assert len(whole) == body.length
    boundary = boundary_of(body.content_type)
    assert boundary is not None
    writer = PartWriter(boundary, names(tmp_path), 10**6)
    assert [path.read_bytes() for path in writer.feed(whole)] == contents


@pytest.mark.parametrize(("boundary", "read"), [("bü", "bü"), ("b\u0153", None), ("b" * 201, None)])
def test_a_boundary_that_no_body_can_hold_is_none(boundary: str, read: str | None) -> None:
    assert boundary_of(f'multipart/related; boundary="{boundary}"') == read


def test_an_endless_part_header_is_cut_off(tmp_path: Path) -> None:
    writer = PartWriter("b0", names(tmp_path), 1000)
    with pytest.raises(Unavailable, match="endless"):
        list(writer.feed(b"--b0\r\n" + b"x" * 20_000))
