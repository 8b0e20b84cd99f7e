"""Tracking UIDs and Tracking IDs of the findings of one analysis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from node.identity import identify, legally_called
from plugins import codes
from plugins.contract import Finding, Mask
from store.dicom.uids import derive_uid
from store.tracking.past import Named

SERIES = "1.2.3"


def drawn(key: str, label: str, **more: Any) -> Finding:
    values: dict[str, Any] = {"series_instance_uid": SERIES, **more}
    return Finding(
        key=key,
        label=label,
        mask=Mask(shape=(4, 4, 4), origin=(0, 0, 0), voxels=np.ones((2, 2, 2), dtype=np.bool_)),
        category=codes.MORPHOLOGICALLY_ABNORMAL,
        type=codes.LESION,
        measurements=(),
        **values,
    )


def names(
    findings: Sequence[Finding], past: Mapping[tuple[str, str], Named] | None = None
) -> list[tuple[str, str]]:
    """Return label and Tracking ID of each finding."""
    own, _ = identify("contours", "1.2", findings, past)
    assert len({one.tracking_uid for one in own}) == len(own)
    return [(one.finding.label, one.tracking_identifier) for one in own]


def test_regions_of_one_name_have_tracking_ids_of_their_own_and_keep_their_labels() -> None:
    regions = [drawn("1", "Lesion"), drawn("2", "Lesion"), drawn("3", "Node", series_instance_uid="1.2.4")]
    regions.append(drawn("4", "Lesion", series_instance_uid="1.2.4"))
    assert names(regions) == [
        ("Lesion", "Lesion"),
        ("Lesion", "Lesion 2"),
        ("Node", "Node"),
        ("Lesion", "Lesion 3"),
    ]


def test_what_a_source_calls_a_region_is_given_to_no_other() -> None:
    one = drawn("3", "GTV", tracking_uid="2.25.3", tracking_identifier="Lesion 2")
    two = drawn("4", "CTV", tracking_uid="2.25.4", tracking_identifier="Lesion 2")
    regions = [drawn("1", "Lesion"), drawn("2", "Lesion"), one, two]
    assert [name for _, name in names(regions)] == ["Lesion", "Lesion 3", "Lesion 2", "Lesion 4"]


def test_a_region_under_the_tracking_uid_of_another_has_a_tracking_id_of_its_own_too() -> None:
    regions = [drawn(key, "GTV", tracking_uid="2.25.3", tracking_identifier="Lesion 1") for key in ("1", "2")]
    assert names(regions) == [("GTV", "Lesion 1"), ("GTV", "Lesion 2")]


def test_the_names_that_the_past_gives_stand_and_no_other_finding_has_them() -> None:
    past = {(SERIES, "2"): Named(tracking_uid="2.25.9", tracking_identifier="Lesion 1")}
    regions = [drawn("1", "Lesion 1"), drawn("2", "Lesion 7")]
    assert names(regions, past) == [("Lesion 1", "Lesion 2"), ("Lesion 7", "Lesion 1")]


def test_what_a_source_calls_a_tracking_uid_and_is_none_is_not_taken_over_and_told() -> None:
    regions = [drawn("1", "GTV", tracking_uid="not a uid!"), drawn("2", "CTV", tracking_uid="2.25.4")]
    found, flags = legally_called("contours", [*regions, drawn("3", "Node")])
    assert [one.tracking_uid for one in found] == [None, "2.25.4", None]
    assert [(flag.code, flag.sentence) for flag in flags] == [
        ("tracking-uid-illegal", "'GTV' came with a Tracking UID that is no legal UID and was given its own.")
    ]


def test_a_past_that_calls_a_lesion_by_no_uid_is_not_written_again() -> None:
    past = {(SERIES, "1"): Named(tracking_uid="not a uid!", tracking_identifier="Lesion 7")}
    (own,), _ = identify("contours", "1.2", [drawn("1", "Lesion")], past)
    assert own.tracking_uid == derive_uid("1.2", "tracking", "contours", SERIES, "1")
    assert own.tracking_identifier == "Lesion"
