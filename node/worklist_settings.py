"""The settings `[worklist]`: which worklist of the PACS drives this node, and which of its workitems are for it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from node.address import web_root
from node.deliveries import DeliverySettings, with_credentials, without_credentials
from node.paths import MaybePath, without_tilde
from node.quantities import Count, Seconds
from node.words import Words
from plugins.private_scheme import PRIVATE_SCHEME

EVENTS_ADDRESS = re.compile(r"wss?://[^\s/@:]+(:[0-9]{1,5})?")
CODE = re.compile(r"[^:\s]{1,16}:[^\s]{1,64}")
STATION = re.compile(r"[\x21-\x5b\x5d-\x7e]{1,16}")


class WorklistSettings(BaseModel):
    """Which tasks of a UPS-RS worklist are claimed. Without `url` none are."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    url: str = Field(
        default="", description="DICOMweb root whose /workitems is the worklist (UPS-RS); empty for none"
    )
    credentials_file: MaybePath = Field(
        default=None, description="File that holds user:password for the worklist"
    )
    seconds: Seconds = Field(
        default=15.0, gt=0, description="How often the worklist is asked, and told of progress"
    )
    labels: Words = Field(
        default=(), description="Only workitems with one of these Worklist Labels; empty for all"
    )
    station: str = Field(
        default="", description="Our name as a station, at most 16 characters; the AE title when empty"
    )
    codes: dict[str, Words] = Field(
        default_factory=dict,
        description=f"Analyses by workitem code, SCHEME:VALUE; {PRIVATE_SCHEME}:NAME is always the analysis NAME",
    )
    unknown: Literal["leave", "refuse"] = Field(
        default="leave",
        description="What becomes of workitems with other codes: leave them to others, or claim and cancel them",
    )
    sources: Words | None = Field(
        default=None,
        description="Where input is fetched from, and nowhere else: AE@host:port or DICOMweb roots; as priors_from "
        "when not given",
    )
    at_once: Count = Field(
        default=4, ge=1, description="Workitems that are held at one time; others are left to others"
    )
    events: bool = Field(
        default=True, description="Subscribe to what is claimed, so that a request to cancel it is heard"
    )
    events_url: str = Field(
        default="",
        description="Where its events come from when that is not the scheme, host and port of url: ws(s)://HOST:PORT",
    )
    triggered: bool = Field(
        default=False,
        description="Subscribe to the whole worklist too, so that what is new is claimed at once",
    )

    _paths = field_validator("*")(without_tilde)

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        root = web_root(value) if value else ""
        if root != without_credentials(root):
            raise ValueError("user and password belong into the file that credentials_file names")
        return root.removesuffix("/workitems")

    @field_validator("events_url")
    @classmethod
    def _events_url(cls, value: str) -> str:
        if value and not EVENTS_ADDRESS.fullmatch(value):
            raise ValueError("it is not ws://HOST:PORT or wss://HOST:PORT")
        return value

    @field_validator("station")
    @classmethod
    def _station(cls, value: str) -> str:
        if value and not STATION.fullmatch(value):
            raise ValueError("a station has 1 to 16 printable characters, no blank and no backslash")
        return value

    @field_validator("codes")
    @classmethod
    def _codes(cls, value: Mapping[str, tuple[str, ...]]) -> Mapping[str, tuple[str, ...]]:
        for key, plugins in value.items():
            if not CODE.fullmatch(key):
                raise ValueError(f"'{key}' is no code: write SCHEME:VALUE")
            if not plugins:
                raise ValueError(f"'{key}' asks for no analysis: name at least one")
        return value

    @property
    def address(self) -> str:
        """Return the address to speak to. Refuses as `node.deliveries.with_credentials`."""
        return with_credentials(self.url, DeliverySettings(credentials_file=self.credentials_file))


__all__ = ["WorklistSettings"]
