"""What is written from right to left is put in the order in which it is drawn, and moves nothing beside it."""

from __future__ import annotations

import unicodedata

import pytest

from store.reading_order import APART, begins_right, in_order, joined, turns


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        ("Nodule 3 (12.5 mm)", "Nodule 3 (12.5 mm)"),
        ("Müller Ω ж 山田", "Müller Ω ж 山田"),
        ("אבג", "גבא"),
        ("ID 7, אבג דה 12-3", "ID 7, הד גבא 12-3"),
        ("T1: אבג (דה), 2024-06-01", "T1: (הד) גבא, 2024-06-01"),
        ("T1: (אבג) x", "T1: (גבא) x"),
        ("T1: אבג 12.5 דה mm", "T1: הד 12.5 גבא mm"),
        ("Dr. אבג Smith דה", "Dr. גבא Smith הד"),
        ("אבג Smith דה", "הד Smith גבא"),
        (f"ID אבג,{APART} דה", "ID גבא, הד"),
        ("x אבג\nדה", "x גבא\nהד"),
    ],
)
def test_a_script_from_the_right_is_drawn_from_its_last_letter_and_moves_nothing_beside_it(
    text: str, drawn: str
) -> None:
    assert in_order(text) == drawn


def test_a_line_is_put_in_the_order_of_the_text_that_it_is_of() -> None:
    assert in_order("אבג 12 (Smith)", from_right=False) == "גבא 12 (Smith)"
    assert in_order("Smith אבג", from_right=True) == "גבא Smith"
    assert [begins_right(text) for text in ("12 אבג x", "x אבג", "12", "محمد")] == [True, False, False, True]
    assert [turns(text) for text in ("Müller", "x אבג", "محمد", "٣")] == [False, True, True, True]


@pytest.mark.parametrize("name", ["محمد علي", "عبد الله", "لا إله", "گچپژ ریال"])
def test_arabic_letters_have_the_forms_that_they_have_beside_each_other(name: str) -> None:
    forms = joined(name)
    assert unicodedata.normalize("NFKC", forms) == name
    assert forms != name and all(c == " " or unicodedata.decomposition(c).startswith("<") for c in forms)
    assert joined(forms) == forms


def test_points_and_vowel_signs_are_left_out_and_other_text_is_left_alone() -> None:
    assert joined("שָׁלוֹם") == "שלום"
    assert joined("مُحَمَّد") == joined("محمد")
    assert joined("Ångström e\u0301 山田") == "Ångström e\u0301 山田"
