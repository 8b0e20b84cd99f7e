"""The commands `nadir curate tcia` and `nadir curate idc`: series of public archives, and those that are missed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node import printing
from node.cli_options import AsJson, Config
from node.flags import load_settings

if TYPE_CHECKING:
    from training.curate.download import Got, Plan, Source
    from training.curate.selection import Selection

GIGABYTE = 1_000_000_000
SHOWN_MISSING = 5
Collection = Annotated[
    str | None, typer.Argument(help="Name of the collection, e.g. LIDC-IDRI.", show_default=False)
]
Out = Annotated[
    Path | None,
    typer.Option("--out", help="Folder for the series; with --for that folder itself.", show_default=False),
]
For = Annotated[
    Path | None,
    typer.Option(
        "--for",
        help="Instead of a collection: images that the SEG, RTSTRUCT, SR or LIDC XML in this folder speak of.",
        show_default=False,
    ),
]
Modalities = Annotated[
    list[str] | None, typer.Option("--modality", help="Only this modality (repeatable).", show_default=False)
]
Patients = Annotated[
    list[str] | None, typer.Option("--patient", help="Only this PatientID (repeatable).", show_default=False)
]
SeriesUids = Annotated[
    list[str] | None,
    typer.Option("--series", help="Only this Series Instance UID (repeatable).", show_default=False),
]
MaxSeries = Annotated[int | None, typer.Option(min=1, help="At most so many series.", show_default=False)]
MaxGb = Annotated[
    float | None,
    typer.Option("--max-gb", min=0, max=1_000_000, help="At most so many GB.", show_default=False),
]
Connections = Annotated[int, typer.Option(min=1, max=16, help="Connections at one time.")]
TciaServer = Annotated[
    str | None, typer.Option(help="Another address of TCIA's services.", show_default=False)
]
IdcServer = Annotated[str | None, typer.Option(help="Another address of IDC's buckets.", show_default=False)]
IndexFile = Annotated[
    Path | None,
    typer.Option(
        "--index",
        help="Index of IDC (.parquet, .csv); the installed one by default.",
        show_default=False,
        exists=True,
        dir_okay=False,
    ),
]
Attempts = Annotated[int, typer.Option(min=1, max=100, help="Times that one thing is asked for.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only tell what it would be, how long, and under which licence.")
]


def tcia(
    collection: Collection = None,
    out: Out = None,
    for_folder: For = None,
    modality: Modalities = None,
    patient: Patients = None,
    series: SeriesUids = None,
    max_series: MaxSeries = None,
    max_gb: MaxGb = None,
    connections: Connections = 4,
    attempts: Attempts = 6,
    tcia_server: TciaServer = None,
    idc_server: IdcServer = None,
    index: IndexFile = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Download a collection of The Cancer Imaging Archive, or with --for the images that are missing in a folder.

    What is there and whole is not fetched again: the same command goes on where it was stopped. The token for
    restricted collections is the setting tcia_token (NADIR_TCIA_TOKEN or NADIR_TCIA_TOKEN_FILE). With --for, IDC is
    asked for what TCIA does not have. The exit status is 1 when anything is missing in the end.
    """
    asked = _Asked(
        collection=collection,
        out=out,
        for_folder=for_folder,
        selection=_selection(modality, patient, series, max_series, max_gb),
        connections=connections,
        attempts=attempts,
        dry_run=dry_run,
        as_json=as_json,
    )
    token = load_settings(config, {}).tcia_token
    with _sources(asked, tcia_server, token, idc_server, index) as found:
        _curate(asked, found)


def idc(
    collection: Collection = None,
    out: Out = None,
    for_folder: For = None,
    modality: Modalities = None,
    patient: Patients = None,
    series: SeriesUids = None,
    max_series: MaxSeries = None,
    max_gb: MaxGb = None,
    connections: Connections = 4,
    attempts: Attempts = 6,
    tcia_server: TciaServer = None,
    idc_server: IdcServer = None,
    index: IndexFile = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Download a collection of the Imaging Data Commons, or with --for the images that are missing in a folder.

    What is there and whole is not fetched again: the same command goes on where it was stopped. The index of IDC
    comes with pip install -c constraints.txt '.[idc]' in Nadir's folder. With --for, TCIA is asked for what IDC does
    not have. The exit status is 1 when anything is missing in the end.
    """
    asked = _Asked(
        collection=collection,
        out=out,
        for_folder=for_folder,
        selection=_selection(modality, patient, series, max_series, max_gb),
        connections=connections,
        attempts=attempts,
        dry_run=dry_run,
        as_json=as_json,
    )
    token = load_settings(config, {}).tcia_token
    with _sources(asked, tcia_server, token, idc_server, index) as found:
        _curate(asked, found[::-1])


@dataclass(frozen=True, kw_only=True)
class _Asked:
    collection: str | None
    out: Path | None
    for_folder: Path | None
    selection: Selection
    connections: int
    attempts: int
    dry_run: bool
    as_json: bool

    @property
    def folder(self) -> Path:
        """Return where the series go. Raises typer.BadParameter for a question that contradicts itself."""
        if (self.collection is None) == (self.for_folder is None):
            raise typer.BadParameter("name a collection, or a folder with --for")
        folder = self.out or self.for_folder
        if folder is None:
            raise typer.BadParameter("name a folder for the series", param_hint="--out")
        return folder


def _selection(
    modalities: list[str] | None,
    patients: list[str] | None,
    series: list[str] | None,
    max_series: int | None,
    max_gb: float | None,
) -> Selection:
    from training.curate.selection import Selection

    return Selection(
        modalities=frozenset(one.upper() for one in modalities or ()),
        patients=frozenset(patients or ()),
        series=frozenset(series or ()),
        at_most_series=max_series,
        at_most_bytes=None if max_gb is None else int(max_gb * GIGABYTE),
    )


@contextmanager
def _sources(
    asked: _Asked, tcia_server: str | None, token: str, idc_server: str | None, index: Path | None
) -> Iterator[tuple[Source, ...]]:
    """Give TCIA and IDC; neither is asked anything yet."""
    from training.curate import idc, tcia
    from training.curate.idc_index import IdcIndex
    from training.curate.wire import Patience, Wire

    many, patience = asked.connections, Patience(attempts=asked.attempts)
    to_tcia = Wire(
        tcia_server or tcia.SERVER, friends=tcia.FRIENDS, token=token, connections=many, patience=patience
    )
    to_idc = Wire(idc_server or idc.SERVER, friends=idc.FRIENDS, connections=many, patience=patience)
    to_tcia.say = to_idc.say = lambda sentence: printing.complain(f"nadir: {sentence}")
    try:
        yield tcia.Tcia(to_tcia), idc.Idc(to_idc, IdcIndex(named=index))
    finally:
        to_tcia.close()
        to_idc.close()


def _curate(asked: _Asked, sources: Sequence[Source]) -> None:
    from training.curate.download import download, write_record

    folder = asked.folder
    planned = _planned_for(asked, sources) if asked.for_folder else _planned_of(asked, sources[0])
    if asked.dry_run:
        _print_plan(planned, asked)
        raise typer.Exit(bool(planned.absent))
    if not planned.wanted and not planned.absent:
        printing.complain("nadir: nothing is missing" if asked.for_folder else "nadir: nothing is selected")
    now = datetime.now(UTC)
    got: tuple[Got, ...] = ()
    if planned.wanted:
        folder.mkdir(parents=True, exist_ok=True)
        # Whose data they are is told before the first file lies there.
        write_record(folder, planned.record(now))
        with _shown(planned, asked) as tell:
            got = download(planned.wanted, folder, at_once=asked.connections, tell=tell)
        write_record(folder, planned.record(now, got))
    _print_got(planned.record(now, got), got, folder, asked)


def _planned_of(asked: _Asked, source: Source) -> Plan:
    from training.curate.download import Plan, Wanted
    from training.curate.selection import choose

    collection = asked.collection or ""
    chosen = choose(source.series(collection, asked.selection), asked.selection)
    return Plan(
        wanted=tuple(Wanted(source=source, series=one) for one in chosen.series),
        collection=collection,
        query=asked.selection.plain(),
        left_out=chosen.left_out,
    )


def _planned_for(asked: _Asked, sources: Sequence[Source]) -> Plan:
    from training.curate.download import Plan, find_wanted
    from training.curate.referenced import listen
    from training.curate.selection import choose

    assert asked.for_folder is not None
    spoken = listen(asked.for_folder)
    for path in spoken.mute:
        printing.complain(f"nadir: {path} names no series of images that can be looked for")
    needs = spoken.needs(asked.folder)
    found, absent = find_wanted(needs, spoken.md5s(needs), sources)
    chosen = choose((one.series for one in found), asked.selection)
    names = {one.series.collection for one in found}
    return Plan(
        wanted=tuple(one for one in found if one.series in chosen.series),
        collection=", ".join(sorted(names - {""})),
        query={"for": str(asked.for_folder), **asked.selection.plain()},
        left_out=chosen.left_out,
        absent=absent,
    )


def _print_plan(planned: Plan, asked: _Asked) -> None:
    told = planned.record(datetime.now(UTC))
    if asked.as_json:
        printing.print_json({**told, "size_bytes": planned.size_bytes})
        return
    printing.say(f"{planned.collection}: {len(planned.wanted)} series, {_length(planned.size_bytes)}")
    for heading in ("modality", "licence", "citation"):
        for value, count in told[heading].items():
            printing.say(f"  {heading}: {value or 'not told'} ({count} series)")
    for why, count in planned.left_out.items():
        printing.say(f"  left out: {count} series, {why}")
    for uid, why in planned.absent.items():
        printing.complain(f"nadir: series {uid}: {why}")


def _length(size_bytes: int) -> str:
    """Return a length as people write it."""
    from rich.filesize import decimal

    return decimal(size_bytes)


def _print_got(told: dict[str, Any], got: Sequence[Got], folder: Path, asked: _Asked) -> None:
    """Print what came, and on standard error what is missing. Raises typer.Exit when anything is."""
    if asked.as_json:
        printing.print_json({**told, "new_files": sum(one.new for one in got), "folder": str(folder)})
    else:
        whole = sum(not one.missing for one in got)
        new, size = sum(one.new for one in got), sum(one.size_bytes for one in got)
        printing.say(f"{whole} of {len(got)} series whole in {folder}, {_length(size)}; {new} new files")
    for uid, missing in told["missing"].items():
        for what, why in list(missing.items())[:SHOWN_MISSING]:
            printing.complain(f"nadir: series {uid}: {what}: {why}")
        if len(missing) > SHOWN_MISSING:
            printing.complain(f"nadir: series {uid}: and {len(missing) - SHOWN_MISSING} more")
    if told["missing"]:
        printing.complain("nadir: some files are missing; the same command tries them again")
        raise typer.Exit(1)


@contextmanager
def _shown(planned: Plan, asked: _Asked) -> Iterator[Callable[[Got], None]]:
    """Give what is called with each series that is done: a bar on a terminal, a line each elsewhere."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = printing.console(error=True)
    many = len(planned.wanted)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("{task.fields[series]} series"),
        console=console,
        disable=not console.is_terminal,
    ) as bar:
        line = bar.add_task(planned.collection, total=planned.size_bytes or None, series=f"0 of {many}")
        done = 0

        def came(size_bytes: int) -> None:
            bar.advance(line, size_bytes)

        def tell(got: Got) -> None:
            nonlocal done
            done += 1
            if not got.new:
                bar.advance(line, got.size_bytes)
            bar.update(line, series=f"{done} of {many}")
            if done == many:  # a zip file is shorter than what is in it
                bar.update(line, total=bar.tasks[0].completed)
            if not console.is_terminal:
                one = got.wanted.series
                said = "there already" if not got.new and not got.missing else f"{got.new} new files"
                lacks = f", {len(got.missing)} missing" if got.missing else ""
                printing.complain(
                    f"{done} of {many}: {one.modality} {one.series_instance_uid}, {said}{lacks}"
                )

        for one in planned.wanted:
            one.source.wire.tell = came
        yield tell
