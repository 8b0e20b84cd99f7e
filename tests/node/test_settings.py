"""The settings: where they come from, which wins, and what a wrong one says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from node.address import parse_destination
from node.deliveries import DeliverySettings
from node.settings import Settings
from plugins.errors import Refused


def test_flags_win_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml = tmp_path / "nadir.toml"
    toml.write_text(
        'ae_title = "FILE"\ndicom_port = 1\nhttp_port = 2\n[plugins.pet_lesion]\nthreshold = "percent"\n'
    )
    monkeypatch.setenv("NADIR_DICOM_PORT", "3")
    monkeypatch.setenv("NADIR_HTTP_PORT", "4")
    settings = Settings.load(toml, http_port=5, home=tmp_path, quiet_seconds=None)
    assert (settings.ae_title, settings.dicom_port, settings.http_port) == ("FILE", 3, 5)
    assert settings.plugins == {"pet_lesion": {"threshold": "percent"}}
    assert settings.quiet_seconds == 60.0


def test_a_path_that_begins_with_a_tilde_is_below_the_home_of_the_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NADIR_AUDIT_FILE", "~/audit.log")
    monkeypatch.setenv("NADIR_RETRAIN__DATA", "~/a,/srv/b")
    toml = tmp_path / "nadir.toml"
    toml.write_text(
        'home = "~/nadirhome"\n[worklist]\ncredentials_file = "~/w"\n[oidc]\nca_file = "~/ca.pem"\n'
        '[delivery."P@h:104"]\ncredentials_file = "~/p"\n'
    )
    settings = Settings.load(toml, destinations=("P@h:104",), tls_ca=Path("~"), tls_key=Path("keys/~"))
    assert settings.home == tmp_path / "nadirhome" and settings.audit_file == tmp_path / "audit.log"
    assert (settings.tls_ca, settings.tls_key) == (tmp_path, Path("keys/~"))
    assert settings.retrain.data == (tmp_path / "a", Path("/srv/b"))
    assert settings.worklist.credentials_file == tmp_path / "w"
    assert settings.oidc.ca_file == tmp_path / "ca.pem"
    assert settings.delivery_of("P@h:104").credentials_file == tmp_path / "p"
    with pytest.raises(
        Refused, match="home: '~no-such-person/x' begins with a person who has no folder here"
    ):
        Settings.load(home=Path("~no-such-person/x"))


def test_a_path_with_a_nul_in_it_is_refused_by_the_name_of_its_setting(tmp_path: Path) -> None:
    toml = tmp_path / "nadir.toml"
    toml.write_text('home = "/srv/a\\u0000b"\n[oidc]\nca_file = "\\u0000"\n')
    with pytest.raises(Refused) as caught:
        Settings.load(toml)
    said = "no file or folder has a NUL character in its name"
    assert (caught.value.code, caught.value.sentence) == (
        "bad-settings",
        f"home: {said}; oidc.ca_file: {said}",
    )


@pytest.mark.parametrize("nothing", ["", " "])
def test_a_home_that_is_named_by_nothing_is_refused_and_not_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nothing: str
) -> None:
    toml = tmp_path / "nadir.toml"
    toml.write_text(f'home = "{nothing}"\n')
    with pytest.raises(Refused, match="home: name a folder, as ~/") as caught:
        Settings.load(toml)
    assert caught.value.code == "bad-settings"
    monkeypatch.setenv("NADIR_HOME", nothing)
    with pytest.raises(Refused, match="home: name a folder, as ~/"):
        Settings.load()
    assert Settings.load(home=Path(".")).home == Path(".")


def test_any_other_path_that_is_named_by_nothing_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NADIR_TLS_CERTIFICATE", "")
    monkeypatch.setenv("NADIR_OIDC__CLIENT_SECRET_FILE", "")
    toml = tmp_path / "nadir.toml"
    toml.write_text(
        'tls_key = ""\ntls_ca = " "\nviewer_pages = ""\nhttp_tls_certificate = ""\nhttp_tls_key = ""\n'
        'audit_file = ""\n[oidc]\nca_file = ""\n[worklist]\ncredentials_file = ""\n'
        '[delivery."P@h:104"]\ncredentials_file = ""\n'
    )
    s = Settings.load(toml, destinations=("P@h:104",))
    assert {s.tls_certificate, s.tls_key, s.tls_ca, s.viewer_pages, s.audit_file} == {None}
    assert {s.http_tls_certificate, s.http_tls_key, s.worklist.credentials_file} == {None}
    assert {s.oidc.ca_file, s.oidc.client_secret_file, s.delivery_of("P@h:104").credentials_file} == {None}


def test_lists_are_written_with_commas_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NADIR_DESTINATIONS", "PACS@10.0.0.1:104, http://pacs/dicom-web")
    monkeypatch.setenv("NADIR_CALLERS", "CT1@10.0.0.2,*@127.0.0.1")
    settings = Settings.load()
    assert settings.destinations == ("PACS@10.0.0.1:104", "http://pacs/dicom-web")
    assert settings.callers == ("CT1@10.0.0.2", "*@127.0.0.1")


def test_host_names_are_names_alone_or_addresses_in_brackets() -> None:
    names = ("nadir.example.org", "web", "10.0.0.5", "[2001:db8::1]")
    assert Settings.load(http_names=",".join(names)).http_names == names


def test_a_list_in_json_is_read_as_one_and_half_of_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NADIR_CALLERS", ' [ "CT1", "CT2@10.0.0.6"]')
    monkeypatch.setenv("NADIR_DESTINATIONS", '["PACS@10.0.0.1:104"]')
    monkeypatch.setenv("NADIR_OIDC__SCOPES", '["openid", "email"]')
    monkeypatch.setenv("NADIR_ENABLED", "[]")
    settings = Settings.load()
    assert settings.callers == ("CT1", "CT2@10.0.0.6")
    assert (settings.destinations, settings.enabled) == (("PACS@10.0.0.1:104",), ())
    assert settings.oidc.scopes == ("openid", "email")
    for text in ('["CT1", "CT2"', "['CT1', 'CT2']", '["CT1"],CT2'):
        with pytest.raises(
            Refused, match=r'callers: it begins as a list and is none: write a, b or \["a", "b"\]'
        ):
            Settings.load(callers=text)
    with pytest.raises(Refused, match="callers"):
        Settings.load(callers='["CT1", 2]')


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"dicom_port": 70000}, "dicom_port"),
        ({"ae_title": "SEVENTEEN-LETTERS"}, "ae_title"),
        ({"destinations": ("nowhere",)}, "AE@host:port"),
        ({"callers": ("a b",)}, "AE@address"),
        ({"http_proxies": "nginx"}, "http_proxies: 'nginx' is no IP address, as 10.0.0.5, and no network"),
        ({"http_proxies": ("10.0.0.1", "10.0.0.5/8")}, "http_proxies: '10.0.0.5/8' is no IP address"),
        (
            {"http_names": "https://nadir.example.org"},
            "http_names: 'https://nadir.example.org' is no Host of a req",
        ),
        (
            {"http_names": "nadir.example.org:8080"},
            "write a name alone, as nadir.example.org, or an IPv6 addr",
        ),
        ({"http_names": ("::1",)}, "http_names: '::1' is no Host of a request without its port"),
        ({"http_names": ("a b",)}, "http_names: 'a b' is no Host of a request without its port"),
        ({"http_names": ("*.example.org",)}, "http_names: '*.example.org' is no Host of a request"),
        ({"workers": True}, "workers: it is a number, not true"),
        ({"http_port": False}, "http_port: it is a number, not false"),
        ({"quiet_seconds": True}, "quiet_seconds: it is a number, not true"),
        ({"pacs_url": "ftp://x"}, "DICOMweb root"),
        ({"commitment_callers": ("CT1",)}, "'CT1' cannot be answered: write AE@host:port"),
        ({"commitment_callers": ("http://ct1/",)}, "'http://ct1/' cannot be answered: write AE@host:port"),
        ({"session_seconds": float("inf")}, "session_seconds: Input should be a finite number"),
        ({"lease_seconds": float("nan")}, "lease_seconds: Input should be a finite number"),
        ({"colour": "blue"}, "colour"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_line_that_names_it(flags: dict[str, object], says: str) -> None:
    with pytest.raises(Refused) as caught:
        Settings.load(**flags)
    assert caught.value.code == "bad-settings"
    assert says in caught.value.sentence
    assert "\n" not in caught.value.sentence


def numbers() -> Iterator[tuple[str, dict[str, object]]]:
    """Yield every setting that is a number by its name, and settings in which it is far too large."""
    for name, field in Settings.model_fields.items():
        kind = field.annotation
        if kind in (int, float):
            yield name, {name: kind(1e20)}
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            for one, inner in kind.model_fields.items():
                if inner.annotation in (int, float):
                    yield f"{name}.{one}", {name: {one: inner.annotation(1e20)}}
    for name, field in DeliverySettings.model_fields.items():
        if field.annotation in (int, float):
            own = {"P@h:104": {name: field.annotation(1e20)}}
            yield f"delivery.P@h:104.{name}", {"destinations": ("P@h:104",), "delivery": own}


@pytest.mark.parametrize(("name", "settings"), [pytest.param(*one, id=one[0]) for one in numbers()])
def test_a_number_that_nothing_can_be_reckoned_with_is_refused(
    name: str, settings: dict[str, object]
) -> None:
    with pytest.raises(Refused, match=rf"{name}: Input should be less than") as caught:
        Settings.load(**settings)
    assert caught.value.code == "bad-settings"


def test_decades_of_waiting_and_centuries_of_priors_can_be_asked_for() -> None:
    settings = Settings.load(quiet_seconds=1e9, priors_days=365_000, session_seconds=1e8)
    assert (settings.quiet_seconds, settings.priors_days) == (1e9, 365_000)
    for name, days in (("reconcile_days", 365_001), ("priors_days", 1_000_000)):
        with pytest.raises(Refused, match=f"{name}: Input should be less than or equal to 365000"):
            Settings.load(**{name: days})


def test_a_pace_that_is_next_to_nothing_is_no_endless_pause() -> None:
    assert DeliverySettings(max_per_minute=1e-300).pause_seconds == 1e9


def test_a_settings_file_may_begin_with_a_byte_order_mark_and_end_its_lines_as_windows_does(
    tmp_path: Path,
) -> None:
    toml = tmp_path / "nadir.toml"
    toml.write_bytes('\ufeffae_title = "NODE7"\r\ndicom_port = 5\r\n'.encode())
    settings = Settings.load(toml, home=tmp_path)
    assert (settings.ae_title, settings.dicom_port) == ("NODE7", 5)


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"absent\.toml does not exist"):
        Settings.load(tmp_path / "absent.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("= 1")
    with pytest.raises(Refused, match=r"broken\.toml cannot be read"):
        Settings.load(broken)
    unknown = tmp_path / "unknown.toml"
    unknown.write_text("colour = 'blue'")
    with pytest.raises(Refused, match="colour"):
        Settings.load(unknown)


def test_a_destination_is_an_ae_with_host_and_port_or_a_web_root() -> None:
    assert parse_destination("PACS@host:104") == ("PACS", "host", 104)
    assert parse_destination("PACS@[::1]:104") == ("PACS", "::1", 104)
    assert parse_destination("https://pacs/dicom-web/") == "https://pacs/dicom-web"
    for wrong in ("PACS@host:0", "PACS@host", "@host:1", "PACS@host:99999"):
        with pytest.raises(ValueError, match="not a destination"):
            parse_destination(wrong)


def test_each_destination_has_settings_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toml = tmp_path / "nadir.toml"
    toml.write_text(
        'destinations = ["PACS@10.0.0.1:104", "https://u:secret@pacs/dicom-web/"]\n'
        '[delivery."PACS@10.0.0.1:104"]\nresults = ["seg", "pdf"]\ntransfer_syntaxes = ["implicit"]\ntls = true\n'
        '[delivery."https://pacs/dicom-web"]\nmax_per_minute = 30\n'
    )
    toml.chmod(0o600)
    settings = Settings.load(toml)
    pacs = settings.delivery_of("PACS@10.0.0.1:104")
    assert (pacs.tls, pacs.transfer_syntaxes, pacs.pause_seconds) == (True, ("1.2.840.10008.1.2",), 0.0)
    web = settings.delivery_of("https://u:secret@pacs/dicom-web/")
    assert (web.pause_seconds, web.commitment) == (2.0, "auto")
    assert settings.destinations_of("pdf") == ("PACS@10.0.0.1:104",)
    assert settings.destinations_of("sr-planar") == ("https://pacs/dicom-web",)
    assert settings.destinations_of("seg") == ("PACS@10.0.0.1:104", "https://pacs/dicom-web")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"transfer_syntaxes": ["1.2.840.10008.1.2.4.90"]}, "cannot be written"),
        ({"transfer_syntaxes": []}, "at least one"),
        ({"results": ["xray"]}, "no kind of result"),
        ({"retry_statuses": ["C000"]}, "0xC000"),
        ({"commitment": "perhaps"}, "commitment"),
        ({"reported_by": "A B"}, "AE@address"),
        ({"colour": "blue"}, "no such setting"),
    ],
)
def test_a_setting_of_a_destination_that_cannot_be_kept_is_refused(
    changes: dict[str, object], says: str
) -> None:
    with pytest.raises(Refused, match=says):
        Settings.load(destinations=("PACS@h:104",), delivery={"PACS@h:104": changes})


def test_settings_of_nobody_who_is_called_are_refused() -> None:
    says = (
        "delivery: '{}' is none of the destinations, and no DICOM peer of priors_from, "
        "worklist.sources or commitment_callers"
    )
    for name in ("PACS@h:105", "http://pacs/dicom-web"):
        with pytest.raises(Refused) as caught:
            Settings.load(
                destinations=("PACS@h:104",),
                priors_from=("http://pacs/dicom-web",),
                delivery={name: {"tls": True}},
            )
        assert (caught.value.code, says.format(name) in caught.value.sentence) == ("bad-settings", True)


def test_tls_of_a_plain_http_destination_is_refused_and_of_an_https_one_is_what_it_has() -> None:
    plain, other = "http://pacs/dicom-web", "https://pacs/dicom-web"
    with pytest.raises(
        Refused, match=f"delivery: '{plain}' is asked without TLS, though it has tls: write https://"
    ):
        Settings.load(destinations=(plain,), delivery={plain: {"tls": True}})
    assert Settings.load(destinations=(other,), delivery={other: {"tls": True}}).delivery_of(other).tls


@pytest.mark.parametrize(
    "called",
    [
        {"priors_from": ("ARC@h:104",)},
        {"worklist": {"sources": ("ARC@h:104",)}},
        {"commitment_callers": ("ARC@h:104",)},
    ],
)
def test_a_peer_that_is_called_and_is_no_destination_can_have_tls_and_nothing_else(
    called: dict[str, object],
) -> None:
    settings = Settings.load(**called, delivery={"ARC@h:104": {"tls": True}})
    assert settings.delivery_of("ARC@h:104").tls
    says = "'ARC@h:104' is no destination: it can have tls, not commitment, max_per_minute"
    with pytest.raises(Refused, match=says):
        own = {"tls": True, "max_per_minute": 30, "commitment": "query"}
        Settings.load(**called, delivery={"ARC@h:104": own})


def test_earlier_studies_come_from_the_pacs_unless_something_else_is_said(tmp_path: Path) -> None:
    pacs = "http://pacs:8042/dicom-web"
    assert Settings(home=tmp_path).prior_sources == ()
    assert Settings(home=tmp_path, pacs_url=pacs).prior_sources == (pacs,)
    assert Settings(home=tmp_path, pacs_url=pacs, priors_from=()).prior_sources == ()
    assert Settings(home=tmp_path, pacs_url=pacs, priors_from="A@h:104, A@h:104").prior_sources == (
        "A@h:104",
    )
    with pytest.raises(Refused, match="priors_from"):
        Settings.load(home=tmp_path, priors_from=("nonsense",))
