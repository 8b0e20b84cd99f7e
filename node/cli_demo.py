"""The command `nadir demo`: the whole node in one go, on a phantom whose truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from node import printing


def demo(
    folder: Annotated[Path, typer.Option("--out", help="Folder for the results.")] = Path("nadir-demo"),
    data: Annotated[
        Path | None, typer.Option(help="A real folder of DICOM instead of the phantom.", show_default=False)
    ] = None,
) -> None:
    """Send a phantom with known truth through the whole node and show truth beside measurement."""
    from node.demo import run_demo

    raise typer.Exit(run_demo(folder, data=data, console=printing.console()))


__all__ = ["demo"]
