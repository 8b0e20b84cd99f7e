"""What the doctor says of those that the node speaks to: whether they answer, and how."""

from __future__ import annotations

from collections.abc import Iterator

import httpx

from node.address import parse_destination
from node.deliveries import DeliverySettings, key_of, with_credentials, without_credentials
from node.examined import Line
from node.oidc_provider import Provider
from node.oidc_settings import OidcSettings
from node.scu import Timeouts, echo
from node.settings import Settings
from node.tls import client_context, context_to, distrust
from node.workitem_choice import installed
from plugins.errors import NadirError, Refused

PATIENCE = Timeouts(connect=3, associate=3, answer=3)


def peers(settings: Settings) -> Iterator[Line]:
    """Yield a line for each destination, archive and worklist of the settings, and for what no peer would take."""
    for text in settings.destinations:
        yield _peer("destination", text, settings, settings.delivery_of(text))
    if settings.pacs_url:
        yield _dicomweb("PACS", settings.pacs_url, settings)
    for text in settings.prior_sources:
        if text.rstrip("/") != settings.pacs_url:
            # A web source is asked with what its URL holds, never with the credentials file of a destination.
            tls = DeliverySettings(tls=settings.delivery_of(text).tls)
            yield _peer("earlier studies from", text, settings, tls)
    if any(not "!" <= character <= "~" for character in settings.hook_token):
        says = (
            "holds blanks or what is not ASCII, which Orthanc's hook refuses: openssl rand -hex 32 makes one"
        )
        yield Line(what="hook_token", ok=False, says=says, needed=False)
    if not settings.plain_dicom:
        yield from _answered_in_plain(settings)
    if settings.worklist.url:
        yield from _worklist(settings)
    if settings.oidc.is_on:
        yield _provider(settings.oidc)


def _peer(what: str, text: str, settings: Settings, own: DeliverySettings) -> Line:
    target, shown = parse_destination(text), f"{what} {key_of(text)}"
    try:
        if isinstance(target, str):
            return _dicomweb(what, with_credentials(target, own), settings)
        ae_title, host, port = target
        tls = client_context(settings) if own.tls else None
        calling_ae = settings.ae_title
        echo(ae_title=ae_title, host=host, port=port, calling_ae=calling_ae, timeouts=PATIENCE, tls=tls)
    except NadirError as error:
        return Line(what=shown, ok=False, says=str(error))
    return Line(what=shown, ok=True, says="answers C-ECHO")


def _answered_in_plain(settings: Settings) -> Iterator[Line]:
    """Tell of scanners that ask for storage commitment by TLS, as there is no plain port, and are answered without."""
    for text in settings.commitment_callers:
        if not settings.delivery_of(text).tls:
            says = f'is answered without TLS, though plain_dicom is off: set tls in [delivery."{text}"]'
            yield Line(what=f"answers to {text}", ok=False, says=says, needed=False)


def _worklist(settings: Settings) -> Iterator[Line]:
    """Tell whether the worklist answers, and of what workitems could ask for in vain."""
    try:
        yield _dicomweb("worklist", settings.worklist.address, settings, "workitems")
    except Refused as refused:
        yield Line(what="worklist", ok=False, says=str(refused))
    if not settings.input_sources:
        says = "no archive is set: only studies that were sent here can be analysed; name one in priors_from"
        yield Line(what="worklist input", ok=False, says=says, needed=False)
    known = installed(settings)
    for code, analyses in settings.worklist.codes.items():
        for name in sorted(set(analyses) - known):
            says = f"asks for analysis '{name}', which is not installed or not enabled"
            yield Line(what=f"workitem code {code}", ok=False, says=says)


def _provider(oidc: OidcSettings) -> Line:
    """Tell whether the provider that signs people in is found as the settings say; who we are there it is not asked."""
    what = f"OpenID provider {oidc.issuer}"
    try:
        keys = Provider(oidc).look()
    except NadirError as error:
        return Line(what=what, ok=False, says=str(error))
    return Line(what=what, ok=True, says=f"describes itself, and publishes {keys} keys for signatures")


def _dicomweb(what: str, url: str, settings: Settings, resource: str = "studies") -> Line:
    shown = f"{what} {without_credentials(url)}"
    try:
        judged = context_to(settings, url) or True
        with (
            httpx.Client(verify=judged, timeout=5, trust_env=False) as client,
            client.stream("GET", f"{url}/{resource}", params={"limit": 1}) as answer,
        ):
            status = answer.status_code
    except Refused as refused:
        return Line(what=shown, ok=False, says=str(refused))
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        says = distrust(error) or f"does not answer DICOMweb: {type(error).__name__}"
        return Line(what=shown, ok=False, says=says)
    says = f"answers DICOMweb with HTTP {status}"
    return Line(what=shown, ok=status < 400, says=says if status < 400 else f"{says}; check URL and password")


__all__ = ["peers"]
