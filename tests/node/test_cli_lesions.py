"""What people decide of lesions, by the commands, and what comes of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from course_rows import Clock, Linked, lesion, visit
from courses import course_of, sighting
from courses import visit as visit_of
from small_node import SmallNode
from typer.testing import CliRunner

from node import lesion_lines
from node.cli import app
from plugins.errors import Refused
from store import audit
from store.database import Database
from store.sighting import Measure, Sighting
from store.tracking.link import Kind

JANUARY, MARCH = date(2026, 1, 10), date(2026, 3, 10)
ONE, NEW = "2.25.1", "2.25.3"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give a node: a lesion of 20 then 18 mm and a new one of 30 mm in P1; one of 9 mm in R of two issuers, Q."""
    home = tmp_path_factory.mktemp("lesions") / "home"
    small = SmallNode.make(home)
    with small.database.transaction() as session:
        clock = Clock()
        first = visit(session, clock, JANUARY, [lesion(ONE, 20, label="Nodule A")])
        found = [lesion(ONE, 18, label="Nodule A"), lesion(NEW, 30, segment_number=2, label="Nodule B")]
        links = [
            Linked(kind=Kind.SAME, uid=ONE, earlier=[ONE], study=first),
            Linked(kind=Kind.NEW, uid=NEW, study=first),
        ]
        visit(session, clock, MARCH, found, links, study="1.2.50")
        visit(session, clock, MARCH, [lesion("2.25.8", 9)], patient={"patient_id": "R", "issuer": "A"})
        visit(session, clock, MARCH, [lesion("2.25.9", 9)], patient={"patient_id": "R", "issuer": "B"})
        visit(session, clock, JANUARY, [lesion("2.25.8", 10)], patient={"patient_id": "Q"})
    small.database.dispose()
    yield home


@pytest.fixture
def home(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "home"))


def run(home: Path, *words: str) -> str:
    """Return what a command prints; raise what it refuses."""
    said = CliRunner().invoke(app, [*words, "--home", str(home)], catch_exceptions=True)
    if isinstance(said.exception, Exception):
        raise said.exception
    return said.stdout


def overall(home: Path, *more: str) -> list[str | None]:
    told = json.loads(run(home, "response", "--patient", "P1", "--json", *more))
    return [point["overall"] for point in (told[0] if isinstance(told, list) else told)["time_points"]]


def test_a_confirmed_new_lesion_is_progression_and_taking_it_back_ends_it(home: Path) -> None:
    assert overall(home) == [None, "SD"]
    assert "nobody confirmed" in run(home, "response", "--patient", "P1")
    assert overall(home, "--unconfirmed-new", "count") == [None, "PD"]
    told = run(home, "lesions", "confirm", "--patient", "P1", "--lesion", "Nodule B", "--author", "Dr. Grey")
    assert told.startswith("choice 1, 20") and told.endswith("Dr. Grey: confirm 'Nodule B': true\n")
    assert overall(home) == [None, "PD"]
    assert "Nodule B" in run(home, "response", "--patient", "P1")
    run(
        home,
        "lesions",
        "undo",
        "--patient",
        "P1",
        "--choice",
        "1",
        "--author",
        "Dr. Who",
        "--note",
        "artefact",
    )
    assert overall(home) == [None, "SD"]
    rows = json.loads(run(home, "lesions", "history", "--patient", "P1", "--json"))
    assert [
        (row["author"], row["kind"], row["tracking_uid"], row["counts"], row["note"]) for row in rows
    ] == [
        ("Dr. Grey", "confirm", NEW, False, ""),
        ("Dr. Who", "undo", NEW, True, "artefact"),
    ]
    assert "Dr. Who" in run(home, "lesions", "history", "--patient", "P1")
    database = Database(f"sqlite:///{home / 'nadir.sqlite'}")
    with database.reading() as session:
        trail = [row.message for row in audit.records(session) if "Patient Record" in row.message]
    database.dispose()
    assert len(trail) == 2
    assert "Dr. Grey" in trail[0] and "artefact" not in trail[1]


def test_what_a_person_measured_of_normal_tissue_is_entered_by_command(home: Path) -> None:
    pet = ("lesions", "reference", "--patient", "P1", "--study", "2026-03-10", "--author", "Dr. Grey")
    told = run(home, *pet, "--liver-mean", "1.8", "--note", "right lobe")
    assert 'Dr. Grey: reference at 2026-03-10: {"liver_mean": 1.8} (right lobe)' in told
    assert "reference" in run(home, "lesions", "history", "--patient", "P1")


def test_a_relink_by_names_and_dates_changes_the_verdict(home: Path) -> None:
    p1 = ("--patient", "P1", "--author", "Dr. Grey")
    swap = (
        "relink",
        *p1,
        "--lesion",
        "Nodule B",
        "--study",
        "2026-03-10",
        "--to",
        "Nodule A",
        "--swap",
        "--json",
    )
    made = json.loads(run(home, "lesions", *swap))
    assert [(d["tracking_uid"], d["value"], d["study_instance_uid"]) for d in made] == [
        (NEW, ONE, "1.2.50"),
        (ONE, NEW, "1.2.50"),
    ]
    told = json.loads(run(home, "response", "--patient", "P1", "--json"))
    points = (told[0] if isinstance(told, list) else told)["time_points"]
    assert (points[1]["sum"], points[1]["overall"]) == (30.0, "PD")
    listed = run(home, "lesions", "list", "--patient", "P1")
    assert "Dr. Grey: relink 'Nodule A (2)' at 2026-03-10: Nodule A\n" in listed and "30.0 mm" in listed
    run(home, "lesions", "relink", *p1, "--lesion", ONE, "--study", "1.2.50", "--to", "new")
    assert len(json.loads(run(home, "lesions", "list", "--patient", "P1", "--json"))["lesions"]) == 3


def test_marks_are_listed_with_their_author(home: Path) -> None:
    run(
        home, "lesions", "mark", "--patient", "P1", "--lesion", ONE, "--role", "non-target", "--node", "--site",
        "Mediastinum", "--status", "unequivocal-progression", "--outline", "approved", "--study", "2026-03-10",
        "--author", "Dr. Grey",
    )  # fmt: skip
    run(home, "lesions", "reject", "--patient", "P1", "--lesion", NEW)
    (known, rejected) = json.loads(run(home, "lesions", "list", "--patient", "P1", "--json"))["lesions"]
    last = known["sightings"][-1]
    assert last["type_code"] == {"value": "27925004", "scheme": "SCT", "meaning": "Nodule"}
    assert (last["role"], last["role_by"], last["node"], last["site"], last["status"]) == (
        "non-target",
        "Dr. Grey",
        True,
        "Mediastinum",
        "unequivocal-progression",
    )
    assert [d["kind"] for d in last["decisions"]] == ["role", "node", "site", "status", "outline"]
    assert "outline" not in {d["kind"] for d in known["sightings"][0]["decisions"]}
    assert not rejected["sightings"][0]["counts"]
    assert overall(home) == [None, "PD"]
    assert "(30.0 mm)" in run(home, "lesions", "list", "--patient", "P1")


def test_who_calls_a_lesion_a_node_reads_by_which_rule_its_short_axis_was_measured(home: Path) -> None:
    mark = ("lesions", "mark", "--patient", "P1", "--lesion", "Nodule A")
    assert "short axis" not in run(home, *mark, "--no-node")
    assert "Its short axis counts as it was measured, nothing is measured anew: by hand." in run(
        home, *mark, "--node"
    )
    on, rule = visit_of(0), "0.5-level contour, axial slice of largest long axis"
    long, short = Measure(value=20.0, unit="mm", method=rule), Measure(value=9.0, unit="mm", method="chord")
    one = replace(sighting(on, 1, 20.0), measurements={"long_axis": long, "short_axis": short})
    by_hand = {"long_axis": long, "short_axis": replace(short, method="")}
    course = course_of({}, more=(one, replace(one, measurements=by_hand, date=MARCH)))
    assert lesion_lines.as_node(course, one.lesion) == (
        f"Its short axis counts as it was measured, nothing is measured anew: {rule}; measured by a person."
    )
    without = course_of({}, more=(replace(one, measurements={"long_axis": long}),))
    assert (
        lesion_lines.as_node(without, one.lesion)
        == "No short axis of it was measured, by which a node counts."
    )


def test_sizes_that_are_not_added_up_stand_in_brackets_of_their_own() -> None:
    on, uptake = visit_of(0), {"suv_peak": Measure(value=7.5, unit="g/ml{SUVlbm}")}
    pet = sighting(on, 1, 25.6)
    pet = replace(pet, measurements={**pet.measurements, **uptake}, plugin="pet_lesion")
    fragment = replace(sighting(on, 2, 8.0), lesion=pet.lesion)

    def told(*seen: Sighting) -> str:
        course = course_of({}, more=seen)
        return lesion_lines.row(course, pet.lesion, "Nodule 1", [on.study_date])[str(on.study_date)]

    ct = sighting(on, 1, 26.0)
    assert told(pet, ct) == "26.0 mm (25.6 mm)"
    assert told(ct, fragment, pet) == "26.0 mm + 8.0 mm (25.6 mm)"
    assert told(pet) == "25.6 mm"
    assert told(replace(ct, counts=False), replace(fragment, counts=False)) == "(26.0 mm) (8.0 mm)"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("lesions list --patient X", "no-such-patient"),
        ("lesions list --patient R", "several-issuers"),
        ("lesions confirm --patient P1 --lesion nothing", "no-such-lesion"),
        ("lesions confirm --patient P1 --lesion 2.25.9", "lesion-of-another-patient"),
        ("lesions mark --patient P1 --lesion 2.25.1 --status absent --study 2026-02-02", "no-such-study"),
        ("lesions mark --patient P1 --lesion 2.25.1 --role goal", "bad-choice"),
        ("lesions mark --patient P1 --lesion 2.25.1 --outline approved", "bad-choice"),
        (
            "lesions mark --patient P1 --lesion 2.25.3 --outline approved --study 2026-01-10",
            "no-such-lesion",
        ),
        ("lesions undo --patient P1 --choice 7", "no-such-choice"),
        ("patients merge P1 P1", "same-patient"),
        ("patients part P1", "not-merged"),
        ("response --patient X", "no-such-patient"),
        ("lesions confirm --patient P1 --lesion 2.25.3 --author=", "no-author"),
    ],
)
def test_what_cannot_be_is_refused(template: Path, words: str, code: str) -> None:
    with pytest.raises(Refused) as refused:
        run(template, *words.split())
    assert refused.value.code == code


def test_merged_patients_are_one_by_either_identifier(home: Path) -> None:
    told = run(home, "patients", "merge", "R", "Q", "--issuer", "A", "--author", "Dr. Grey")
    assert told == "R is Q; 'nadir patients part R --issuer A' takes it back\n"
    for named in (("Q",), ("R", "--issuer", "A")):
        listed = json.loads(run(home, "lesions", "list", "--patient", *named, "--json"))
        assert listed["patient"]["patient_id"] == "Q"
        assert [v["study_date"] for v in listed["visits"]] == ["2026-01-10", "2026-03-10"]
    assert "Dr. Grey" in run(home, "patients", "list")
    run(home, "patients", "part", "R", "--issuer", "A", "--author", "Dr. Grey")
    assert len(json.loads(run(home, "lesions", "list", "--patient", "Q", "--json"))["visits"]) == 1
    assert len(json.loads(run(home, "patients", "list", "--json"))) == 2
