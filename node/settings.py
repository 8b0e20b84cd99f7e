"""Every setting of the node, typed, from one TOML file, the environment (`NADIR_...`) and flags, in rising order."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from node.address import AE, WEB_ADDRESS, is_destination, parse_destination, shown, web_root
from node.deliveries import DeliverySettings, key_of, require_known, taking, without_credentials
from node.host_names import HostNames
from node.networks import Networks
from node.oidc_settings import OidcSettings
from node.paths import HomePath, MaybePath, without_tilde
from node.quantities import Bytes, Count, Days, Seconds, Whole
from node.retraining import RetrainSettings
from node.secrets import SECRET, SecretFiles, hidden, is_secret
from node.settings_source import not_json, what_is_wrong, with_file
from node.words import Words
from node.worklist_settings import WorklistSettings
from node.zone import known_zone
from plugins.errors import Refused
from store.checked_copy import RESTORING

CALLER = re.compile(rf"{AE}(@[^@\s]+)?")


class Settings(BaseSettings):
    """The settings of one node. Made once, in the command line, and passed down."""

    model_config = SettingsConfigDict(
        env_prefix="NADIR_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        validate_default=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )

    home: HomePath = Field(
        default_factory=lambda: Path.home() / ".nadir",
        description="Folder for bytes, SQL and temporary files",
    )
    database_url: str = Field(default="", description="SQLAlchemy URL; empty for SQLite in the home folder")
    ae_title: str = Field(
        default="NADIR", pattern=r"^[\x21-\x5b\x5d-\x7e]{1,16}$", description="AE title of this node"
    )
    dicom_host: str = Field(default="0.0.0.0", description="Address that the DICOM port listens on")  # noqa: S104
    dicom_port: Whole = Field(default=11112, ge=0, le=65535, description="DICOM port; 0 for any free one")
    plain_dicom: bool = Field(default=True, description="Listen on the DICOM port without TLS")
    tls_port: Whole = Field(default=0, ge=0, le=65535, description="DICOM port with TLS; 0 for none")
    tls_certificate: MaybePath = Field(
        default=None, description="PEM file with our certificate and its chain"
    )
    tls_key: MaybePath = Field(default=None, description="PEM file with its key; none: in the same file")
    tls_key_passphrase: Annotated[str, SECRET] = Field(default="", description="Passphrase of that key")
    tls_ca: MaybePath = Field(
        default=None,
        description="PEM file with the authorities that peers are judged by; DICOMweb servers also by public ones",
    )
    tls_mutual: bool = Field(default=True, description="Callers by TLS must show a certificate of tls_ca")
    tls_hostnames: bool = Field(
        default=True, description="The certificate of a DICOM destination must name its host"
    )
    http_host: str = Field(default="127.0.0.1", description="Address that the HTTP port listens on")
    http_port: Whole = Field(default=8080, ge=0, le=65535, description="HTTP port; 0 for any free one")
    time_zone: str = Field(
        default="UTC", description="Time zone of pages and reports: UTC, or a name as Europe/Berlin"
    )
    viewer_pages: MaybePath = Field(
        default=None,
        description="Folder of OHIF's built pages; none: what `make viewer` brought, or /usr/share/nadir/viewer",
    )
    http_tls_certificate: MaybePath = Field(
        default=None, description="PEM file with the certificate chain of the HTTP port; none: plain HTTP"
    )
    http_tls_key: MaybePath = Field(default=None, description="PEM file with its key; none: in the same file")
    http_tls_key_passphrase: Annotated[str, SECRET] = Field(default="", description="Passphrase of that key")
    http_names: HostNames = Field(
        default=(), description="Host names that the HTTP port answers to besides localhost; empty for all"
    )
    http_proxies: Networks = Field(
        default=(),
        description="Addresses or networks of proxies whose X-Forwarded-For and -Proto are believed",
    )
    metrics_host: str = Field(
        default="127.0.0.1", description="Address that the port for probes and metrics listens on"
    )
    metrics_port: Whole = Field(
        default=0,
        ge=0,
        le=65535,
        description="Port of each process, whatever its roles, for probes and its own metrics; 0 for none",
    )
    metrics_token: Annotated[str, SECRET] = Field(
        default="", description="Bearer token that may ask the HTTP port for /metrics, and nothing else"
    )
    max_request_bytes: Bytes = Field(default=1 << 30, gt=0, description="Largest STOW-RS request")
    max_stow_requests: Count = Field(
        default=8, ge=1, description="STOW-RS requests served at one time; more are told to come again"
    )
    session_idle_seconds: Seconds = Field(
        default=1800.0, gt=0, description="A person who does nothing for this long is signed out"
    )
    session_seconds: Seconds = Field(
        default=43200.0, gt=0, description="A person is signed out this long after signing in at the latest"
    )
    audit_file: MaybePath = Field(
        default=None, description="File that audit messages are appended to, one JSON object a line"
    )
    audit_syslog: str = Field(
        default="", description="Audit repository: udp://host:port, tcp://host:port or tls://host:port"
    )
    audit_patients: Literal["pseudonym", "identity"] = Field(
        default="pseudonym", description="How the audit trail names patients: pseudonym or identity"
    )
    audit_key: Annotated[str, SECRET] = Field(
        default="", description="Key of the pseudonyms; empty: made once, in the home folder"
    )
    callers: Words = Field(default=(), description="Who may send: AE, AE@address or *@address")
    caller_certificates: Words = Field(
        default=(),
        description="AE titles that need a certificate: AE=name or AE=sha256:digits; * for every AE title",
    )
    accept_any: bool = Field(
        default=False, description="Accept every calling and called AE title from everywhere"
    )
    destinations: Words = Field(
        default=(), description="Where results go: AE@host:port or the URL of a DICOMweb root"
    )
    commitment_callers: Words = Field(
        default=(),
        description="Which callers may ask for storage commitment, and where the answer goes: AE@host:port",
    )
    delivery: dict[str, DeliverySettings] = Field(
        default_factory=dict,
        description="Settings of each destination, by its address without password; of others that are called, tls",
    )
    pacs_url: str = Field(default="", description="DICOMweb root of the PACS that studies are pulled from")
    hook_token: Annotated[str, SECRET] = Field(
        default="",
        description="Shared secret of Orthanc's hook; without it, accounts and tokens only the loopback may ask",
    )
    tcia_token: Annotated[str, SECRET] = Field(
        default="", description="Token for restricted collections of The Cancer Imaging Archive"
    )
    reconcile_seconds: Seconds = Field(
        default=300.0, ge=0, description="How often the PACS is asked for missed studies; 0 for never"
    )
    reconcile_days: Days = Field(default=3, ge=1, description="How many days back that question goes")
    priors_from: Words | None = Field(
        default=None,
        description="Where a patient's earlier studies are fetched from: AE@host:port or the URL of a DICOMweb root; "
        "pacs_url when not given",
    )
    priors_by: str = Field(
        default="auto",
        pattern="^(auto|get|move)$",
        description="How a DICOM peer gives them: get (C-GET), move (C-MOVE to our port), or auto",
    )
    priors_max_studies: Count = Field(
        default=3, ge=1, description="How many earlier studies are fetched at most"
    )
    priors_days: Days = Field(default=1095, ge=1, description="How many days back they may have been made")
    priors_modalities: Words = Field(
        default=("CT", "PT", "MR", "SEG", "SR", "RTSTRUCT"),
        description="Of which modalities; images only of those that the new study has too",
    )
    priors_analysed: bool = Field(
        default=True,
        description="Whether earlier studies without results of ours are analysed too, so that there is a baseline",
    )
    priors_wait_seconds: Seconds = Field(
        default=120.0,
        ge=0,
        description="How long after a study settled its analyses wait for earlier studies that were asked for",
    )
    response_criteria: str = Field(
        default="recist1.1",
        description="Criteria of the report on a patient's response: "
        "recist1.1, irecist, percist, lugano, who, volume; off for none",
        pattern="^(recist1\\.1|irecist|percist|lugano|who|volume|off)$",
    )
    priors_compared: Count = Field(
        default=3, ge=0, description="With how many earlier studies a study is compared; 0 follows nothing"
    )
    quiet_seconds: Seconds = Field(default=60.0, ge=0, description="Quiet time after which a study is whole")
    hard_cap_seconds: Seconds = Field(
        default=5400.0, gt=0, description="A study settles this long after its first image at the latest"
    )
    max_associations: Count = Field(default=50, ge=1, description="Associations served at one time")
    max_associations_per_address: Count = Field(
        default=0, ge=0, description="Associations of one address at one time; 0 for all of them"
    )
    listener_processes: Whole = Field(
        default=1,
        ge=1,
        le=64,
        description="Listener processes on the DICOM port; they share max_associations",
    )
    receive_path: str = Field(
        default="fast",
        pattern="^(fast|pynetdicom)$",
        description="How C-STORE data are received: fast, or pynetdicom with its own threads",
    )
    max_object_bytes: Bytes = Field(default=8 << 30, gt=0, description="Largest object that is accepted")
    reserve_bytes: Bytes = Field(
        default=256 << 20, ge=0, description="Free disk below which nothing is accepted"
    )
    quarantine_bytes: Bytes = Field(
        default=1 << 30, ge=0, description="Disk that refused files may fill; then the oldest are deleted"
    )
    sync: bool = Field(
        default=True,
        description="Answer only when an object is on disk; False may lose what was accepted: for benchmarks only",
    )
    workers: Count = Field(default=2, ge=1, description="Jobs that run at one time")
    lease_seconds: Seconds = Field(
        default=60.0, ge=1, description="A job whose worker is silent for this long goes to another one"
    )
    job_memory_bytes: Bytes = Field(default=12 << 30, gt=0, description="Address space that one job may use")
    job_seconds: Seconds = Field(default=3600.0, gt=0, description="Time that one job may take")
    max_attempts: Count = Field(default=5, ge=1, description="Attempts before a job is dead")
    plugins: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Settings of each plugin, by its name"
    )
    enabled: Words | None = Field(default=None, description="Plugins that run; all when not given")
    oidc: OidcSettings = Field(
        default_factory=OidcSettings, description="A provider that says who people are (OpenID Connect)"
    )
    worklist: WorklistSettings = Field(
        default_factory=WorklistSettings,
        description="Settings of the worklist that drives this node, by name",
    )
    retrain: RetrainSettings = Field(
        default_factory=RetrainSettings, description="Settings of the schedule and of retraining, by name"
    )
    log_form: Literal["text", "json"] = Field(
        default="text", description="How a line of the log is written: text, or json for what gathers logs"
    )
    log_level: str = Field(
        default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="How much is logged"
    )

    _paths = field_validator("*")(without_tilde)

    @model_validator(mode="after")
    def _a_door(self) -> Self:
        if not self.plain_dicom and not self.tls_port:
            raise ValueError("plain_dicom is off, so that DICOM needs a tls_port")
        return self

    @model_validator(mode="after")
    def _a_worklist_has_a_destination(self) -> Self:
        """A workitem is completed with where its results are, so that they have to be somewhere."""
        if self.worklist.url and not self.destinations:
            raise ValueError("worklist: results of workitems need a destination")
        for text in self.worklist.sources or ():
            parse_destination(text)
        return self

    @model_validator(mode="after")
    def _known_destinations(self) -> Self:
        others = (*self.prior_sources, *self.input_sources, *self.commitment_callers)
        require_known(self.delivery, self.destinations, others)
        return self

    @field_validator("destinations")
    @classmethod
    def _destinations(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            parse_destination(text)
        return tuple(dict.fromkeys(value))

    @field_validator("commitment_callers")
    @classmethod
    def _commitment_callers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            if WEB_ADDRESS.fullmatch(text) or not is_destination(text):
                raise ValueError(f"'{shown(text)}' cannot be answered: write AE@host:port")
        return tuple(dict.fromkeys(value))

    @field_validator("delivery")
    @classmethod
    def _delivery(cls, value: dict[str, DeliverySettings]) -> dict[str, DeliverySettings]:
        for text in value:
            parse_destination(text)
            if text != without_credentials(text):
                raise ValueError("name the destination without user and password")
        return {key_of(text): settings for text, settings in value.items()}

    @field_validator("priors_from")
    @classmethod
    def _priors_from(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for text in value or ():
            parse_destination(text)
        return None if value is None else tuple(dict.fromkeys(value))

    @field_validator("callers")
    @classmethod
    def _callers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            if not CALLER.fullmatch(text):
                raise ValueError(f"'{text}' is not a caller: write AE, AE@address or *@address")
        return value

    @field_validator("time_zone")
    @classmethod
    def _time_zone(cls, value: str) -> str:
        return known_zone(value)

    @field_validator("pacs_url")
    @classmethod
    def _pacs_url(cls, value: str) -> str:
        return web_root(value) if value else ""

    def delivery_of(self, destination: str) -> DeliverySettings:
        """Return the settings of one destination, or peer that is called, given with or without its password."""
        return self.delivery.get(key_of(destination), DeliverySettings())

    def destinations_of(self, kind: str) -> tuple[str, ...]:
        """Return where results of this kind go, as the outbox names it."""
        return taking(self.destinations, self.delivery, kind)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let flags win over the environment; `load` adds the TOML file below both."""
        return (init_settings, SecretFiles(settings_cls), env_settings)

    @classmethod
    def load(cls, toml: Path | None = None, **flags: Any) -> Self:
        """Return the settings of a TOML file, the environment and the flags that are not None.

        Refuses `bad-settings`, in one line that names the setting, what is wrong and what is expected.
        """
        given = {name: value for name, value in flags.items() if value is not None}
        try:
            return (cls if toml is None else with_file(cls, toml))(**given)
        except ValidationError as error:
            raise Refused(
                "bad-settings", "; ".join(what_is_wrong(e, cls.model_fields) for e in error.errors())
            ) from error
        except SettingsError as error:
            raise Refused("bad-settings", not_json(str(error))) from error
        except (OSError, ValueError) as error:  # no TOML, or no text at all
            raise Refused("bad-settings", f"the settings file {toml} cannot be read: {error}") from error

    def redacted(self) -> dict[str, Any]:
        """Return the settings as they may be shown: of a secret only that it is set, no password in any URL."""
        fields = type(self).model_fields
        return {
            name: ("(set)" if value else "") if is_secret(fields[name]) else hidden(value)
            for name, value in self
        }

    def __repr_args__(self) -> Any:
        return self.redacted().items()

    @property
    def prior_sources(self) -> tuple[str, ...]:
        """Return where earlier studies are fetched from."""
        if self.priors_from is not None:
            return self.priors_from
        return (self.pacs_url,) if self.pacs_url else ()

    @property
    def input_sources(self) -> tuple[str, ...]:
        """Return where the input of workitems is fetched from."""
        return self.worklist.sources if self.worklist.sources is not None else self.prior_sources

    @property
    def sql_url(self) -> str:
        """Return the SQLAlchemy URL. Refuses `half-restored`: in the home lies what a killed restore left."""
        if (self.home / RESTORING).exists():
            sentence = (
                f"{self.home} is being made of a backup, or that was cut short: run nadir restore again"
            )
            raise Refused("half-restored", sentence)
        return self.database_url or f"sqlite:///{self.home / 'nadir.sqlite'}"
