from __future__ import annotations

from training.evaluate.subgroups import groups


def test_sizes_are_cut_where_the_table_says_and_every_case_is_in_one_group() -> None:
    sizes = [3.0, 5.99, 6.0, 9.9, 10.0, 19.0, 20.0, 40.0]
    found = {group.name: group.cases for group in groups([{"size_mm": size} for size in sizes])}
    assert found == {"below 6 mm": (0, 1), "6 to 10 mm": (2, 3), "10 to 20 mm": (4, 5), "from 20 mm": (6, 7)}


def test_slices_of_the_edge_are_thin_ones() -> None:
    found = {g.name: g.cases for g in groups([{"slice_thickness_mm": s} for s in (0.6, 1.0, 1.25, 2.0, 2.5)])}
    assert found == {"up to 1 mm": (0, 1), "1 to 2 mm": (2, 3), "above 2 mm": (4,)}


def test_scanners_are_groups_where_they_are_known_and_the_others_are_gathered() -> None:
    found = {
        (g.by, g.name): g.cases for g in groups([{"scanner": "A"}, {"scanner": "B"}, {}, {"scanner": "A"}])
    }
    assert found == {("scanner", "A"): (0, 3), ("scanner", "B"): (1,), ("scanner", "not known"): (2,)}


def test_what_all_share_and_what_differs_everywhere_makes_no_groups() -> None:
    assert groups([{"scanner": "A", "note": str(n), "pixel_mm": 0.5 + n} for n in range(20)]) == ()
