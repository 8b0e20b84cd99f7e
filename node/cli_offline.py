"""The commands that analyse and measure files, without a node: `nadir analyse` and `nadir measure`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from node import printing
from node.cli_options import AsJson, Config, HomeOfModels, end, models_of
from node.flags import load_settings

Plugins = Annotated[
    list[str] | None, typer.Option("--plugin", help="Only this analysis (repeatable).", show_default=False)
]


def analyse(
    path: Annotated[
        Path, typer.Argument(help="A folder of DICOM files (one or several studies), or a file.")
    ],
    folder: Annotated[Path, typer.Option("--out", help="Folder for SEG, SR, pictures, CSV and page.")],
    plugin: Plugins = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            help="Also key images or a report as DICOM objects: capture, pdf (repeatable).",
            show_default=False,
        ),
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(
            help="A point X,Y,Z in mm, LPS, at which a lesion is to be drawn (repeatable); then only that is done.",
            show_default=False,
        ),
    ] = None,
    prior: Annotated[
        Path | None,
        typer.Option(
            help="A folder with earlier studies of the patient and their results: lesions keep their identity.",
            show_default=False,
        ),
    ] = None,
    home: HomeOfModels = None,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Analyse a folder of DICOM as the node would, with files instead of the network.

    Results of an earlier run in the same folder are written over; nothing is deleted. Of several studies each has
    a folder of its own there. The exit status is 0 when every study has a result. The models are those of the release,
    or those that count in the node that --home, the settings file or the environment names.
    """
    settings = load_settings(config, {"home": home})
    from node.offline import analyse_folder
    from node.points import point_of

    how: dict[str, Any] = {
        "marks": [point_of(text) for text in at or ()],
        "prior": prior,
        "models": models_of(home, config),
    }
    with printing.busy("analysing"):
        report = analyse_folder(path, folder, settings, plugins=plugin, also=also or (), **how)
    _show(report, as_json)


def measure(
    path: Annotated[Path, typer.Argument(help="The folder of DICOM images.")],
    mask: Annotated[Path, typer.Option("--mask", help="SEG, RTSTRUCT or NIfTI label image on those images.")],
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Measure the regions of a mask on the images that they were drawn on."""
    settings = load_settings(config, {})
    from node.offline import measure_mask

    with printing.busy("measuring"):
        report = measure_mask(path, mask, settings)
    _show(report, as_json)


def _show(report: dict[str, Any], as_json: bool) -> None:
    if as_json:
        printing.print_json(report)
    else:
        printing.print_report(report)
    if report["failed"] or not as_json:
        printing.print_refused(report)
    end(ok=not report["failed"])


__all__ = ["analyse", "measure"]
