"""The command `nadir segment`: a person clicked here, draw the lesion."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from node import printing
from node.cli_options import AsJson, Config, HomeOfModels, models_of

AT = typer.Option("--at", help="A point in the lesion: X,Y,Z in mm, LPS (repeatable).", show_default=False)
BOX = typer.Option(
    "--box", help="A box around it: X0,Y0,Z0,X1,Y1,Z1 in mm, LPS (repeatable).", show_default=False
)


def segment(
    path: Annotated[Path, typer.Argument(help="A folder of DICOM with a CT, or a NIfTI of a CT in HU.")],
    out: Annotated[Path, typer.Option("--out", help="Where the mask goes: MASK.nii.gz.")],
    at: Annotated[list[str] | None, AT] = None,
    box: Annotated[list[str] | None, BOX] = None,
    segmenter: Annotated[
        str, typer.Option(help="What draws: learned, classical, or the best that can run here.")
    ] = "best",
    home: HomeOfModels = None,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Draw the lesion at each point of a CT, measure it with its uncertainty, and write the masks as labels 1, 2, ...

    Points come before boxes. The networks learned from lung nodules; elsewhere they guess. Sizes and 90 % intervals are
    those of what several readers draw together (their union): more than the edge at half density, of small balls up to
    40 % in volume, and 1 to 3 mm in the long axis.
    """
    from node.points import numbers_of, point_of
    from node.segment import Asked
    from node.segment import segment as run
    from plugins.errors import Refused
    from plugins.nodule_drawing import SEGMENTERS, choose

    which = next((name for name in SEGMENTERS if name == segmenter), None)
    if which is None:
        raise Refused("bad-segmenter", f"--segmenter is one of {', '.join(SEGMENTERS)}, not '{segmenter}'")
    asked = [Asked(point_mm=point_of(text)) for text in at or ()]
    asked += [Asked.box(numbers_of(text, 6, "--box")) for text in box or ()]
    report = run(path, out, asked, choose(which, models=models_of(home, config)))
    if as_json:
        printing.print_json(report)
        return
    for lesion in report["lesions"]:
        printing.say(f"{lesion['label']}: {_line(lesion)}")
    printing.say(report["mask"])
    model = report["model"]
    printing.say(f"{model['name']} {model['version']} ({model['sha256'][:12]}), {model['runtime']}")
    for where in (report, *report["lesions"]):
        for warning in where["warnings"]:
            label = f"{where['label']}: " if "label" in where else ""
            printing.complain(f"nadir: {label}{warning['sentence']} ({warning['code']})")


def _line(lesion: dict[str, Any]) -> str:
    if not lesion["found"]:
        return "nothing was drawn"
    parts = []
    for name, unit in (("volume", "ml"), ("long_axis", "mm"), ("short_axis", "mm")):
        value, interval = lesion[f"{name}_{unit}"], lesion[f"{name}_interval_{unit}"]
        between = ""
        if interval is not None and None not in interval:
            between = f" ({interval[0]:.3g} to {interval[1]:.3g})"
        parts.append(f"{name.replace('_', ' ')} {value:.3g}{between} {unit}")
    if lesion["uncertainty"] is not None:
        parts.append(f"uncertainty {lesion['uncertainty']['entropy']:.2f}")
    return ", ".join(parts)


__all__ = ["segment"]
