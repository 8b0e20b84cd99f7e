from __future__ import annotations

import builtins
import io
from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest

from node import export
from node.export import DISGUISED, IDENTIFIED, Disguise, Row
from plugins.errors import Refused
from store.measured import Measured

KEY = b"key of a node"


def number(**changes: object) -> Measured:
    values: dict[str, Any] = {name: "" for name in Measured.__dataclass_fields__} | {
        "pk": 1, "patient_pk": 7, "patient_id": "=cmd|' /C calc'!A0", "study_date": date(2024, 3, 4), "confidence": 0.5,
        "automatic": True, "value": -12.345678912, "uncertainty": None, "unit": "mm", "label": "Nodule of Mrs Doe",
        "tracking_uid": "2.25.1", "study_instance_uid": "1.2.3", "series_instance_uid": "1.2.3.4", "site_scheme": "SCT",
        "site_value": "39607008", "site_meaning": "Lung of Mrs Doe",
        "type_scheme": "99DOE", "type_meaning": "Mrs Doe's", "name": "long_axis", "rejected": False,
        "tracking_uid_now": "2.25.1", "site_now": "Lung of Mrs Doe",
    }  # fmt: skip
    return Measured(**values | changes)


def disguise(key: bytes = KEY) -> Disguise:
    persons = {7: export.keyed(key, "patient", "HOSP", "P1"), 8: export.keyed(key, "patient", "HOSP", "P1")}
    return Disguise(key=key, persons=persons, first=dict.fromkeys((7, 8), date(2024, 1, 4)))


def test_a_disguised_number_holds_nothing_of_whose_it_is_but_what_it_is() -> None:
    row = disguise().row(number())
    assert set(row) == set(DISGUISED)
    said = " ".join(map(str, row.values()))
    assert not any(secret in said for secret in ("cmd", "Doe", "2024", "1.2.3", "2.25.1"))
    assert (row["day"], row["value"], row["unit"], row["site"], row["type"]) == (
        60,
        -12.345678912,
        "mm",
        "Lung",
        "",
    )


@pytest.mark.parametrize(
    "scheme", ["99DOE", "L", "", "LOCAL", "SCT", "SRT", "DCM", "RADLEX", "UCUM", "99NADIR"]
)
def test_nothing_of_a_code_that_nobody_knows_is_written(scheme: str) -> None:
    named = {
        "type_value": "DOE^JANE",
        "type_meaning": "Jane",
        "site_value": "DOE",
        "site_meaning": "Jane's lung",
    }
    row = disguise().row(number(type_scheme=scheme, site_scheme=scheme, laterality="of Jane", **named))
    assert {row[name] for name in row if name.startswith(("type", "site", "laterality"))} == {""}


@pytest.mark.parametrize(
    ("scheme", "value", "meaning"),
    [("SCT", "4147007", "Mass"), ("SRT", "T-28000", "Lung"), ("NCIt", "C94970", "Reference Region"),
     ("99NADIR", "VOXEL", "Voxel value of the image")],
)  # fmt: skip
def test_a_known_code_is_written_with_its_own_words_and_not_with_those_that_came_with_it(
    scheme: str, value: str, meaning: str
) -> None:
    row = disguise().row(
        number(
            type_scheme=scheme,
            type_value=value,
            type_meaning="Mass of KANARIENVOGEL Tweety",
            laterality="Left",
        )
    )
    assert [row[name] for name in ("type_scheme", "type_code", "type")] == [scheme, value, meaning]
    assert row["laterality"] == "Left"


@pytest.mark.parametrize("value", ["KANARI-4711", "4711123", "39607008 "])
def test_an_identifier_that_calls_itself_a_code_of_a_public_scheme_is_not_written(value: str) -> None:
    row = disguise().row(number(site_value=value, modality="KANARI"))
    assert [row[name] for name in ("site_scheme", "site_code", "site", "modality")] == [""] * 4
    assert disguise().row(number(modality="PT"))["modality"] == "PT"


@pytest.mark.parametrize(
    ("kernel", "said"),
    [("Br40d\\3", "Br40d\\3"), ("FC08", "FC08"), ("BONEPLUS", "BONEPLUS"), ("YA", "YA"), ("not stated", "not stated"),
     ("DOE, no correction for JANE", "not written"), ("Mrs Doe", "not written"), ("DOE^JANE", "not written")],
)  # fmt: skip
def test_a_kernel_is_written_when_it_looks_like_one_and_is_no_free_text(kernel: str, said: str) -> None:
    words = "voxel distance 2.5 mm, kernel {}, no correction for thickness, kernel or breath"
    row = disguise().row(number(method=words.format(kernel)))
    assert row["method"] == words.format(said)


def test_pseudonyms_are_the_same_for_one_person_and_lesion_and_others_with_another_key() -> None:
    one, other = disguise().row(number()), disguise().row(number(patient_pk=8, study_date=date(2024, 5, 4)))
    assert (one["patient_key"], one["lesion_key"]) == (other["patient_key"], other["lesion_key"])
    elsewhere = disguise(b"another node").row(number())
    assert one["patient_key"] != elsewhere["patient_key"] and one["lesion_key"] != elsewhere["lesion_key"]
    assert export.keyed(KEY, "patient", "a", "b") != export.keyed(KEY, "patient", "ab", "")
    assert disguise().row(number(study_date=None))["day"] is None


def test_a_disguised_number_tells_what_people_decided_but_no_words_of_theirs_that_no_code_has() -> None:
    decided = disguise().row(number(rejected=True, tracking_uid_now="2.25.2", site_now=" liver"))
    other = disguise().row(
        number(tracking_uid="2.25.2", tracking_uid_now="2.25.2", site_now="Liver of Mrs Doe")
    )
    assert (decided["rejected"], decided["site"], decided["site_now"]) == (True, "Lung", "Liver")
    assert (
        decided["lesion_key_now"] == other["lesion_key"] == other["lesion_key_now"] != decided["lesion_key"]
    )
    assert (other["rejected"], other["site_now"]) == (False, "")
    assert disguise().row(number())["site_now"] == "Lung"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_words_that_a_spreadsheet_would_run_are_text_and_numbers_stay_numbers(start: str) -> None:
    pieces = iter([[export.with_names(number(label=f"{start}1+1"))]])
    text = b"".join(export.as_csv(list(IDENTIFIED), pieces)).decode()
    assert f"'{start}1+1" in text and "'=cmd" in text and ",-12.345679," in text


def test_a_parquet_file_comes_in_pieces_with_types_and_a_row_group_for_each() -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    given: list[int] = []

    def pieces() -> Iterator[list[Row]]:
        for n in range(3):
            given.append(n)
            yield [disguise().row(number(value=float(n), label="\ud800", confidence=None))] * 2

    made = export.as_parquet(DISGUISED, pieces())
    first = next(made)
    assert given == [0] and first.startswith(b"PAR1")
    file = parquet.ParquetFile(io.BytesIO(b"".join([first, *made])))
    assert file.num_row_groups == 3
    table = file.read()
    assert table["value"].to_pylist() == [0.0, 0.0, 1.0, 1.0, 2.0, 2.0]
    assert table["confidence"].to_pylist() == [None] * 6
    assert [str(table.schema.field(name).type) for name in ("day", "value", "automatic")] == [
        "int32",
        "double",
        "bool",
    ]


def test_without_pyarrow_parquet_is_refused_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = builtins.__import__

    def importing(name: str, *rest: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return usual(name, *rest)

    monkeypatch.setattr(builtins, "__import__", importing)
    with pytest.raises(Refused, match=r"pip install -c constraints.txt '\.\[parquet\]'"):
        export.as_parquet(DISGUISED, iter([]))
