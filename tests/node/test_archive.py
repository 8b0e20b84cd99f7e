from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dcmtk_tools import run_dcmtk
from dicom_series import make_series
from pydicom import dcmread
from raw_peer import CT, RawPeer

from node.archive import Archive
from node.scu import echo, send_files
from plugins.errors import Refused


def series(folder: Path, count: int = 3, **keywords: object) -> list[Path]:
    return make_series(folder, np.arange(count * 64.0).reshape(count, 8, 8), **keywords)  # type: ignore[arg-type]


def test_dcmtk_stores_and_the_listing_names_what_came(tmp_path: Path) -> None:
    paths = series(tmp_path / "in")
    archive = Archive(tmp_path / "archive", ae_title="ARCHIVE")
    archive.start()
    try:
        done = run_dcmtk("storescu", "-aec", "ARCHIVE", "127.0.0.1", str(archive.port), *paths)
        listing = archive.listing()
    finally:
        archive.stop()

    assert done.returncode == 0, done.stderr
    sent = [dcmread(path) for path in paths]
    assert [one.sop_instance_uid for one in listing] == [str(ds.SOPInstanceUID) for ds in sent]
    assert {one.modality for one in listing} == {"CT"}
    assert {one.study_instance_uid for one in listing} == {str(sent[0].StudyInstanceUID)}
    assert [dcmread(one.path) for one in listing] == sent


def test_after_a_restart_the_listing_is_the_same(tmp_path: Path) -> None:
    paths = series(tmp_path / "in")
    first = Archive(tmp_path / "archive")
    first.start()
    try:
        send_files(paths, ae_title="ARCHIVE", host="127.0.0.1", port=first.port)
    finally:
        first.stop()
    second = Archive(tmp_path / "archive")
    second.start()
    try:
        assert sorted(second.listing(), key=lambda one: one.sha256) == sorted(
            first.listing(), key=lambda one: one.sha256
        )
    finally:
        second.stop()


def test_the_newest_content_of_an_instance_is_listed(tmp_path: Path) -> None:
    (path,) = series(tmp_path / "in", 1)
    archive = Archive(tmp_path / "archive")
    archive.start()
    try:
        for text in ("one", "two", "two"):
            ds = dcmread(path)
            ds.SeriesDescription = text
            ds.save_as(path)
            send_files([path], ae_title="ARCHIVE", host="127.0.0.1", port=archive.port)
        (held,) = archive.listing()
    finally:
        archive.stop()

    assert dcmread(held.path).SeriesDescription == "two"


def test_what_is_no_dataset_or_another_instance_is_refused(tmp_path: Path) -> None:
    (path,) = series(tmp_path / "in", 1)
    raw = path.read_bytes()
    archive = Archive(tmp_path / "archive")
    archive.start()
    try:
        with RawPeer(archive.port) as peer:
            peer.associate(called="ARCHIVE")
            assert peer.store(CT, "1.2.3", b"no dataset " * 20) == 0xC000
            assert peer.store(CT, "1.2.3", raw[raw.index(b"\x08\x00\x05\x00CS") :]) == 0xA900
            peer.release()
        assert archive.listing() == ()
    finally:
        archive.stop()


def test_a_list_of_callers_keeps_others_out(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "archive", callers=("NADIR",))
    archive.start()
    try:
        echo(ae_title="ARCHIVE", host="127.0.0.1", port=archive.port, calling_ae="NADIR")
        with pytest.raises(Refused, match="association-rejected"):
            echo(ae_title="ARCHIVE", host="127.0.0.1", port=archive.port, calling_ae="OTHER")
    finally:
        archive.stop()
