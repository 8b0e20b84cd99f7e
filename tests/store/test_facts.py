from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
from pydicom import Dataset
from shapes import grid

from plugins import codes
from store.facts import EDGES, SAMPLED, facts_of, histogram

HU = EDGES[codes.HU.value]


def header() -> Dataset:
    dataset = Dataset()
    dataset.Manufacturer, dataset.ManufacturerModelName = "ACME", "One\\Two"
    dataset.PatientName, dataset.PatientID, dataset.StudyDate = "Doe^Jane", "SECRET", "20260101"
    return dataset


def test_a_voxel_on_an_edge_lies_in_the_bin_above_it() -> None:
    array = np.array([[[-2000.0, -1010.0, 0.0, 5000.0]]], dtype=np.float32)
    found = histogram(array, HU)
    assert len(found) == len(HU) + 1
    assert (found[0], found[1], found[HU.index(0.0) + 1], found[-1]) == (0.25, 0.25, 0.25, 0.25)


def test_of_a_large_series_a_part_is_looked_at_that_tells_the_same() -> None:
    array = np.random.default_rng(0).normal(-300, 400, (90, 200, 200)).astype(np.float32)
    few, all_of_them = histogram(array, HU), np.histogram(array, [-np.inf, *HU, np.inf])[0] / array.size
    assert few == histogram(array, HU)
    assert np.abs(np.array(few) - all_of_them).max() < 0.005
    assert np.prod([n // max(1, n // w) for n, w in zip(array.shape, SAMPLED, strict=True)]) < array.size / 15


def test_facts_say_what_the_series_was_like_and_nothing_of_the_patient() -> None:
    volume = replace(grid((4, 5, 6), (2.5, 0.7, 0.7)), convolution_kernel="B70f")
    facts = facts_of(volume, header())
    assert (facts.manufacturer, facts.convolution_kernel, facts.slices) == ("ACME", "B70f", 4)
    assert (facts.slice_distance_mm, facts.pixel_spacing_mm, facts.unit) == (2.5, 0.7, "[hnsf'U]")
    assert sum(facts.histogram) == pytest.approx(1.0, abs=1e-3)
    said = str(asdict(facts))
    assert not any(secret in said for secret in ("Doe", "SECRET", "20260101"))


def test_values_in_a_unit_without_edges_have_no_histogram() -> None:
    assert facts_of(replace(grid((2, 3, 4), (1, 1, 1)), unit=codes.BQ_PER_ML), header()).histogram == ()
