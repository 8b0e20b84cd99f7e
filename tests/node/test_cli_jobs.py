"""`nadir jobs` on deliveries: what was given up, and what is confirmed."""

from __future__ import annotations

from pathlib import Path

import pytest
from node_process import nadir, nadir_json
from outbox_rows import waiting_results
from small_node import SmallNode

from store import audit, confirmation, outbox

GONE, KEPT = "https://old/dicom-web", "PACS@10.0.0.1:104"


def waiting(home: Path, folder: Path) -> SmallNode:
    small = SmallNode.make(home)
    waiting_results(small.database, small.objects, folder, [KEPT, GONE], count=1)
    return small


def test_what_waits_for_a_destination_that_is_gone_is_abandoned_and_told(tmp_path: Path) -> None:
    waiting(tmp_path / "home", tmp_path).database.dispose()
    home = ("--home", str(tmp_path / "home"))
    config = tmp_path / "nadir.toml"
    config.write_text(f'destinations = ["{KEPT}", "https://nadir:secret@old/dicom-web/"]\n')
    config.chmod(0o600)
    refused = nadir("jobs", "abandon", GONE, *home, "--config", str(config))
    assert refused.returncode == 1 and "take it out first (destination-in-use)" in refused.stderr
    config.write_text(f'destinations = ["{KEPT}"]\n')
    done = nadir("jobs", "abandon", GONE + "/", *home, "--config", str(config))
    assert done.stdout == f"1 deliveries to {GONE} are abandoned\n"
    assert nadir_json("jobs", "abandon", GONE, *home) == {"destination": GONE, "abandoned": 0}
    nobody = nadir("jobs", "abandon", "nonsense", *home)
    told = f"nadir: no result is for nonsense; something waits for: {KEPT} (no-such-destination)\n"
    assert (nobody.returncode, nobody.stdout, nobody.stderr) == (1, "", told)
    rows = nadir_json("jobs", "show", "1", *home)["deliveries"]
    assert [row["state"] for row in rows] == ["pending", "abandoned"]
    assert rows[1]["abandoned_at"]
    assert f" to {GONE}: abandoned" in nadir("jobs", "show", "1", *home).stdout


def test_delivered_and_confirmed_are_different_words_in_the_ledger(tmp_path: Path) -> None:
    small = waiting(tmp_path / "home", tmp_path)
    home = ("--home", str(tmp_path / "home"))
    with small.database.transaction() as session:
        now = small.database.now()
        sent = outbox.claim(session, KEPT, "s", now, 60)
        assert sent is not None and sent.id is not None
        outbox.delivered(session, sent.id, 1, "0x0000", now, confirm_after=now)
        confirmation.asked(session, [sent.id], "1.2.3", now)
    shown = nadir("jobs", "show", "1", *home).stdout
    assert f"{KEPT}: delivered, 1 attempt, 0x0000, asked by storage commitment; no answer yet" in shown
    with small.database.transaction() as session:
        confirmation.confirmed(session, [sent.id], "commitment", now)
    small.database.dispose()
    assert f"{KEPT}: confirmed by commitment, 1 attempt, 0x0000\n" in nadir("jobs", "show", "1", *home).stdout
    (row, _) = nadir_json("jobs", "show", "1", *home)["deliveries"]
    assert (row["state"], row["confirmed_by"]) == ("confirmed", "commitment")
    assert row["delivered_at"] and row["confirmed_at"]


@pytest.mark.long  # test_parking has the same without processes
def test_an_analysis_is_run_again_and_parked_from_the_command_line_and_the_trail_is_told(
    tmp_path: Path,
) -> None:
    small = SmallNode.make(tmp_path / "home")
    waiting_results(small.database, small.objects, tmp_path, [KEPT], count=1)
    home = ("--home", str(tmp_path / "home"))
    assert nadir_json("jobs", "rerun", "1", *home) == {"job": 1, "again": 2}
    assert "does this already" in nadir("jobs", "rerun", "1", *home).stderr
    study = nadir_json("jobs", "show", "2", *home)["study_instance_uid"]
    assert nadir("jobs", "park", "2", *home).stdout == "job 2 is parked\n"
    assert nadir("jobs", "park", "--study", study, *home).stdout == "the study is parked with 0 jobs\n"
    assert "unpark the study" in nadir("jobs", "unpark", "2", *home).stderr
    assert nadir_json("jobs", "list", "--state", "parked", *home)[0]["id"] == 2
    assert nadir("jobs", "unpark", "--study", study, *home).stdout == "1 jobs wait in the queue again\n"
    assert "name either" in nadir("jobs", "park", *home).stderr
    with small.database.reading() as session:
        told = [row.message for row in audit.records(session)]
    small.database.dispose()
    assert len(told) == 4 and all(study in message and "Procedure Record" in message for message in told)
