"""The commands that look and judge: `nadir check`, `nadir doctor` and `nadir fsck`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from node import printing
from node.cli_options import AsJson, Config, Home, end, open_database
from node.flags import load_settings
from plugins.errors import Broken


def check(
    files: Annotated[
        list[Path],
        typer.Argument(help="SEG and SR files; give an SR together with its SEG.", metavar="FILE..."),
    ],
    as_json: AsJson = False,
) -> None:
    """Check SEG and SR files against the rules that viewers and PACS rely on.

    Source images among the files are not judged themselves: they let a SEG be compared with its grid.
    """
    from store.dicom.rules import check_files

    results = check_files(files)
    if as_json:
        printing.print_json(
            [
                {
                    "file": str(path),
                    "violations": [
                        {"rule": v.rule, "where": v.where, "sentence": v.sentence} for v in violations
                    ],
                }
                for path, violations in results
            ]
        )
    else:
        for path, violations in results:
            count = f"{len(violations)} violation{'s' * (len(violations) > 1)}"
            printing.say(f"{path}: {count if violations else 'ok'}")
            for v in violations:
                printing.say(f"  {v.rule} at {v.where or 'the top'}: {v.sentence}")
    end(ok=not any(violations for _, violations in results))


def doctor(home: Home = None, config: Config = None, as_json: AsJson = False) -> None:
    """Tell what is installed, reachable and writable, whether a GPU is used, and what to do next; change nothing."""
    settings = load_settings(config, {"home": home})
    from node.doctor import examine, has_people
    from node.next_steps import next_steps

    with printing.busy("looking"):
        lines = examine(settings)
        steps = next_steps(lines, settings, config, has_people=has_people(settings))
    if as_json:
        printing.print_json([line.plain() for line in lines])
    else:
        printing.print_lines(lines)
        printing.say("\nNext:")
        for number, step in enumerate(steps, start=1):
            printing.say(f"{number}. {step}")
    end(ok=all(line.ok for line in lines if line.needed))


def fsck(
    home: Home = None,
    config: Config = None,
    mend: Annotated[
        bool, typer.Option("--repair", help="Mend what can be mended without losing anything.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Do not read the bytes of the objects: names and sizes only.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Look whether what was acknowledged is kept and whether the ledger tells the truth, also beside a live node.

    The exit status is 0 when nothing is wrong, or everything wrong was mended, and 1 otherwise.
    """
    settings = load_settings(config, {"home": home})
    from node.fsck import Looked, look, repair
    from store.fsck.check import unread
    from store.objects import ObjectStore

    try:
        with open_database(home, config) as database, printing.busy("looking"):
            objects = ObjectStore(settings.home / "store")
            faults = look(database, objects, quick=quick)
            looked = repair(database, objects, faults) if mend else [Looked(fault=fault) for fault in faults]
    except Broken as error:
        looked = [Looked(fault=unread(error))]
    if as_json:
        printing.print_json([one.plain() for one in looked])
    else:
        printing.print_faults([one.plain() for one in looked])
    end(ok=all(one.mended for one in looked))


__all__ = ["check", "doctor", "fsck"]
