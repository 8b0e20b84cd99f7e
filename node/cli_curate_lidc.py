"""The command `nadir curate lidc`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from node import printing
from node.cli_curate import Margin, Name, Out, shown
from node.cli_options import AsJson

if TYPE_CHECKING:
    from training.curate.lidc_folder import Curated


def lidc(
    xml_folder: Annotated[Path, typer.Argument(help="Folder of the XML files, or one of them.", exists=True)],
    out: Out,
    dicom: Annotated[
        Path | None,
        typer.Option(help="Folder of the CT series.", show_default=False, exists=True, file_okay=False),
    ] = None,
    json_only: Annotated[
        bool, typer.Option("--json-only", help="Only what the XML files say, as JSON; no images are needed.")
    ] = False,
    readers: Annotated[
        int, typer.Option(min=1, max=4, help="Only nodules that at least so many readers outlined.")
    ] = 1,
    name: Name = None,
    margin_mm: Margin = 20.0,
    as_json: AsJson = False,
) -> None:
    """Readings of LIDC-IDRI to cases: for each nodule the image, what half of its readers drew, and each reader's mask.

    Outlines are put on the images that they name; they are joined to nodules, and become masks, by pylidc's rules.
    Marks of less than 3 mm and things that are no nodules are kept as points in marks.json.
    """
    from training.curate.lidc_folder import Curated, curate_lidc, read_folder, write_json

    if dicom is None and not json_only:
        raise typer.BadParameter("give the folder of the CT series, or --json-only", param_hint="--dicom")
    readings = read_folder(xml_folder)
    curated = Curated(readings=readings)
    if json_only:
        write_json(readings, out)
    elif dicom is not None and readings.by_series:
        with shown() as tell:
            curated = curate_lidc(
                readings,
                dicom,
                out,
                name=name or out.name,
                margin_mm=margin_mm,
                least_readers=readers,
                tell=tell,
            )
    if as_json:
        printing.print_json({"folder": str(out), **curated.plain()})
    else:
        _print(curated, out)
    if not readings.by_series:
        printing.complain("nadir: no file is a reading of a CT; each reason is told above")
    if readings.refused or not readings.by_series or (curated.manifest is None and not json_only):
        raise typer.Exit(1)


def _print(curated: Curated, folder: Path) -> None:
    readings = curated.readings
    printing.say(f"{len(readings.by_series)} readings in {folder / 'json'}")
    for code, count in sorted(Counter(flag.code for flag in readings.passed_over).items()):
        printing.say(f"{count} files passed over ({code})")
    if curated.without_series:
        printing.say(f"{len(curated.without_series)} readings without their series: these are not here")
    if curated.manifest is not None:
        cases = curated.manifest.cases
        patients = len({case.patient_id for case in cases})
        printing.say(f"{len(cases)} cases of {patients} patients from {curated.nodules} nodules")
        printing.say(f"written: {folder / 'manifest.json'}, sha256 {curated.manifest.sha256}")
    first = {flag.code: flag for flag in reversed(curated.left_out)}
    for code, count in sorted(Counter(flag.code for flag in curated.left_out).items()):
        printing.complain(f"nadir: left out: {count}, the first: {first[code].sentence} ({code})")
    for flag in readings.refused:
        printing.complain(f"nadir: refused: {flag.sentence} ({flag.code})")
