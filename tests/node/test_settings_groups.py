"""Groups of settings: what `nadir init` writes of them, what the pages say, and what is told of a wrong field."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from node.deliveries import DeliverySettings
from node.oidc_settings import OidcSettings
from node.settings import Settings
from node.settings_file import settings_text
from node.worklist_settings import WorklistSettings
from plugins.errors import Refused

ROOT = Path(__file__).parents[2]


def test_the_settings_file_has_every_field_of_the_provider_with_its_default() -> None:
    block = settings_text({}, Path("nadir.toml")).partition("# [oidc]\n")[2]
    lines = [line.removeprefix("# ") for line in block.splitlines() if " = " in line]
    assert [line.partition(" = ")[0] for line in lines] == list(OidcSettings.model_fields)
    usual = OidcSettings()
    for name, value in tomllib.loads("\n".join(line for line in lines if " = ..." not in line)).items():
        held = getattr(usual, name)
        assert value == (list(held) if isinstance(held, tuple) else held), name


def test_the_settings_file_names_the_secrets_and_the_address_that_people_return_to() -> None:
    text = settings_text({}, Path("nadir.toml"))
    assert "https://NODE/oidc/callback" in text
    for name in ("hook_token", "metrics_token", "audit_key", "tcia_token"):
        assert re.search(rf"^# Secrets, .*\b{name}\b", text, re.MULTILINE)


def test_the_page_for_administrators_has_every_field_of_single_sign_on_and_an_example_that_counts() -> None:
    page = (ROOT / "docs" / "administrators.md").read_text()
    section = page.partition("### Single sign-on")[2].partition("\n## ")[0]
    for name in OidcSettings.model_fields:
        assert re.search(rf"^\| [^|]*`{name}`", section, re.MULTILINE), name
    example = re.search(r"```toml\n(.*?)```", section, re.DOTALL)
    assert example is not None
    assert OidcSettings(**tomllib.loads(example[1])["oidc"]).is_on
    assert "/oidc/callback" in section


@pytest.mark.parametrize(
    ("given", "wrong", "group", "fields"),
    [
        ({"oidc": {"foo": 1}}, "oidc.foo", "oidc", OidcSettings.model_fields),
        ({"worklist": {"foo": 1}}, "worklist.foo", "worklist", WorklistSettings.model_fields),
        (
            {"destinations": ("P@h:104",), "delivery": {"P@h:104": {"foo": 1}}},
            "delivery.P@h:104.foo",
            "delivery.P@h:104",
            DeliverySettings.model_fields,
        ),
    ],
)
def test_a_field_that_a_group_has_not_is_told_with_those_that_it_has(
    given: dict[str, object], wrong: str, group: str, fields: dict[str, object]
) -> None:
    with pytest.raises(Refused) as refused:
        Settings.load(None, **given)
    assert refused.value.sentence == f"{wrong}: there is no such setting; {group} has {', '.join(fields)}"


def test_a_setting_that_there_is_not_is_told_alone() -> None:
    with pytest.raises(Refused) as refused:
        Settings.load(None, foo=1)
    assert refused.value.sentence == "foo: there is no such setting"
