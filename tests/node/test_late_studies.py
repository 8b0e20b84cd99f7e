"""Lesions keep their names when images or whole studies come late, in the wrong order or out of an archive."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest
from clinic import A, B, C, Clinic, D, ball, clinic_in
from pydicom import dcmread

from node.intake import Intake
from store.prior_tables import Prior, PriorSearch
from store.tables import Job, LesionLink, Result


@pytest.fixture
def clinic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clinic]:
    with clinic_in(tmp_path, monkeypatch) as made:
        yield made


def ask_for(clinic: Clinic, study_pk: int, prior_uid: str) -> None:
    """Write down that a search found an earlier study, which is still to come."""
    now = clinic.node.database.now()
    with clinic.node.database.transaction() as session:
        search = PriorSearch(study_pk=study_pk, source="PACS", state="done", run_after=now, requested_at=now)
        session.add(search)
        session.flush()
        session.add(
            Prior(search_pk=search.id or 0, study_instance_uid=prior_uid, run_after=now, requested_at=now)
        )


def test_a_study_that_gets_late_images_calls_its_lesions_as_before(clinic: Clinic) -> None:
    clinic.examine("20250101", ball(A, 22))
    before = clinic.examine("20250401", ball(A, 18), ball(B, 22), slices=slice(0, 28))
    assert list(before) == ["Nodule 2", "Nodule 1", "Body"]
    clinic.send("20250401", ball(A, 18), ball(B, 22))
    clinic.work()
    again = clinic.named("20250401")
    assert again == before
    kinds = {n: link.kind for n, link in clinic.links("20250401").items()}
    assert kinds == {"Nodule 2": "new", "Nodule 1": "same"}
    counting = [link for link in clinic.node.rows(LesionLink) if not link.superseded]
    assert len(counting) == 2


def test_a_first_study_that_gets_late_images_calls_its_lesions_as_before(clinic: Clinic) -> None:
    # The largest comes with the late images, so that numbers would go to others.
    before = clinic.examine("20250101", ball(B, 18), slices=slice(0, 16))
    assert list(before) == ["Nodule 1", "Body"]
    clinic.send("20250101", ball(B, 18), ball(A, 26))
    clinic.work()
    again = clinic.named("20250101")
    assert list(again) == ["Nodule 2", "Nodule 1", "Body"]
    assert {n: again[n] for n in before} == before
    assert clinic.links("20250101") == {}


def test_an_older_study_that_comes_later_takes_over_the_names(clinic: Clinic) -> None:
    newer = clinic.examine("20250401", ball(A, 22), ball(B, 18))
    older = clinic.examine("20250101", ball(A, 16), ball(B, 18), ball(C, 20))
    assert list(older) == ["Nodule 3", "Nodule 2", "Nodule 1", "Body"]
    assert {n: older[n] for n in newer} == newer
    assert clinic.links("20250101") == {}


def passing(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ten seconds pass between any two questions for the time, so that what comes later is later."""
    real, asked = clinic.node.database.now, count()
    clinic.seconds_ahead = 100
    monkeypatch.setattr(clinic.node.database, "now", lambda: real() + timedelta(seconds=10 * next(asked)))


@pytest.mark.long
def test_studies_that_come_in_the_wrong_order_are_tracked_again_by_their_dates(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    passing(clinic, monkeypatch)
    # What lies in C is seen on the last and on the first day alone; in between it is out of view.
    clinic.examine("20250701", ball(A, 22), ball(C, 16))
    clinic.examine("20250401", ball(A, 20), slices=slice(14, None))
    assert len(clinic.node.rows(Job)) == 3
    first = clinic.examine("20250101", ball(A, 18), ball(C, 16), ball(D, 20))
    jobs = [(job.plugin, job.run, job.state) for job in clinic.node.rows(Job)]
    assert jobs == [("balls", run, "done") for run in (0, 0, 1, 0, 1, 2)]
    kinds = [{n: k.kind for n, k in clinic.links(date).items()} for date in ("20250401", "20250701")]
    known = {uid: name for name, uid in first.items()}
    assert {known[k.tracking_uid] for k in clinic.links("20250701").values()} <= set(first)
    assert sorted(kinds[0].values()) == ["disappeared", "outside-field-of-view", "same"]
    assert sorted(kinds[1].values()) == ["disappeared", "same", "same"]
    clinic.work()
    assert len(clinic.node.rows(Job)) == 6


def test_an_earlier_study_that_an_archive_gives_with_its_results_is_waited_for_and_compared(
    clinic: Clinic, tmp_path: Path
) -> None:
    first = clinic.examine("20250101", ball(A, 22), ball(B, 18))
    images = clinic.study("20250101", ball(A, 22), ball(B, 18))
    results = [clinic.node.objects.path(row.sha256) for row in clinic.node.rows(Result)]
    elsewhere = Clinic(tmp_path / "elsewhere")
    elsewhere.send("20250401", ball(A, 14), ball(B, 20))
    elsewhere.settle()
    ask_for(elsewhere, 1, dcmread(images[0]).StudyInstanceUID)
    elsewhere.work()
    assert [(job.state, job.attempt) for job in elsewhere.node.rows(Job)] == [("queued", 0)]
    intake = Intake(elsewhere.node.database, elsewhere.node.objects)
    for file in (*images, *results):
        temporary = elsewhere.node.objects.temporary()
        temporary.write_bytes(file.read_bytes())
        intake.take(temporary, source="PACS", coming="fetched")
    elsewhere.work(priors_wait_seconds=0)
    assert elsewhere.named("20250401") == first
    assert {link.kind for link in elsewhere.links("20250401").values()} == {"same"}
    assert "priors-not-here" in elsewhere.told("20250401")
    assert len(elsewhere.node.rows(Job)) == 1
    elsewhere.node.database.dispose()


def corrected(clinic: Clinic, files: list[Path], **changes: str) -> None:
    """Send files again with other values, and work."""
    intake = Intake(clinic.node.database, clinic.node.objects)
    for file in files:
        dataset = dcmread(file)
        for name, value in changes.items():
            setattr(dataset, name, value)
        temporary = clinic.node.objects.temporary()
        dataset.save_as(temporary)
        intake.take(temporary, source="CT1@127.0.0.1")
    clinic.work()


def test_a_study_whose_date_was_corrected_is_compared_with_those_before_it_and_no_more_with_those_after(
    clinic: Clinic,
) -> None:
    first = clinic.examine("20250101", ball(A, 22), ball(B, 18))
    clinic.examine("20250301", ball(A, 18))
    kinds = [link.kind for link in clinic.links("20250301").values()]
    assert sorted(kinds) == ["disappeared", "same"]

    corrected(clinic, clinic.study("20250101", ball(A, 22), ball(B, 18)), StudyDate="20250601")

    assert clinic.links("20250301") == {}
    late = clinic.links("20250601")
    assert clinic.named("20250601") == first
    assert sorted(link.kind for link in late.values()) == ["new", "same"]
    assert len(clinic.node.rows(Job)) == 4
