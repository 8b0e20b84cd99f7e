"""The commands `nadir curate ...`: what others drew, brought into the form that models learn from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node import printing
from node.cli_options import AsJson
from plugins.errors import Refused

if TYPE_CHECKING:
    from training.curate.curation import Curation
    from training.curate.wanted import Wanted

curate_app = typer.Typer(
    help="Data sets to learn from: fetched, made, divided, looked at.", no_args_is_help=True
)

Source = Annotated[Path, typer.Argument(help="Folder of the files; the folders in it as well.")]
Out = Annotated[Path, typer.Option("--out", help="Folder for the data set; it must not hold one yet.")]
Name = Annotated[
    str | None, typer.Option("--name", help="Name of the data set; that of its folder by default.")
]
Regions = Annotated[
    list[str] | None,
    typer.Option(
        "--region",
        help="Only regions whose name or type is like this, as GTV* (repeatable).",
        show_default=False,
    ),
]
Without = Annotated[
    list[str] | None,
    typer.Option(help="No regions whose name or type is like this (repeatable).", show_default=False),
]
Modality = Annotated[
    str, typer.Option(help="Images that were drawn on: CT (in HU), PT (in SUV) or MR (as they are).")
]
Margin = Annotated[float, typer.Option("--margin", min=0, max=500, help="Image around each region, mm.")]
Apart = Annotated[
    bool, typer.Option("--apart", help="Each connected piece of a region is a case of its own.")
]
Hashed = Annotated[
    bool,
    typer.Option(
        "--hashed", help="Name patients by a hash, not by their PatientID; no report is left there."
    ),
]


@curate_app.command()
def rtstruct(
    source: Source,
    out: Out,
    name: Name = None,
    region: Regions = None,
    without: Without = None,
    modality: Modality = "CT",
    margin_mm: Margin = 20.0,
    apart: Apart = False,
    hashed: Hashed = False,
    as_json: AsJson = False,
) -> None:
    """RTSTRUCTs and their images to cases: one for each region, on the images that its contours name."""
    wanted = _wanted(region, without, modality, margin_mm, apart, hashed)
    _regions(source, out, "RTSTRUCT", wanted, name, as_json)


@curate_app.command()
def seg(
    source: Source,
    out: Out,
    name: Name = None,
    region: Regions = None,
    without: Without = None,
    modality: Modality = "CT",
    margin_mm: Margin = 20.0,
    apart: Apart = False,
    hashed: Hashed = False,
    as_json: AsJson = False,
) -> None:
    """DICOM SEGs and their images to cases: one for each segment. Nadir's own results are left out."""
    wanted = _wanted(region, without, modality, margin_mm, apart, hashed)
    _regions(source, out, "SEG", wanted, name, as_json)


@curate_app.command()
def nifti(
    source: Source,
    out: Out,
    table: Annotated[
        Path | None,
        typer.Option(
            help="CSV with the columns image, mask, patient; others become tags, but for what the files themselves "
            "tell (as spacing_z_mm, label). Paths are relative to the folder.",
            show_default=False,
        ),
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(help="How images are named, as 'imagesTr/{patient}_0000.nii.gz'.", show_default=False),
    ] = None,
    masks: Annotated[
        str | None,
        typer.Option(help="How masks are named, as 'labelsTr/{patient}.nii.gz'.", show_default=False),
    ] = None,
    label: Annotated[
        list[int] | None, typer.Option(help="Only this label (repeatable).", show_default=False)
    ] = None,
    name: Name = None,
    modality: Modality = "CT",
    margin_mm: Margin = 20.0,
    apart: Apart = False,
    hashed: Hashed = False,
    as_json: AsJson = False,
) -> None:
    """NIfTI images and masks to cases: one for each label of each mask.

    Say with --table, or with --images and --masks, which belong together and to whom: places such as {patient} and
    {scan} have to hold the same in both names, and {patient} is the patient.
    """
    from training.curate.nifti import Names, curate_nifti, pairs_by_name, pairs_of_table

    wanted = _wanted(None, None, modality, margin_mm, apart, hashed)
    if (table is None) == (images is None) or (images is None) != (masks is None):
        raise typer.BadParameter("give --table, or --images and --masks")
    if table is not None:
        pairs, left_out = pairs_of_table(source, table)
    else:
        pairs, left_out = pairs_by_name(source, Names(image=images or "", mask=masks or ""))
    with shown() as tell:
        found = curate_nifti(
            source, out, pairs, wanted, name or out.name, labels=label or (), left_out=left_out, tell=tell
        )
    _told(found, as_json)


@curate_app.command("split")
def divide(
    folder: Annotated[Path, typer.Argument(help="Folder of the data set.")],
    shares: Annotated[
        str, typer.Option(help="Parts of the patients for train, validation and test.")
    ] = "0.7,0.15,0.15",
    seed: Annotated[int, typer.Option(help="Seed of the sides.")] = 0,
    by: Annotated[
        list[str] | None,
        typer.Option(
            help="A tag to stratify by, beside the size, as scanner (repeatable).", show_default=False
        ),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(help="An earlier split.json: who is in it keeps his side.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Divide the patients of a data set into train, validation and test, once and for all: split.json."""
    from training.curate.outline import outline
    from training.evaluate.data import manifest_of
    from training.split import SPLIT, read_earlier, split

    manifest, place = manifest_of(folder)
    path = place / SPLIT
    if path.exists() and keep is None:
        raise Refused("split-there", f"{path} is there already; --keep {path} makes it anew and moves nobody")
    earlier = None if keep is None else read_earlier(keep)
    made = split(manifest, _shares(shares), seed, by=by or (), earlier=earlier)
    made.write(path)
    for side in made.empty:
        printing.complain(f"nadir: nobody is on the side {side}: {len(made.sides)} patients are few for that")
    _tell(outline(folder), as_json)


@curate_app.command()
def show(
    folder: Annotated[Path, typer.Argument(help="Folder of a data set, or its manifest.")],
    as_json: AsJson = False,
) -> None:
    """Tell what a data set holds: cases, patients, folds, sides of its split, sizes, scanners."""
    from training.curate.outline import outline

    _tell(outline(folder), as_json)


def _wanted(
    regions: list[str] | None,
    without: list[str] | None,
    modality: str,
    margin_mm: float,
    apart: bool,
    hashed: bool,
) -> Wanted:
    from training.curate.wanted import Wanted

    return Wanted(
        regions=tuple(regions or ()),
        without=tuple(without or ()),
        modality=modality.upper(),
        margin_mm=margin_mm,
        apart=apart,
        hashed=hashed,
    )


def _regions(source: Path, out: Path, kind: str, wanted: Wanted, name: str | None, as_json: bool) -> None:
    from training.curate.regions import curate_regions

    with shown() as tell:
        found = curate_regions(source, out, kind, wanted, name or out.name, tell)
    _told(found, as_json)


def _shares(text: str) -> tuple[float, float, float]:
    try:
        train, validation, test = (float(word) for word in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(
            f"'{text}' is not three numbers with commas, as 0.7,0.15,0.15", param_hint="--shares"
        ) from error
    return train, validation, test


@contextmanager
def shown() -> Iterator[Callable[[str], None]]:
    """Give what is called with what is under way: one line on a terminal, nothing elsewhere."""
    console = printing.console(error=True)
    if not console.is_terminal:
        yield lambda what: None
        return
    with console.status("looking", spinner="dots") as status:
        yield status.update


def _told(found: Curation, as_json: bool) -> None:
    """Print what became of a folder; the exit status is 1 when there is no case."""
    from training.curate.curation import REPORT

    if as_json:
        printing.print_json(found.plain())
    else:
        patients = len({one.case.patient_id for one in found.taken})
        printing.say(f"{len(found.taken)} cases of {patients} patients in {found.folder}")
        first = {one.code: one for one in reversed(found.left_out)}
        rows = [
            {"left_out": count, "reason": code, "first": f"{first[code].where}: {first[code].sentence}"}
            for code, count in found.counts.items()
        ]
        if rows:
            columns = {"left_out": "left out", "reason": "reason", "first": "the first of them"}
            printing.print_table(rows, columns, numbers=("left_out",), wrapped=("first",))
        if doubtful := sum(bool(one.doubts) for one in found.taken):
            printing.say(f"{doubtful} of the cases are in doubt, as their tag 'doubts' says")
        path = found.folder / REPORT
        printing.say(f"each case and each reason: {path if path.is_file() else '--json'}")
    if not found.taken:
        printing.complain("nadir: no case came of it; each reason is told above")
        raise typer.Exit(1)


def _tell(outlined: dict[str, Any], as_json: bool) -> None:
    """Print what a data set holds."""
    if as_json:
        printing.print_json(outlined)
        return
    printing.say(f"{outlined['name']}: {outlined['cases']} cases of {outlined['patients']} patients")
    printing.say(f"manifest {outlined['manifest_sha256']}")
    for key, called in (("size_mm", "size"), ("spacing_z_mm", "slices")):
        if (found := outlined[key]) is not None:
            ends = f"{found['least']:.3g} to {found['greatest']:.3g} mm, median {found['median']:.3g} mm"
            printing.say(f"{called}: {ends}")
    for tag, words in outlined["tags"].items():
        printing.say(f"{tag}: {', '.join(f'{word} ({count})' for word, count in words.items())}")
    parts = {f"fold {n}": part for n, part in outlined["folds"].items()}
    if isinstance(divided := outlined["split"], dict):
        printing.say(f"split {divided['sha256']}")
        parts |= divided["sides"]
    elif divided is not None:
        printing.complain(f"nadir: {divided}")
    rows = [{"part": part, **counts} for part, counts in parts.items()]
    headings = {"part": "part", "cases": "cases", "patients": "patients"}
    printing.print_table(rows, headings, numbers=("cases", "patients"))
