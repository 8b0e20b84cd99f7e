"""The settings of one destination: what goes there, in which encoding, how fast, and how it is proved to be kept."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, field_validator

from node.address import AE, WEB_ADDRESS
from node.paths import MaybePath, without_tilde
from node.quantities import MOST, MOST_SECONDS, Number, Seconds
from node.secrets import read_secret
from node.status import is_stored
from node.words import Words
from plugins.errors import Refused
from store.keys import destination_key as key_of
from store.keys import without_credentials

USUAL_KINDS = ("seg", "sr-volumetric", "sr-planar", "sr-response", "pdf-response")
MORE_KINDS = ("capture", "pdf")
"""Kinds of result that people only look at, made when they are asked for."""
KINDS = (*USUAL_KINDS, *MORE_KINDS)
EXPLICIT_LITTLE, IMPLICIT_LITTLE = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
SYNTAXES = {"explicit": EXPLICIT_LITTLE, "implicit": IMPLICIT_LITTLE}
"""The transfer syntaxes that a result can be written in, by the names that settings use."""
REPORTER = re.compile(rf"{AE}@[^@\s]+")
STATUS = re.compile(r"0x[0-9A-Fa-f]{4}")


class DeliverySettings(BaseModel):
    """What is particular to one destination. The defaults suit a PACS that keeps to the standard.

    Of a DICOM peer that is called and is no destination only `tls` counts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    results: Words = Field(
        default=USUAL_KINDS, description="Kinds of result that go there: " + ", ".join(KINDS)
    )
    transfer_syntaxes: Words = Field(
        default=("explicit", "implicit"),
        description="Encodings offered, the best first: explicit, implicit (VR Little Endian)",
    )
    commitment: Literal["auto", "query", "off"] = Field(
        default="auto",
        description="How it is proved that a result is kept: auto (storage commitment, else a query), query, off",
    )
    confirm_seconds: Seconds = Field(
        default=10.0, ge=0, description="How long after a delivery that is asked first"
    )
    reported_by: Words = Field(
        default=(),
        description="Who else may report storage commitment for it: AE@address, when it is not its own AE and host",
    )
    retry_statuses: Words = Field(
        default=(), description="Failure statuses after which the same bytes are sent again for a week"
    )
    park_statuses: Words = Field(
        default=(), description="Failure statuses that are refusals: three attempts, then a person must look"
    )
    max_per_minute: Number = Field(
        default=0.0, ge=0, le=MOST, description="Objects sent a minute; 0 for no limit"
    )
    credentials_file: MaybePath = Field(
        default=None, description="File that holds user:password for a DICOMweb destination"
    )
    tls: bool = Field(default=False, description="DICOM over TLS; of a DICOMweb root https:// says it")

    _paths = field_validator("*")(without_tilde)

    @field_validator("results")
    @classmethod
    def _kinds(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for kind in value:
            if kind not in KINDS:
                raise ValueError(f"'{kind}' is no kind of result: use some of {', '.join(KINDS)}")
        return value

    @field_validator("transfer_syntaxes")
    @classmethod
    def _syntaxes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        uids = tuple(dict.fromkeys(SYNTAXES.get(name, name) for name in value))
        for uid in uids:
            if uid not in SYNTAXES.values():
                raise ValueError(f"results cannot be written in '{uid}': use explicit and implicit")
        if not uids:
            raise ValueError("name at least one transfer syntax: explicit or implicit")
        return uids

    @field_validator("reported_by")
    @classmethod
    def _reporters(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            if not REPORTER.fullmatch(text):
                raise ValueError(f"'{text}' is nobody who may report: write AE@address")
        return value

    @field_validator("retry_statuses", "park_statuses")
    @classmethod
    def _statuses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for status in value:
            if not STATUS.fullmatch(status):
                raise ValueError(f"'{status}' is not a failure status: write it as 0xC000")
            if is_stored(int(status, 16)):
                raise ValueError(
                    f"'{status}' says that the object is stored: it stays delivered, take it out"
                )
        return value

    @property
    def pause_seconds(self) -> float:
        """Return the least time between two objects."""
        return min(60.0 / self.max_per_minute, MOST_SECONDS) if self.max_per_minute else 0.0


def with_credentials(address: str, settings: DeliverySettings) -> str:
    """Return the address to speak to: a DICOMweb URL with what `credentials_file` holds.

    Refuses `bad-secret-file` when everybody may read that file, `bad-credentials` when it holds no `user:password`.
    """
    path = settings.credentials_file
    if path is None:
        return address
    user, colon, password = read_secret(path, f"the credentials of {key_of(address)}").partition(":")
    if not (user and colon and password):
        raise Refused("bad-credentials", f"the credentials file {path} does not hold user:password")
    bare = without_credentials(address)
    return bare.replace("//", f"//{quote(user, safe='')}:{quote(password, safe='')}@", 1)


def taking(
    destinations: tuple[str, ...], deliveries: Mapping[str, DeliverySettings], kind: str
) -> tuple[str, ...]:
    """Return the keys of the destinations that a result of this kind goes to."""
    keys = dict.fromkeys(map(key_of, destinations))
    return tuple(key for key in keys if kind in deliveries.get(key, DeliverySettings()).results)


def require_known(
    deliveries: Mapping[str, DeliverySettings], destinations: Iterable[str], others: Iterable[str]
) -> None:
    """Return when these settings are those of peers that are called; `others` are no destinations, or may be.

    Raises ValueError: a name that is spelt wrong would leave the real peer without its TLS, say, and so would `tls`
    of a plain http:// root.
    """
    known, usual = set(map(key_of, destinations)), dict(DeliverySettings())
    called = {key_of(text) for text in others if not WEB_ADDRESS.fullmatch(text)}
    for name, own in deliveries.items():
        if name in known:
            if own.tls and name.startswith("http://"):
                raise ValueError(
                    f"delivery: '{name}' is asked without TLS, though it has tls: write https://"
                )
            continue
        if name not in called:
            where = "no DICOM peer of priors_from, worklist.sources or commitment_callers"
            raise ValueError(f"delivery: '{name}' is none of the destinations, and {where}")
        if vain := [field for field, value in own if field != "tls" and value != usual[field]]:
            raise ValueError(f"delivery: '{name}' is no destination: it can have tls, not {', '.join(vain)}")


__all__ = [
    "KINDS",
    "MORE_KINDS",
    "DeliverySettings",
    "key_of",
    "require_known",
    "taking",
    "with_credentials",
    "without_credentials",
]
