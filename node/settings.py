"""Every setting of the node, typed, from one TOML file, the environment (`NADIR_...`) and flags, in rising order."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from plugins.errors import Refused

AE_ADDRESS = re.compile(r"^(?P<ae>[^@\s]{1,16})@(?P<host>[^:@\s]+|\[[0-9A-Fa-f:]+\]):(?P<port>\d{1,5})$")
WEB_ADDRESS = re.compile(r"^https?://[^\s]+$")


class Settings(BaseSettings):
    """The settings of one node. Made once, in the command line, and passed down."""

    model_config = SettingsConfigDict(env_prefix="NADIR_", extra="forbid", frozen=True, validate_default=True)

    home: Path = Field(default_factory=lambda: Path.home() / ".nadir", description="Folder for bytes, SQL and temporary files")
    database_url: str = Field(default="", description="SQLAlchemy URL; empty for SQLite in the home folder")
    ae_title: str = Field(default="NADIR", pattern=r"^[\x21-\x5b\x5d-\x7e]{1,16}$", description="AE title of this node")
    dicom_host: str = Field(default="0.0.0.0", description="Address that the DICOM port listens on")  # noqa: S104
    dicom_port: int = Field(default=11112, ge=0, le=65535, description="DICOM port; 0 for any free one")
    http_host: str = Field(default="127.0.0.1", description="Address that the HTTP port listens on")
    http_port: int = Field(default=8080, ge=0, le=65535, description="HTTP port; 0 for any free one")
    callers: tuple[str, ...] = Field(default=(), description="Who may send: AE, AE@address or *@address")
    accept_any: bool = Field(default=False, description="Accept every calling and called AE title from everywhere")
    destinations: tuple[str, ...] = Field(default=(), description="Where results go: AE@host:port or a DICOMweb URL")
    pacs_url: str = Field(default="", description="DICOMweb root of the PACS that studies are pulled from")
    hook_token: str = Field(default="", description="Shared secret that Orthanc's hook must present; empty: loopback only")
    reconcile_seconds: float = Field(default=300.0, ge=0, description="How often the PACS is asked for missed studies; 0: never")
    reconcile_days: int = Field(default=3, ge=1, description="How far back that question goes")
    quiet_seconds: float = Field(default=60.0, ge=0, description="Quiet time after which a study is whole")
    hard_cap_seconds: float = Field(default=5400.0, gt=0, description="A study settles at the latest after this long")
    max_associations: int = Field(default=50, ge=1, description="Associations served at one time")
    max_object_bytes: int = Field(default=8 << 30, gt=0, description="Largest object that is accepted")
    reserve_bytes: int = Field(default=256 << 20, ge=0, description="Free disk below which nothing is accepted")
    workers: int = Field(default=1, ge=1, description="Jobs that run at one time")
    job_memory_bytes: int = Field(default=8 << 30, gt=0, description="Address space of one job")
    job_seconds: float = Field(default=3600.0, gt=0, description="Wall time of one job")
    max_attempts: int = Field(default=5, ge=1, description="Attempts before a job is dead")
    plugins: dict[str, dict[str, Any]] = Field(default_factory=dict, description="Settings of each plugin, by its name")
    enabled: tuple[str, ...] | None = Field(default=None, description="Plugins that run; all when not given")
    log_level: str = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR")

    @field_validator("destinations")
    @classmethod
    def _destinations(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            parse_destination(text)
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags before environment; the TOML file comes in through `load`."""
        return (init_settings, env_settings)

    @classmethod
    def load(cls, toml: Path | None = None, **flags: Any) -> Self:
        """Return the settings: TOML, then environment, then flags that are not None. Refuses `bad-settings`."""
        raise Refused("bad-settings", "not written yet")

    @property
    def sql_url(self) -> str:
        """Return the SQLAlchemy URL."""
        return self.database_url or f"sqlite:///{self.home / 'nadir.sqlite'}"


def parse_destination(text: str) -> tuple[str, str, int] | str:
    """Return (AE title, host, port) of `AE@host:port`, or the text itself for a DICOMweb URL. Raises ValueError."""
    if WEB_ADDRESS.match(text):
        return text.rstrip("/")
    match = AE_ADDRESS.match(text)
    if match is None or not 0 < int(match["port"]) < 65536:
        raise ValueError(f"'{text}' is not a destination: write AE@host:port or an http(s) URL of a DICOMweb root")
    return match["ae"], match["host"].strip("[]"), int(match["port"])


__all__ = ["Settings", "parse_destination", "tomllib", "ValidationError"]
