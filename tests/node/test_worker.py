"""The worker: what one job may do to the node, late images, and what happens to jobs of another version."""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_series import make_series
from pydicom import dcmread
from sqlmodel import select
from worker_bench import DESTINATION, Bench

from node import worker as worker_module
from plugins.errors import Unavailable
from store import jobs
from store.fsck.check import check
from store.outstanding import GIVEN_UP, NOT_ENDED
from store.rerun import rerun
from store.tables import Delivery, Finding, Measurement, Pull, Refusal, Result, Study


@pytest.fixture
def bench(tmp_path: Path, trouble: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "home", tmp_path / "journal")
    yield made
    made.node.database.dispose()


@pytest.fixture
def queued(bench: Bench, small_study: list[Path]) -> Bench:
    bench.arrive(small_study)
    return bench


def _states(bench: Bench) -> list[str]:
    return [job.state for job in bench.jobs()]


def test_a_job_leaves_findings_numbers_results_and_deliveries(queued: Bench) -> None:
    assert queued.settle() == 1
    assert queued.work()
    assert _states(queued) == ["delivering"]
    (finding,) = queued.rows(Finding)
    assert finding.label == "Box box"
    volume = next(m for m in queued.rows(Measurement) if m.name == "volume")
    assert (volume.value, volume.unit) == (pytest.approx(4 * 5 * 7 * 2 / 1000), "ml")
    results = queued.rows(Result)
    assert [r.kind for r in results] == ["seg", "sr-volumetric", "sr-planar"]
    assert all(queued.node.objects.is_intact(r.sha256) for r in results)
    assert [d.result_pk for d in queued.rows(Delivery)] == [r.id for r in results]
    assert not queued.work()
    assert list((queued.node.home / "scratch").iterdir()) == []


def test_without_destinations_a_job_is_done_at_once(queued: Bench) -> None:
    queued.settle()
    queued.work(destinations=())
    assert _states(queued) == ["done"]


def test_a_destination_gets_the_kinds_that_it_asks_for_and_no_others(queued: Bench) -> None:
    viewer = "VIEWER@127.0.0.1:105"
    queued.settle()
    assert queued.work(destinations=(DESTINATION, viewer), delivery={viewer: {"results": "pdf, capture"}})
    kinds = {r.id: r.kind for r in queued.node.rows(Result)}
    sent = [(d.destination, kinds[d.result_pk]) for d in queued.node.rows(Delivery)]
    assert sorted(sent) == [
        (DESTINATION, "seg"),
        (DESTINATION, "sr-planar"),
        (DESTINATION, "sr-volumetric"),
        (viewer, "capture"),
        (viewer, "capture"),
        (viewer, "pdf"),
    ]


def test_nothing_found_is_delivered_as_a_report(queued: Bench) -> None:
    queued.mode = "nothing"
    queued.settle()
    queued.work()
    assert [r.kind for r in queued.rows(Result)] == ["sr-volumetric"]
    assert len(queued.rows(Delivery)) == 1
    assert _states(queued) == ["delivering"]


def test_a_crash_costs_an_attempt_and_the_last_one_buries_the_job_with_its_reason(queued: Bench) -> None:
    queued.mode = "segfault"
    queued.settle()
    for attempt in (1, 2, 3):
        assert queued.work(later=3600 * attempt)
        (job,) = queued.jobs()
        assert job.attempt == attempt
        assert job.error_code == "analysis-crashed"
    assert job.state == "dead"
    assert "SIGSEGV" in job.error_text
    assert not queued.work(later=36000)
    assert queued.runs() == 3


def test_a_dead_job_that_is_retried_can_end_well(queued: Bench) -> None:
    queued.mode = "segfault_once"
    queued.settle()
    queued.work()
    assert queued.jobs()[0].state == "queued"
    queued.work(later=3600)
    (job,) = queued.jobs()
    assert (job.state, job.attempt, job.error_code) == ("delivering", 2, None)
    assert len(queued.rows(Finding)) == 1


@pytest.mark.long  # test_cli retries one too
def test_a_dead_job_is_revived_by_a_person(queued: Bench) -> None:
    queued.mode = "memory"
    queued.settle()
    queued.work(job_memory_bytes=3 << 30)
    (job,) = queued.jobs()
    assert (job.state, job.error_code) == ("dead", "analysis-out-of-memory")
    with queued.node.database.transaction() as session:
        jobs.retry(session, int(job.id or 0), queued.now())
    queued.work(job_memory_bytes=3 << 30)
    assert queued.jobs()[0].attempt == 2


@pytest.mark.parametrize(("mode", "code"), [("refuse", "not-today"), ("absent", "no-lungs")])
def test_what_an_analysis_refuses_after_it_looked_is_a_row_and_no_failure(
    queued: Bench, mode: str, code: str
) -> None:
    queued.mode = mode
    queued.settle()
    queued.work()
    (job,) = queued.jobs()
    assert (job.state, job.attempt, job.error_code) == ("done", 1, None)
    assert [(r.code, r.refused) for r in queued.rows(Refusal)] == [(code, True)]
    assert queued.rows(Delivery) == []


def test_a_doubt_of_an_analysis_that_found_nothing_is_a_row(queued: Bench) -> None:
    queued.mode = "only_doubt"
    queued.settle()
    queued.work()
    assert queued.rows(Finding) == []
    assert [(r.code, r.refused) for r in queued.rows(Refusal)] == [("odd", False)]


@pytest.mark.parametrize(
    ("state", "hard_cap_seconds", "told"),
    [("parked", 5400, [GIVEN_UP]), ("waiting", 0.001, [NOT_ENDED]), ("pulled", 5400, [])],
)
def test_a_study_that_the_pacs_did_not_give_whole_is_reported_with_that_doubt(
    queued: Bench, state: str, hard_cap_seconds: float, told: list[str]
) -> None:
    (study,), now = queued.rows(Study), queued.now()
    with queued.node.database.transaction() as session:
        pull = Pull(study_instance_uid=study.study_instance_uid, state=state, run_after=now, requested_at=now)
        session.add(pull)
    assert queued.settle(hard_cap_seconds=hard_cap_seconds) == 1
    queued.work()
    doubts = [r for r in queued.rows(Refusal) if r.code == "not-fetched-whole"]
    assert [(r.sentence, r.refused) for r in doubts] == [(sentence, False) for sentence in told]
    (report,) = [r for r in queued.rows(Result) if r.kind == "sr-planar"]
    text = dcmread(queued.node.objects.path(report.sha256)).to_json()
    assert text.count("not-fetched-whole: ") == len(told)


def test_a_study_that_is_refused_is_refused_once_and_visible(bench: Bench, small_study: list[Path]) -> None:
    bench.arrive([f for n, f in enumerate(small_study) if n != 2])
    bench.settle()
    bench.work()
    (job,) = bench.jobs()
    assert (job.state, job.error_code) == ("dead", "missing-slices")
    assert [(r.code, r.refused) for r in bench.rows(Refusal)] == [("missing-slices", True)]


def test_images_of_another_patient_in_the_study_are_refused(
    bench: Bench, small_study: list[Path], tmp_path: Path
) -> None:
    study_uid = dcmread(small_study[0]).StudyInstanceUID
    array = np.zeros((6, 20, 20))
    others = make_series(tmp_path / "other", array, patient_id="P2", study_uid=study_uid, series_number=2)
    bench.arrive([*small_study, *others])
    bench.settle()
    bench.work()
    (job,) = bench.jobs()
    assert (job.state, job.error_code) == ("dead", "mixed-patients")
    assert [(r.code, r.refused) for r in bench.rows(Refusal)] == [("mixed-patients", True)]


def test_a_study_with_nothing_for_the_plugin_is_done_and_says_so(bench: Bench, tmp_path: Path) -> None:
    bench.arrive(make_series(tmp_path / "mr", np.arange(2400.0).reshape(6, 20, 20), modality="MR"))
    bench.settle()
    bench.work()
    assert _states(bench) == ["done"]
    assert [(r.code, r.refused) for r in bench.rows(Refusal)] == [("nothing-to-analyse", False)]


def test_an_identical_resend_makes_no_job(queued: Bench, small_study: list[Path]) -> None:
    assert queued.settle() == 1
    queued.arrive(small_study)
    assert queued.settle() == 0
    assert len(queued.jobs()) == 1


def test_a_late_image_gives_a_revision_that_supersedes_and_names_the_first(
    bench: Bench, small_study: list[Path]
) -> None:
    bench.arrive(small_study[:-1])
    bench.settle()
    bench.work(destinations=())
    bench.arrive(small_study[-1:])
    assert bench.settle() == 1
    bench.work(destinations=())
    assert _states(bench) == ["done", "done"]
    old, new = bench.rows(Finding)
    assert (old.superseded, new.superseded) == (True, False)
    assert old.tracking_uid == new.tracking_uid
    results = {(r.job_pk, r.kind): r for r in bench.rows(Result)}
    for kind in ("sr-volumetric", "sr-planar"):
        dataset = dcmread(bench.node.objects.path(results[2, kind].sha256))
        assert _predecessors(dataset) == {results[1, kind].sop_instance_uid}


def test_a_report_that_was_never_sent_has_no_successor(bench: Bench, small_study: list[Path]) -> None:
    bench.arrive(small_study[:-1])
    bench.settle()
    with bench.node.database.transaction() as session:
        assert jobs.claim(session, "slow", bench.now(), 60) is not None
    bench.arrive(small_study[-1:])
    bench.settle()
    bench.work()
    (first, second) = bench.jobs()
    assert (first.state, second.state) == ("running", "delivering")
    bench.work(later=61)  # the slow one's lease ran out: a newer revision is there, so nobody does it again
    assert _states(bench)[0] == "superseded"
    sr = next(r for r in bench.rows(Result) if r.kind == "sr-planar")
    assert "PredecessorDocumentsSequence" not in dcmread(bench.node.objects.path(sr.sha256))


def test_a_job_of_another_version_is_analysed_anew_by_the_present_one(queued: Bench) -> None:
    queued.settle()
    queued.mode = "nothing"  # other settings, so another key
    queued.work(destinations=())
    old, new = queued.jobs()
    assert (old.state, old.error_code) == ("superseded", "plugin-changed")
    assert "a job of the present ones does this work" in old.error_text
    assert new.state == "queued"
    queued.work(destinations=())
    assert _states(queued) == ["superseded", "done"]
    assert [r.kind for r in queued.rows(Result)] == ["sr-volumetric"]


def test_a_job_of_a_plugin_that_is_gone_is_dead_with_that_reason(queued: Bench) -> None:
    queued.settle()
    queued.work(enabled=("contours",))
    (job,) = queued.jobs()
    assert (job.state, job.error_code) == ("dead", "plugin-changed")
    assert "not installed or not enabled" in job.error_text


def test_a_missing_object_is_told_and_not_passed_over(queued: Bench) -> None:
    queued.settle()
    with queued.node.database.reading() as session:
        name = session.exec(select(worker_module.studies.Instance.sha256)).first()
    queued.node.objects.path(name).unlink()
    queued.work()
    (job,) = queued.jobs()
    assert job.error_code == "object-missing"
    assert "1 of 6 files" in job.error_text
    assert queued.runs() == 0


def test_a_fault_of_the_worker_itself_is_told_by_its_place(
    queued: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    queued.settle()

    def broken(*_: object) -> None:
        raise ValueError("P1-SECRET")

    monkeypatch.setattr(worker_module.findings, "save", broken)
    queued.work()
    (job,) = queued.jobs()
    assert (job.state, job.error_code) == ("queued", "broken")
    assert job.error_text.startswith("ValueError at ")
    assert "SECRET" not in job.error_text
    assert queued.rows(Finding) == []


def test_a_full_disk_is_told_as_that_and_uses_no_attempt_up(
    queued: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    queued.settle()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(worker_module.tempfile, "mkdtemp", full)
        for attempt in range(1, 8):
            assert queued.work(later=3600 * attempt)
    (job,) = queued.jobs()
    assert (job.state, job.attempt, job.error_code) == ("queued", 7, "unavailable")
    assert job.error_text == "results cannot be put on the disk (No space left on device); free or mend it"
    queued.work(later=3600 * 9)
    assert queued.jobs()[0].state == "delivering"


@pytest.mark.parametrize(
    ("lacking", "number", "sentence"),
    [
        ("folder", errno.EMFILE, "Too many open files; raise LimitNOFILE or ulimit -n"),
        (
            "child",
            errno.EAGAIN,
            "Resource temporarily unavailable; raise TasksMax, the pids limit or ulimit -u",
        ),
        ("object", errno.ENOMEM, "Cannot allocate memory; free memory or raise the limit of the service"),
    ],
)
def test_a_machine_without_more_files_or_processes_uses_no_attempt_up(
    queued: Bench, monkeypatch: pytest.MonkeyPatch, lacking: str, number: int, sentence: str
) -> None:
    queued.settle()

    def none_left(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    def no_object(*_: object, **__: object) -> None:
        raise Unavailable("The object store cannot be written or read") from OSError(number, "")

    with monkeypatch.context() as patched:
        if lacking == "folder":
            patched.setattr(worker_module.tempfile, "mkdtemp", none_left)
        elif lacking == "child":
            patched.setattr("node.child.subprocess.Popen", none_left)
        else:
            patched.setattr(worker_module, "run_in_child", no_object)
        for attempt in range(1, 8):
            assert queued.work(later=3600 * attempt)
    (job,) = queued.jobs()
    assert (job.state, job.attempt, job.error_code) == ("queued", 7, "unavailable")
    assert job.error_text == sentence
    queued.work(later=3600 * 9)
    assert queued.jobs()[0].state == "delivering"


@pytest.mark.parametrize("mode", ["box", "segfault", "fault", "refuse"])
def test_the_log_holds_no_word_of_the_patient(
    queued: Bench, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], mode: str
) -> None:
    queued.mode = mode
    queued.settle()
    with caplog.at_level(logging.DEBUG):
        queued.work()
    out, err = capfd.readouterr()
    for text in (caplog.text, out, err, *(str(j.error_text) for j in queued.jobs())):
        assert "SECRET" not in text


def test_an_analysis_that_is_run_again_gives_other_results_that_name_the_first_ones(queued: Bench) -> None:
    queued.settle()
    queued.work(destinations=())
    with queued.node.database.transaction() as session:
        assert rerun(session, 1, queued.now()).id == 2
    queued.work(destinations=())
    assert _states(queued) == ["done", "done"]
    old, new = queued.rows(Finding)
    assert (old.superseded, new.superseded, old.tracking_uid) == (True, False, new.tracking_uid)
    results = {(r.job_pk, r.kind): r for r in queued.rows(Result)}
    for kind in ("sr-volumetric", "sr-planar"):
        again = dcmread(queued.node.objects.path(results[2, kind].sha256))
        assert _predecessors(again) == {results[1, kind].sop_instance_uid} - {again.SOPInstanceUID}
    assert check(queued.node.database, queued.node.objects, now=queued.now()) == []


def test_the_times_in_a_result_are_those_of_the_clock_on_the_wall(
    queued: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without TimezoneOffsetFromUTC a time is local (PS3.3 C.12.1.1.8): UTC would be hours off in a viewer.
    monkeypatch.setenv("TZ", "XYZ-13:30")
    time.tzset()
    try:
        queued.settle()
        queued.work()
    finally:
        monkeypatch.undo()
        time.tzset()
    result = queued.rows(Result)[0]
    dataset = dcmread(queued.node.objects.path(result.sha256), stop_before_pixels=True)
    said = datetime.strptime(f"{dataset.ContentDate}{dataset.ContentTime[:6]}+1330", "%Y%m%d%H%M%S%z")
    assert abs(said - result.created_at) < timedelta(minutes=2)


def _predecessors(dataset: Any) -> set[str]:
    return {
        sop.ReferencedSOPInstanceUID
        for study in dataset.PredecessorDocumentsSequence
        for series in study.ReferencedSeriesSequence
        for sop in series.ReferencedSOPSequence
    }
