"""The node as a task performer: what it claims, tells and ends, against a strict worklist manager with faults."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from performing_node import DESTINATION, PACS, UID, MakeNode, results
from sqlmodel import select
from whole_node import ANALYSIS, image
from worklist_manager import STYLES, WorklistManager, code, dataset, value

from store import jobs, workitems
from store.patients import find_patient, merge
from store.tables import Event, Instance, Pull, Refusal, Result, Study


def reference(study: str = "1.2.7", instances: int = 2, **more: Any) -> dict[str, Any]:
    sops = [
        dataset(ReferencedSOPClassUID="1.2.840.10008.5.1.4.1.1.2", ReferencedSOPInstanceUID=f"{study}.1.{n}")
        for n in range(1, instances + 1)
    ]
    series = {"TypeOfInstances": "DICOM", "StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.1"}
    return dataset(**series, ReferencedSOPSequence=sops, **more)


# --- the whole way ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "style", [STYLES[0], *(pytest.param(style, marks=pytest.mark.long) for style in STYLES[1:])]
)
def test_a_scheduled_workitem_is_claimed_done_told_and_completed_with_every_object_and_its_place(
    make: MakeNode, manager: WorklistManager, style: str
) -> None:
    manager.style = style
    item = manager.schedule(UID)
    node = make()
    node.rounds()
    assert item.history == ["SCHEDULED", "IN PROGRESS", "COMPLETED"]
    assert node.row.state == workitems.COMPLETED
    assert item.lock == node.row.transaction_uid
    assert item.outputs == [(uid, "PACS") for uid in results(node)]
    assert len(item.outputs) == 1
    done = value(item.row, "UnifiedProcedureStepPerformedProcedureSequence")
    station = value(done, "PerformedStationNameCodeSequence")
    assert (value(station, "CodeValue"), value(station, "CodingSchemeDesignator")) == ("NADIR", "99NADIR")
    assert value(value(done, "PerformedWorkitemCodeSequence"), "CodeValue") == "lung_nodule"
    assert value(done, "PerformedProcedureStepStartDateTime") < value(
        done, "PerformedProcedureStepEndDateTime"
    )
    assert item.progress("ProcedureStepProgress") == 100
    told = [value(u, "ProcedureStepProgressInformationSequence") for u in item.updates]
    percents = [value(one, "ProcedureStepProgress") for one in told if one]
    assert percents == sorted(percents)
    assert percents[0] < 20
    assert percents[-1] == 100


@pytest.mark.long
def test_only_what_is_asked_for_is_analysed_and_only_what_is_named_is_fetched(
    make: MakeNode, manager: WorklistManager
) -> None:
    manager.schedule(UID, InputInformationSequence=[reference(instances=2)])
    node = make()
    node.analyses = [ANALYSIS, replace(ANALYSIS, plugin="emphysema")]
    node.rounds()
    assert [job.plugin for job in node.jobs()] == ["lung_nodule"]
    with node.database.reading() as session:
        assert sorted(session.exec(select(Instance.sop_instance_uid))) == ["1.2.7.1.1", "1.2.7.1.2"]


def test_a_study_that_came_by_itself_is_analysed_in_every_way_and_the_workitem_takes_its_own_part_of_it(
    make: MakeNode, manager: WorklistManager
) -> None:
    node = make()
    node.analyses = [ANALYSIS, replace(ANALYSIS, plugin="emphysema")]
    for number in (1, 2, 3):
        node.whole.take(image(7, number), node.now)
    node.round(61)
    assert len(results(node)) == 2
    item = manager.schedule(UID)
    node.rounds(6)
    assert [job.plugin for job in node.jobs()] == ["lung_nodule", "emphysema"]
    (job,) = [job for job in node.jobs() if job.plugin == "lung_nodule"]
    with node.database.reading() as session:
        mine = list(session.exec(select(Result.sop_instance_uid).where(Result.job_pk == job.id)))
    assert [uid for uid, _ in item.outputs] == mine
    assert node.archive.asked == ["1.2.7"]


@pytest.mark.long
def test_a_study_that_the_pacs_told_of_is_analysed_in_every_way_though_a_workitem_asked_for_one(
    make: MakeNode, manager: WorklistManager
) -> None:
    manager.schedule(UID)
    node = make()
    node.analyses = [ANALYSIS, replace(ANALYSIS, plugin="emphysema")]
    with node.database.transaction() as session:
        session.add(
            Pull(study_instance_uid="1.2.7", run_after=node.now, requested_at=node.now, state="pulled")
        )
    node.rounds()
    assert [job.plugin for job in node.jobs()] == ["lung_nodule", "emphysema"]


@pytest.mark.long
def test_another_workitem_on_the_same_study_gets_another_analysis_and_the_same_one_gets_the_same_results(
    make: MakeNode, manager: WorklistManager
) -> None:
    first = manager.schedule(UID)
    node = make()
    node.analyses = [ANALYSIS, replace(ANALYSIS, plugin="emphysema")]
    node.begin()
    node.rounds(8)
    second = manager.schedule("1.2.3.5", codes=[code("air", "emphysema", "99NADIR")])
    third = manager.schedule("1.2.3.6")
    node.rounds(8)
    assert [item.state for item in (first, second, third)] == ["COMPLETED"] * 3
    assert [job.plugin for job in node.jobs()] == ["lung_nodule", "emphysema"]
    assert first.outputs == third.outputs != second.outputs


def test_of_input_that_is_of_several_studies_one_has_to_be_named(
    make: MakeNode, manager: WorklistManager
) -> None:
    item = manager.schedule(
        UID, study="1.2.9", InputInformationSequence=[reference("1.2.7"), reference("1.2.8")]
    )
    node = make()
    node.rounds(3)
    assert item.state == "CANCELED"
    assert item.progress("ReasonForCancellation") == (
        "The input is of 2 studies, and the workitem does not say which of them is to be analysed."
    )
    assert node.archive.asked == []


def test_input_of_another_study_than_the_one_that_is_named_is_told_as_not_looked_at(
    make: MakeNode, manager: WorklistManager
) -> None:
    item = manager.schedule(UID, InputInformationSequence=[reference("1.2.8"), reference("1.2.7")])
    node = make()
    node.rounds(8)
    assert item.state == "COMPLETED"
    done = value(item.row, "UnifiedProcedureStepPerformedProcedureSequence")
    assert value(done, "CommentsOnThePerformedProcedureStep") == (
        "Input of other studies was not looked at: 1.2.8."
    )


# --- which are for us ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [
        {"codes": [code("else", "liver", "99NADIR")]},
        {"codes": []},
        {"codes": [code("a", "lung_nodule", "99NADIR"), code("b", "liver", "99NADIR")]},
        {"InputReadinessState": "INCOMPLETE"},
        {"ScheduledProcedureStepStartDateTime": "20991231000000"},
        {"ScheduledStationNameCodeSequence": code("other", "OTHER", "L")},
        {"ScheduledHumanPerformersSequence": dataset(HumanPerformerName={"Alphabetic": "Grey"})},
        {"WorklistLabel": "READERS"},
    ],
)
def test_what_is_not_for_this_node_is_left_alone(
    make: MakeNode, manager: WorklistManager, more: dict[str, Any]
) -> None:
    item = manager.schedule(UID, **more)
    node = make(labels=("AI",))
    node.rounds(2)
    assert item.history == ["SCHEDULED"]
    assert node.rows() == []


def test_codes_of_the_settings_name_analyses_and_our_station_and_label_are_met(
    make: MakeNode, manager: WorklistManager
) -> None:
    item = manager.schedule(
        UID,
        codes=[code("CAD", "113095", "DCM")],
        ScheduledStationNameCodeSequence=code("AI 1", "AI1", "L"),
    )
    node = make(codes={"DCM:113095": ("lung_nodule",)}, station="AI1", labels="AI")
    node.rounds()
    assert item.state == "COMPLETED"
    done = value(item.row, "UnifiedProcedureStepPerformedProcedureSequence")
    assert value(value(done, "PerformedWorkitemCodeSequence"), "CodeMeaning") == "CAD"


@pytest.mark.long
def test_an_unknown_code_is_refused_in_words_when_the_settings_say_so(
    make: MakeNode, manager: WorklistManager
) -> None:
    item = manager.schedule(UID, codes=[code("else", "liver", "99X")])
    node = make(unknown="refuse")
    node.rounds(3)
    assert item.state == "CANCELED"
    assert "99X:liver" in item.progress("ReasonForCancellation")
    assert value(item.progress("ProcedureStepDiscontinuationReasonCodeSequence"), "CodeValue") == "110530"
    assert node.jobs() == []


def test_a_start_that_is_no_time_holds_no_workitem_back(make: MakeNode, manager: WorklistManager) -> None:
    manager.schedule(UID, ScheduledProcedureStepStartDateTime="20200101080000+9999")
    manager.schedule("1.2.3.5")
    node = make()
    node.round()
    assert {row.workitem_uid for row in node.rows()} == {UID, "1.2.3.5"}


def test_no_more_is_claimed_than_is_held_at_one_time_and_the_most_urgent_first(
    make: MakeNode, manager: WorklistManager
) -> None:
    for number, priority in enumerate(("LOW", "MEDIUM", "HIGH", "HIGH")):
        manager.schedule(f"1.2.3.{number}", ScheduledProcedureStepPriority=priority)
    node = make(at_once=2)
    node.now += timedelta(seconds=1)
    while node.performer.tick(node.now):
        pass
    taken = [uid for uid, item in manager.items.items() if item.state != "SCHEDULED"]
    assert taken == ["1.2.3.2", "1.2.3.3"]


# --- refusals, failures, partial results --------------------------------------------------------------------------


def test_a_refusal_of_the_analysis_ends_in_canceled_with_its_sentence(
    make: MakeNode, manager: WorklistManager
) -> None:
    item = manager.schedule(UID)
    node = make()
    node.take_up()
    with node.database.transaction() as session:
        job = jobs.claim(session, "w", node.now, 60)
        assert job is not None
        session.add(Refusal(job_pk=job.id, code="no-lungs", sentence="No series shows lungs.", refused=True))
        jobs.finish(session, int(job.id or 0), job.attempt, jobs.DONE, node.now)
    node.rounds(3)
    assert item.state == "CANCELED"
    assert item.progress("ReasonForCancellation") == "lung_nodule: No series shows lungs."
    assert value(item.progress("ProcedureStepDiscontinuationReasonCodeSequence"), "CodeValue") == "110522"
    assert item.outputs == []


def test_what_was_made_is_listed_though_another_analysis_failed(
    make: MakeNode, manager: WorklistManager
) -> None:
    asked = [code("n", "lung_nodule", "99NADIR"), code("e", "emphysema", "99NADIR")]
    item = manager.schedule(UID, codes=asked)
    node = make()
    node.analyses = [ANALYSIS, replace(ANALYSIS, plugin="emphysema")]
    node.begin()
    node.take_up()
    with node.database.transaction() as session:
        (job,) = [j for j in jobs.list_jobs(session) if j.plugin == "emphysema"]
    while (claimed := node.whole.claim(node.now)) is not None:
        if claimed.id == job.id:
            with node.database.transaction() as session:
                jobs.fail(
                    session,
                    int(claimed.id or 0),
                    claimed.attempt,
                    "boom",
                    "It broke.",
                    node.now,
                    permanent=True,
                )
        else:
            node.whole.finish(claimed, *node.whole.write(claimed), node.now)
    node.rounds(3)
    assert item.state == "CANCELED"
    assert item.progress("ReasonForCancellation") == (
        "emphysema: It broke. Of 2 analyses 1 have results: 1 objects."
    )
    assert [uid for uid, _ in item.outputs] == results(node)


@pytest.mark.long
def test_an_input_that_no_archive_holds_ends_in_canceled(make: MakeNode, manager: WorklistManager) -> None:
    item = manager.schedule(UID, study="1.2.8")
    node = make()
    node.rounds(10)
    assert item.state == "CANCELED"
    assert "does not hold the study" in item.progress("ReasonForCancellation")
    assert value(item.progress("ProcedureStepDiscontinuationReasonCodeSequence"), "CodeValue") == "110523"


def test_a_workitem_of_another_patient_than_the_study_is_canceled_and_nothing_is_analysed(
    make: MakeNode, manager: WorklistManager
) -> None:
    item = manager.schedule(UID, PatientID="SOMEBODY-ELSE")
    node = make()
    node.rounds(3)
    assert item.state == "CANCELED"
    assert item.progress("ReasonForCancellation") == "The study is of another patient than the workitem."
    assert value(item.progress("ProcedureStepDiscontinuationReasonCodeSequence"), "CodeValue") == "110523"
    for _ in range(3):
        node.round(61)
    assert (node.jobs(), results(node)) == ([], [])


def test_a_study_of_another_patient_that_is_here_is_not_fetched_for_a_workitem(
    make: MakeNode, manager: WorklistManager
) -> None:
    node = make()
    node.whole.take(image(7, 1), node.now)
    item = manager.schedule(UID, PatientID="SOMEBODY-ELSE")
    node.rounds(3)
    assert item.state == "CANCELED"
    assert node.archive.asked == []


def test_a_workitem_without_patient_or_of_a_patient_that_was_merged_is_done(
    make: MakeNode, manager: WorklistManager
) -> None:
    node = make()
    for number in (1, 2, 3):
        node.whole.take(image(7, number), node.now)
    node.whole.take(image(9, 1, patient_id="OLD-7"), node.now)
    with node.database.transaction() as session:
        old, new = (find_patient(session, named).id for named in ("OLD-7", "P7"))
        merge(session, int(old or 0), int(new or 0), "grey", node.now)
    items = [manager.schedule(UID, PatientID="OLD-7"), manager.schedule("1.2.3.5", PatientID=[])]
    node.round(61)
    node.rounds(8)
    assert [item.state for item in items] == ["COMPLETED", "COMPLETED"]


def test_an_object_of_another_study_than_was_asked_for_is_put_aside(
    make: MakeNode, manager: WorklistManager
) -> None:
    manager.schedule(UID)
    node = make()
    node.archive.gives = lambda uid: image(9, 1) if uid == "1.2.7.1.2" else node.archive.files[uid]
    node.rounds(1)
    node.round()
    assert node.row.error_code == "study-not-asked"
    with node.database.reading() as session:
        assert sorted(session.exec(select(Study.study_instance_uid))) == ["1.2.7"]
        events = {(e.kind, e.text) for e in session.exec(select(Event))}
    assert events == {("quarantine", f"study-not-asked from {PACS}")}
    assert len(list((node.objects.root / "quarantine").glob("*.dcm"))) == 1


@pytest.mark.parametrize("inputs", [[], [reference(instances=0)], [reference(instances=2)]])
def test_a_study_that_was_sent_here_needs_no_archive(
    make: MakeNode, manager: WorklistManager, inputs: list[Any]
) -> None:
    node = make()
    node.sources = []
    node.begin()
    for number in (1, 2, 3):
        node.whole.take(image(7, number), node.now)
    item = manager.schedule(UID, InputInformationSequence=inputs)
    node.take_up()
    assert node.row.error_code == (None if inputs == [reference(instances=2)] else "unavailable")
    node.round(61)
    node.rounds(8)
    assert item.state == "COMPLETED"
    assert [uid for uid, _ in item.outputs] == results(node)


@pytest.mark.parametrize("missing", ["series", "instance", "settled as a prior alone", "all"])
def test_what_is_not_here_whole_needs_an_archive(
    make: MakeNode, manager: WorklistManager, missing: str
) -> None:
    node = make()
    node.sources = []
    node.begin()
    for number in (1, 2, 3) if missing != "all" else ():
        node.whole.take(image(7, number), node.now)
    node.round(61)
    with node.database.transaction() as session:
        for study in session.exec(select(Study)):
            study.prior = missing == "settled as a prior alone"
    inputs = {
        "series": [reference(instances=0), reference(instances=0) | dataset(SeriesInstanceUID="1.2.7.2")],
        "instance": [reference(instances=4)],
    }
    item = manager.schedule(UID, InputInformationSequence=inputs.get(missing, []))
    node.rounds(8)
    assert item.state == "CANCELED"
    assert item.progress("ReasonForCancellation") == (
        "The input could not be fetched: no archive is set that the input could be fetched from."
    )


@pytest.mark.long
def test_an_address_in_a_workitem_is_never_called_only_compared(
    make: MakeNode, manager: WorklistManager
) -> None:
    evil = dataset(RetrieveURL="http://169.254.169.254/latest")
    manager.schedule(UID, InputInformationSequence=[reference(instances=2, WADORSRetrievalSequence=evil)])
    node = make()
    node.rounds(3)
    assert node.archive.asked == ["1.2.7"]
    assert node.row.source == PACS


@pytest.mark.long
def test_a_workitem_waits_for_a_result_until_a_destination_has_it(
    make: MakeNode, manager: WorklistManager
) -> None:
    item = manager.schedule(UID)
    node = make()
    node.statuses["store"] = 0xA700
    node.rounds(8)
    assert item.state == "IN PROGRESS"
    assert node.row.told == "0 of 1 results lie at a destination."
    node.statuses["store"] = 0x0000
    node.rounds(6)
    assert item.state == "COMPLETED"
    assert [place for _, place in item.outputs] == [DESTINATION.partition("@")[0]]
