"""What lesions are called: no Tracking ID twice in a patient, numbers going on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from store.tracking.naming import Names
from store.tracking.past import Named


def names(*identifiers: str) -> Names:
    return Names(Named(tracking_uid=f"1.{n}", tracking_identifier=name) for n, name in enumerate(identifiers))


def test_a_first_study_keeps_its_labels() -> None:
    first = names()
    assert [first.give(f"Nodule {n}", f"2.{n}", renumbered=True) for n in (1, 2, 3)] == [
        "Nodule 1",
        "Nodule 2",
        "Nodule 3",
    ]


def test_numbers_go_on_where_they_stopped_and_others_begin() -> None:
    later = names("Nodule 1", "Nodule 3")
    assert later.give("Nodule 1", "2.1", renumbered=True) == "Nodule 4"
    assert later.give("Nodule 9", "2.2", renumbered=True) == "Nodule 5"
    assert later.give("PET lesion 1", "2.3", renumbered=True) == "PET lesion 1"
    assert later.give("PET lesion 2", "2.4", renumbered=True) == "PET lesion 2"


def test_what_a_person_called_a_lesion_stays_unless_another_one_is_called_so() -> None:
    drawn = names("GTV", "LN-2")
    assert drawn.give("LN-7", "2.1", renumbered=False) == "LN-7"
    assert drawn.give("GTV", "2.2", renumbered=False) == "GTV 2"
    assert drawn.give("GTV", "1.0", renumbered=False) == "GTV"


@given(
    st.lists(st.sampled_from(["Nodule 1", "Nodule 2", "Nodule", "GTV", "1", "T2 node 3", ""]), max_size=6),
    st.lists(st.sampled_from(["Nodule 1", "Nodule 7", "GTV", "1", "", "T2 node"]), max_size=6),
    st.booleans(),
)
def test_no_two_lesions_share_a_name(known: list[str], labels: list[str], renumbered: bool) -> None:
    given_names = names(*dict.fromkeys(known))
    new = [given_names.give(label, f"2.{n}", renumbered=renumbered) for n, label in enumerate(labels)]
    assert len({*new, *known}) == len(new) + len(set(known))
