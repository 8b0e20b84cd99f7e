"""What an ID token has to be (OpenID Connect Core 3.1.3.7), and which role its claims give. No network, no clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from plugins.errors import Refused

if TYPE_CHECKING:
    from joserfc.jwk import Key

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures by a key that only the provider has; `none` and those by a shared secret are not among them."""
LONGEST_TOKEN = 1 << 16
LONGEST_SUBJECT = 255
"""ASCII characters of a subject (OpenID Connect Core 1.0, 2)."""


class UnknownKey(Refused):
    """The key that signed is none of those that are known: the provider may have a new one."""

    def __init__(self) -> None:
        super().__init__(
            "bad-id-token", "the provider's answer is signed with a key that it does not publish"
        )


def verified(
    token: str,
    keys: Mapping[str, Any],
    *,
    issuer: str,
    client_id: str,
    nonce: str,
    now: float,
    skew_seconds: int,
) -> Mapping[str, Any]:
    """Return the claims of an ID token that the issuer made for us, for this sign-in, and that is in its time.

    `keys` is a JWK set, `now` in seconds since 1970. Refuses `bad-id-token`; raises `UnknownKey`.
    """
    from joserfc import jwt
    from joserfc.errors import JoseError

    claims = _signed_claims(token, keys)
    required = jwt.JWTClaimsRegistry(
        now=int(now),
        leeway=skew_seconds,
        iss={"essential": True, "value": issuer},
        aud={"essential": True, "value": client_id},
        sub={"essential": True},
        exp={"essential": True},
        iat={"essential": True},
        nonce={"essential": True, "value": nonce},
    )
    try:
        required.validate(claims)
    except JoseError as error:
        raise Refused(
            "bad-id-token", f"the provider's answer is not for this sign-in ({_name(error)})"
        ) from error
    several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
    if claims.get("azp", None if several else client_id) != client_id:
        raise Refused("bad-id-token", "the provider's answer is for another program (azp)")
    subject = claims["sub"]
    if not isinstance(subject, str) or not subject.isascii() or not 0 < len(subject) <= LONGEST_SUBJECT:
        sentence = (
            f"the provider's answer names nobody: sub has to be 1 to {LONGEST_SUBJECT} ASCII characters"
        )
        raise Refused("bad-id-token", sentence)
    return claims


def _signed_claims(token: str, keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a token claims whose signature is of one of the keys, whomever and whenever it is for."""
    from joserfc import jwt
    from joserfc.errors import BadSignatureError, InvalidKeyIdError, JoseError
    from joserfc.jwk import KeySet
    from joserfc.jws import extract_compact

    if len(token) > LONGEST_TOKEN:
        raise Refused("bad-id-token", "the provider's answer is too long")
    known = _signing(keys)
    if not known:
        raise UnknownKey
    try:
        claims: dict[str, Any] = jwt.decode(token, KeySet(known), algorithms=ALGORITHMS).claims
    except (InvalidKeyIdError, KeyError) as error:
        raise UnknownKey from error
    except (JoseError, ValueError, TypeError) as error:
        # A provider with one key need not say which it is: then a new one shows only by its signature.
        if isinstance(error, BadSignatureError) and not extract_compact(token.encode()).headers().get("kid"):
            raise UnknownKey from error
        raise Refused(
            "bad-id-token", f"the provider's answer is not signed as it has to be ({_name(error)})"
        ) from error
    return claims


def usable(keys: Mapping[str, Any]) -> int:
    """Return how many keys of a JWK set, of those that this node can read, may sign an ID token."""
    return len(_signing(keys))


def _signing(keys: Mapping[str, Any]) -> list[Key]:
    listed = keys.get("keys")
    signing = [_read(key) for key in listed if _may_sign(key)] if isinstance(listed, list) else []
    return [key for key in signing if key is not None]


def _read(key: dict[str, Any]) -> Key | None:
    """Return a published key; None for one that is not understood or is half there: it counts as none (RFC 7517, 5)."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from joserfc.errors import JoseError
    from joserfc.jwk import JWKRegistry

    try:
        read = JWKRegistry.import_key(key)
        read.ensure_kid()
    except (JoseError, UnsupportedAlgorithm, LookupError, ValueError, TypeError):
        return None
    return read


def _may_sign(key: object) -> bool:
    """Return whether a published key is one for signatures, of a kind that has a private part of its own."""
    return isinstance(key, dict) and key.get("kty") in ("RSA", "EC", "OKP") and key.get("use", "sig") == "sig"


def _name(error: Exception) -> str:
    """Return what is wrong in a word or two: never what was sent."""
    claim = getattr(error, "claim", None)
    return str(claim or getattr(error, "error", None) or type(error).__name__)


def claim(claims: Mapping[str, Any], name: str) -> Any:
    """Return a claim; a dot goes into an object, unless a claim is called so as a whole. None when it is not there."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def role(said: object, roles: Sequence[tuple[str, Sequence[str]]]) -> str | None:
    """Return the highest role that the values of a claim give; None when they give none. `roles` from the highest.

    A string is one value, whatever stands in it: names of groups may hold blanks and commas.
    """
    listed = said if isinstance(said, list) else [said]
    values = {one for one in listed if isinstance(one, str)}
    return next((name for name, wanted in roles if values.intersection(wanted)), None)


__all__ = ["ALGORITHMS", "UnknownKey", "claim", "role", "usable", "verified"]
