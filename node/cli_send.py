"""The command `nadir send`: files to another system, as a scanner sends them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from node import printing
from node.cli_options import AsJson, Config, TlsFile, end
from node.flags import load_settings


def send(
    path: Annotated[Path, typer.Argument(help="A DICOM file or a folder of them.")],
    to: Annotated[str, typer.Option("--to", help="AE@host:port.")],
    calling_ae: Annotated[str, typer.Option(help="Our AE title.")] = "NADIR",
    associations: Annotated[int, typer.Option(min=1, max=64, help="Associations at one time.")] = 1,
    by_tls: Annotated[bool, typer.Option("--tls", help="By TLS, as the tls_ settings say.")] = False,
    tls_certificate: TlsFile = None,
    tls_key: TlsFile = None,
    tls_ca: TlsFile = None,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Send DICOM files by C-STORE as they are, and check the status of each.

    Files in a folder that are not DICOM are passed over.
    """
    from node.send import send_folder
    from node.tls import client_context

    files = {"tls_certificate": tls_certificate, "tls_key": tls_key, "tls_ca": tls_ca}
    tls = client_context(load_settings(config, files)) if by_tls else None
    with printing.busy("sending"):
        sent = send_folder(path, to, calling_ae=calling_ae, associations=associations, tls=tls)
    if as_json:
        printing.print_json(sent)
    else:
        if sent["passed_over"]:
            printing.complain(f"nadir: {len(sent['passed_over'])} files that are not DICOM were passed over")
        for failed in sent["failed"]:
            printing.complain(f"nadir: {failed['file']}: {failed['reason']}")
        printing.say(f"{sent['sent']} of {sent['sent'] + len(sent['failed'])} sent to {to}")
    end(ok=not sent["failed"])


__all__ = ["send"]
