"""Which requests for storage commitment are taken, and with which status the others are refused (PS3.7 Annex C)."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import Dataset
from pynetdicom.dimse_primitives import N_ACTION
from pynetdicom.sop_class import StorageCommitmentPushModelInstance
from small_node import SmallNode

from node.committer import Committer
from node.desk import Peer
from store.tables import Commitment

CT = "1.2.840.10008.5.1.4.1.1.2"


def answer(folder: Path, *pairs: tuple[str, str], kind: int = 1, instance: str = "") -> tuple[int, int]:
    """Ask for (SOP class, SOP instance); return the status and how many requests are kept."""
    small = SmallNode.make(folder / "home")
    request, information = N_ACTION(), Dataset()
    request.ActionTypeID = kind
    request.RequestedSOPInstanceUID = instance or StorageCommitmentPushModelInstance
    information.TransactionUID = "1.2.3.4"
    information.ReferencedSOPSequence = [Dataset() for _ in pairs]
    for item, (sop_class, sop_instance) in zip(information.ReferencedSOPSequence, pairs, strict=True):
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_instance
    committer = Committer(small.database, small.objects, ["CT1@127.0.0.1:104"])
    peer = Peer(calling_ae="CT1", address="127.0.0.1", number=1)
    status = committer.commit(peer, request, information)
    return status, len(small.rows(Commitment))


@pytest.mark.parametrize(("sop_class", "uid"), [(CT, ""), ("", "1.2.3"), (CT, "abc def"), (CT, "1..2")])
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_a_reference_without_a_uid_is_refused_with_the_whole_request(
    tmp_path: Path, sop_class: str, uid: str
) -> None:
    assert answer(tmp_path, (CT, "1.2.3"), (sop_class, uid)) == (0x0115, 0)


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize("uid", ["1.2.3", "1.2.003"])
def test_uids_as_scanners_write_them_are_taken(tmp_path: Path, uid: str) -> None:
    assert answer(tmp_path, (CT, uid)) == (0x0000, 1)


def test_another_action_or_another_instance_is_refused(tmp_path: Path) -> None:
    assert answer(tmp_path / "a", (CT, "1.2.3"), kind=2) == (0x0123, 0)
    assert answer(tmp_path / "b", (CT, "1.2.3"), instance="1.2.3") == (0x0112, 0)
