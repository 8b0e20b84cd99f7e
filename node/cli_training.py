"""The commands about models that learn: `nadir train` and `nadir evaluate`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from node import printing
from node.cli_options import AsJson, Config, Home, open_database, operator
from node.flags import load_settings
from node.learn_extra import require_learn
from plugins.errors import Refused

if TYPE_CHECKING:
    from training.evaluate.report import Evaluation
    from training.fit import Progress

ModelName = Annotated[
    str, typer.Argument(help="Folder of a model, or the name of one that comes with Nadir.")
]
ReportFolder = Annotated[
    Path,
    typer.Option("--out", help="Folder for report.html, .pdf and .json, evaluation.json, and the manifest."),
]
Root = Annotated[
    Path | None,
    typer.Option(
        help="Folder that the files of the manifest are in; its own by default.", show_default=False
    ),
]
Folds = Annotated[
    list[int] | None,
    typer.Option(help="Only the cases of this fold of the manifest (repeatable).", show_default=False),
]
Sides = Annotated[
    list[str] | None,
    typer.Option(
        "--side",
        help="Only the patients on this side of the split: train, validation, test (repeatable).",
        show_default=False,
    ),
]
Scans = Annotated[
    Path | None,
    typer.Option(
        help="Folder of data sets with whole CTs, into which nodules are set as well.", show_default=False
    ),
]
Beside = Annotated[
    list[Path] | None,
    typer.Option(
        help="Run of the same model on fewer cases, for a learning curve (repeatable).", show_default=False
    ),
]
Keep = Annotated[
    bool,
    typer.Option(
        "--keep",
        help="Keep the report with the node as well, on the page of the model; MODEL may then be FAMILY/NUMBER.",
    ),
]


def evaluate(
    model: ModelName,
    data: Annotated[Path, typer.Option(help="Folder of the data set, or the manifest of its cases (JSON).")],
    folder: ReportFolder,
    root: Root = None,
    resamples: Annotated[int, typer.Option(min=100, max=100_000, help="Draws for each interval.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draws.")] = 0,
    fold: Folds = None,
    side: Sides = None,
    scans: Scans = None,
    beside: Beside = None,
    keep: Keep = False,
    home: Home = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Judge a model on data that it has not seen: figures per case with intervals, pictures, one report.

    A model of several folds is cross-validated: each patient is judged by the weights that have not seen him.
    """
    require_learn()
    from training.evaluate.data import MANIFEST, open_data
    from training.evaluate.families import open_subject
    from training.evaluate.judging import judge_model
    from training.evaluate.kept import NAME, kept_text
    from training.evaluate.report import write_report

    subject = open_subject(_of_the_node(model, home, config) if keep else model)
    if keep:
        _require_known(subject.sha256, home, config)
    opened = replace(open_data(data, root, fold or (), side or ()), scans=scans)
    _require_apart(folder, data, opened.root)
    _require_scans(scans)
    others = [open_subject(str(run)) for run in beside or ()]
    _require_writable(folder)
    with _counted(f"judging {subject.name}", len(opened.cases) * (1 + len(others))) as tell:
        found = judge_model(
            subject,
            opened,
            made_at=datetime.now(UTC),
            resamples=resamples,
            seed=seed,
            beside=others,
            progress=tell,
        )
    *paths, _ = write_report(found, folder, {NAME: kept_text(found), MANIFEST: opened.manifest.text()})
    _tell(found, [str(path) for path in paths], _kept(folder, home, config) if keep else None, as_json)


def _tell(found: Evaluation, files: list[str], number: str | None, as_json: bool) -> None:
    """Say what was found, the files in which it stands, and as what it is kept."""
    if as_json:
        printing.print_json({**found.plain(cases=False), "files": files, "kept": number})
        return
    for top in found.headlines:
        printing.say(f"{top.name}: {top.value} {top.between}".rstrip())
    printing.say(f"written: {', '.join(files)}")
    if number is not None:
        printing.say(f"kept as evaluation {number}: the page of the model shows it")


def _of_the_node(model: str, home: Path | None, config: Path | None) -> str:
    """Return the folder of a model that was made on a node and is named as FAMILY/NUMBER; other names as they are."""
    family, _, number = model.rpartition("/")
    if not family or not number.isdecimal() or Path(model).is_dir():
        return model
    with open_database(home, config) as database, database.reading() as session:
        from store import registry

        row = registry.version_of(session, family, int(number))
        return str(load_settings(config, {"home": home}).home / row.folder)


def _require_known(sha256: str, home: Path | None, config: Path | None) -> None:
    """Refuse, before hours of judging, a model that the node does not know."""
    from node import evaluations

    with open_database(home, config) as database, database.reading() as session:
        evaluations.require_known(session, sha256)


def _require_scans(folder: Path | None) -> None:
    """Refuse, before hours of judging, a folder that holds no whole CT."""
    from training.scans import SCANS, present

    if folder is not None and not present(folder):
        raise Refused(
            "no-scans", f"there is no whole CT in {folder}; --scans looks there for {', '.join(SCANS)}"
        )


def _require_apart(folder: Path, data: Path, root: Path) -> None:
    """Refuse to put a report, which has a manifest, into a folder of data; that of an earlier report is none."""
    from training.evaluate.data import table_of

    own = {place.resolve() for place in (root, data if data.is_dir() else data.parent)}
    if folder.resolve() in own:
        raise Refused(
            "out-is-data",
            f"{folder} holds the data, whose manifest a report would replace; name another --out",
        )
    if (there := table_of(folder)) is not None:
        raise Refused(
            "out-is-data",
            f"{folder} holds another data set ({there}), in whose place a report would stand; name another --out",
        )


def _require_writable(folder: Path) -> None:
    """Make the folder of a report, and refuse one that cannot be written before hours of judging."""
    from tempfile import TemporaryFile

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        why = "it is no folder" if isinstance(error, FileExistsError) else error.strerror or error
        raise Refused("bad-folder", f"{folder} cannot be written ({why}); name another --out") from error


def _kept(folder: Path, home: Path | None, config: Path | None) -> str:
    from node import evaluations

    with open_database(home, config) as database:
        return evaluations.keep(database, load_settings(config, {"home": home}), folder, operator())


@contextmanager
def _counted(title: str, cases: int) -> Iterator[Callable[[str], None]]:
    """Give what is called with the name of each case, as often as it is asked about: a bar on a terminal."""
    from rich.progress import Progress as Bar

    console = printing.console(error=True)
    with Bar(console=console, disable=not console.is_terminal) as bar:
        line, last = bar.add_task(title, total=cases), ""

        def tell(case_id: str) -> None:
            nonlocal last
            if case_id != last:
                last = case_id
                bar.advance(line)

        yield tell


def train(
    experiment: Annotated[Path, typer.Argument(help="What is to be learned, and how: a YAML file.")],
    data: Annotated[Path, typer.Option(help="Folder of the data set; its split, if it has one, is heeded.")],
    folder: Annotated[Path, typer.Option("--out", help="Folder for weights and curves.")],
    fold: Annotated[
        list[int] | None, typer.Option(help="Only this fold (repeatable).", show_default=False)
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of torch.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Train a model, each fold a network; a run that was killed goes on where it was, what is done stays done.

    Two commands do not learn in one folder at the same time: the second is refused (`folder-in-use`).
    """
    require_learn()
    import torch

    from store.backup import held
    from training.experiment import read_experiments
    from training.fit import fit
    from training.tasks import task_of

    if threads is not None:
        torch.set_num_threads(threads)
    written: list[dict[str, object]] = []
    for one in read_experiments(experiment):
        for number in one.folds if fold is None else fold:
            place = folder / one.name / f"fold{number}"
            with _shown(f"{one.name}, fold {number}") as tell:
                task = task_of(one, number, data)
                if not task.manifest.fold(number):
                    raise Refused("no-such-fold", f"nobody is in fold {number} of {task.manifest.name}")
                place.mkdir(parents=True, exist_ok=True)
                with held(
                    place / ".lock", f"another command learns in {place}; wait for it, or give another --out"
                ):
                    weights = fit(one, number, task, place, tell=tell)
            curves = json.loads((place / "curves.json").read_text(), parse_constant=lambda _: None)
            judged = curves["judged"]
            written.append(
                {"experiment": one.name, "fold": number, "weights": str(weights), **(judged or [{}])[-1]}
            )
    if as_json:
        printing.print_json(written)
    else:
        printing.print_table(written, {key: key for row in written for key in row})


@contextmanager
def _shown(title: str) -> Iterator[Callable[[Progress], None]]:
    """Give what is called at every step: a bar on a terminal, a line every 100 steps elsewhere."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = printing.console(error=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[said]}"),
    )
    with Bar(*columns, console=console, disable=not console.is_terminal) as bar:
        line = bar.add_task(title, total=None, said="reading the data")

        def tell(now: Progress) -> None:
            figures = ", ".join(f"{key} {value:.3f}" for key, value in now.judged.items() if key != "step")
            said = f"loss {now.loss:.4f}" + (f", unseen: {figures}" if figures else "")
            bar.update(line, completed=now.step, total=now.steps, said=said)
            if not console.is_terminal and (now.step % 100 == 0 or now.step == now.steps):
                printing.complain(f"{title}: step {now.step} of {now.steps}, {said}")

        yield tell
