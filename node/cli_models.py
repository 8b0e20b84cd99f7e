"""The command `nadir models ...`: files of learned models, before any of them is loaded."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from node import printing
from node.cli_options import AsJson

models_app = typer.Typer(help="Files of learned models.", no_args_is_help=True)


@models_app.command("verify")
def models_verify(
    folder: Annotated[Path, typer.Argument(help="Folder of one model, with its manifest.json.")],
    trust: Annotated[
        list[str],
        typer.Option(help="sha256 of a manifest that you vouch for (repeatable).", show_default=False),
    ],
    as_json: AsJson = False,
) -> None:
    """Hold every file of a model against its manifest, and the manifest against what you vouch for; load nothing."""
    from models.files import BadModel, verify
    from plugins.errors import Refused

    try:
        manifest = verify(folder, trust, datetime.now(UTC).date())
    except BadModel as bad:
        raise Refused(bad.code, bad.sentence) from bad
    if as_json:
        printing.print_json({"name": manifest.name, "version": manifest.version, "sha256": manifest.sha256})
    else:
        printing.say(f"{manifest.name} {manifest.version}: {len(manifest.files)} files as the manifest says")


@models_app.command("hash")
def models_hash(
    folder: Annotated[Path, typer.Argument(help="Folder of a MONAI bundle, an nnU-Net or other model.")],
    as_json: AsJson = False,
) -> None:
    """Tell the sha256 of a folder, for the setting `trusted` of an adapter; nothing in it is run."""
    from models.files import BadModel
    from models.tree import tree_sha256
    from plugins.errors import Refused

    try:
        sha256 = tree_sha256(folder)
    except BadModel as bad:
        raise Refused(bad.code, bad.sentence) from bad
    if as_json:
        printing.print_json({"folder": str(folder), "sha256": sha256})
    else:
        printing.say(sha256)
