"""The settings `[oidc]`: a provider (OpenID Connect) that says who people are, beside the accounts of this node."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic_settings import NoDecode

from node.paths import MaybePath, without_tilde
from node.quantities import Whole
from node.words import Words, json_list, split_words

LOOPBACK = re.compile(r"^http://(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?(/|\Z)")
SCOPE = re.compile(r"[^,\s]+")


def _split_scopes(value: object) -> object:
    """Take `a, b` for a list, and `a b`, as OpenID Connect writes scopes."""
    if isinstance(value, str) and json_list(value) is None:
        return tuple(SCOPE.findall(value))
    return split_words(value)


Scopes = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_scopes)]


class OidcSettings(BaseModel):
    """Who else says who people are. Without `issuer` nobody does."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    issuer: str = Field(
        default="",
        description="The provider's issuer, as its ID tokens say it: https://login.example.org/realms/x",
    )
    client_id: str = Field(default="", max_length=255, description="What this node is called there")
    client_secret_file: MaybePath = Field(
        default=None,
        description="File that holds the client secret; none for a public client, which has PKCE alone",
    )
    label: str = Field(
        default="Sign in with the account of the institute",
        max_length=80,
        description="What stands on the button of the sign-in page",
    )
    role_claim: str = Field(
        default="groups",
        min_length=1,
        description="Claim that names groups or roles; a dot goes into an object: realm_access.roles",
    )
    viewers: Words = Field(default=(), description="Values of that claim that make a viewer")
    physicists: Words = Field(default=(), description="Values of that claim that make a physicist")
    administrators: Words = Field(default=(), description="Values of that claim that make an administrator")
    name_claim: str = Field(
        default="preferred_username", min_length=1, description="Claim that names a person"
    )
    scopes: Scopes = Field(
        default=("openid", "profile", "email"), description="What the provider is asked for"
    )
    skew_seconds: Whole = Field(
        default=60, ge=0, le=300, description="How far the provider's clock may be off from this node's"
    )
    ca_file: MaybePath = Field(
        default=None, description="Certificates that vouch for the provider's; the system's when not set"
    )

    _paths = field_validator("*")(without_tilde)

    @property
    def is_on(self) -> bool:
        """Return whether there is a provider."""
        return bool(self.issuer)

    @property
    def roles(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Return what makes each role, the highest first."""
        return (
            ("administrator", self.administrators),
            ("physicist", self.physicists),
            ("viewer", self.viewers),
        )

    @field_validator("issuer")
    @classmethod
    def _issuer(cls, value: str) -> str:
        if (
            (value and not (value.startswith("https://") or LOOPBACK.match(value)))
            or "?" in value
            or "#" in value
        ):
            raise ValueError("the issuer is an https URL without query; http is for this machine only")
        return value

    @field_validator("scopes")
    @classmethod
    def _scopes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(("openid", *value)))

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.issuer and not self.client_id:
            raise ValueError("an issuer needs a client_id, which its administrator gives")
        if self.issuer and not any(names for _, names in self.roles):
            raise ValueError(
                "with an issuer, say which values of role_claim make viewers, physicists or administrators; "
                "nobody gets in without"
            )
        return self


__all__ = ["OidcSettings"]
