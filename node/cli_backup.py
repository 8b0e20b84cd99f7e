"""The commands `nadir backup` and `nadir restore`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from node import printing
from node.cli_options import AsJson, Config, Home, open_database, tell_exported
from node.flags import load_settings
from plugins.errors import Refused

if TYPE_CHECKING:
    from store.backup import Backup

MOST_NAMED = 5
OBJECTS = "objects/"
"""How the path of an object in a folder of backups begins."""
Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the backups.")]
Keep = Annotated[
    int | None,
    typer.Option(min=1, help="Remove all backups there but the newest so many.", show_default=False),
]
Verify = Annotated[
    bool,
    typer.Option(
        "--verify", help="Read every object there again and hold it against its hash, not only its length."
    ),
]


def backup(
    folder: Folder,
    home: Home = None,
    config: Config = None,
    keep: Keep = None,
    verify: Verify = False,
    only_list: Annotated[bool, typer.Option("--list", help="Only list the backups there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Copy a whole node into a folder, also while it runs: rows, objects, models and keys.

    Objects that an earlier backup brought there are not copied again while they are as long as they were; with
    --verify, while every byte is as it was. The settings file is not part of it. Links at the
    top of the node's folder are followed. What was missing or damaged in the node, and other
    links there, is told, and the exit status is 1; so are backups that --list or --keep
    cannot read.
    """
    from importlib.metadata import version

    from store import backup as store_backup
    from store.objects import ObjectStore

    if only_list:
        _show_all(store_backup.backups(folder), as_json)
        if _tell_unreadable(folder):
            raise typer.Exit(1)
        return
    settings = load_settings(config, {"home": home})
    with open_database(home, config) as database, printing.advancing("copying objects") as progress:
        made = store_backup.back_up(
            database,
            ObjectStore(settings.home / "store"),
            settings.home,
            folder,
            now=database.now(),
            version=version("nadir"),
            progress=progress,
            verify=verify,
        )
        tell_exported(database, home, config, f"backup {made.name} in {folder.absolute()}")
    _show(made, folder, as_json)
    _tell_faults(made, folder)
    if keep is not None:
        store_backup.prune(folder, keep)
    is_any_left = keep is not None and _tell_unreadable(folder)
    if made.missing or made.links or is_any_left:
        raise typer.Exit(1)


def restore(
    folder: Folder,
    home: Home = None,
    config: Config = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Which one; the newest when not given.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a node of a backup, in a new folder and an empty database; every byte is checked.

    Objects and files that are damaged or missing in FOLDER are told and left out, all else comes back, and the exit
    status is 1. A backup whose database is damaged is refused.
    A backup of a node on SQLite may be restored into PostgreSQL (database_url) and the other way round.
    """
    from store import restored

    if home is None and config is None:
        raise Refused("no-home", "name the new folder with --home, or the settings file with --config")
    settings = load_settings(config, {"home": home})
    with printing.advancing("copying objects") as progress:
        made = restored.restore(folder, settings.home, settings.database_url, name=name, progress=progress)
    if as_json:
        printing.print_json(made.plain())
    else:
        _show(made.backup, settings.home, as_json)
        printing.say(f"next: nadir fsck --home {settings.home}, then nadir serve --home {settings.home}")
    if made.damaged:
        _tell_damaged(made.damaged, settings.home)
        raise typer.Exit(1)


def _show(made: Backup, where: Path, as_json: bool) -> None:
    if as_json:
        printing.print_json(made.plain())
    else:
        printing.say(f"{made.name}: {made.objects} objects, {made.object_bytes / 1e6:.1f} MB, in {where}")


def _tell_damaged(damaged: Sequence[str], home: Path) -> None:
    objects = [name for name in damaged if name.startswith(OBJECTS)]
    files = [name for name in damaged if not name.startswith(OBJECTS)]
    lost = "missing or damaged in the backup and did not come back"
    if objects:
        printing.complain(
            f"nadir: {len(objects)} objects are {lost}: {_first(objects)}; nadir fsck --home {home} tells whose they "
            "are, send those again"
        )
    if files:
        printing.complain(
            f"nadir: {len(files)} files of the node's folder are {lost}: {_first(files)}; bring them to {home} from "
            "another backup"
        )


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"{', '.join(names[:MOST_NAMED])}{more}"


def _tell_faults(made: Backup, folder: Path) -> None:
    if made.mended:
        printing.complain(
            f"nadir: {len(made.mended)} objects in {folder} were damaged and were copied again; look at that disk"
        )
    if made.missing:
        printing.complain(
            f"nadir: {len(made.missing)} objects are missing or damaged in the node and are not in the backup; "
            "nadir fsck tells which"
        )
    if made.links:
        printing.complain(
            f"nadir: {len(made.links)} links in the node's folder were not followed, what they lead to is not in the "
            f"backup: {_first(made.links)}; put there what they lead to, or remove them"
        )


def _tell_unreadable(folder: Path) -> bool:
    """Tell of backups that cannot be read; returns True when there are any."""
    from store import backup as store_backup

    names = store_backup.unreadable(folder)
    for name in names:
        printing.complain(
            f"nadir: {folder / name / store_backup.TOLD} cannot be read (damaged-backup); --keep removes no object "
            "while that backup is there: bring the file back or remove its folder"
        )
    return bool(names)


def _show_all(found: Sequence[Backup], as_json: bool) -> None:
    if as_json:
        printing.print_json([made.plain() for made in found])
        return
    for made in found:
        size = f"{made.objects} objects, {made.object_bytes / 1e6:.1f} MB"
        printing.say(f"{made.name}  nadir {made.version}  {size}")
    if not found:
        printing.say("no backups")


__all__ = ["backup", "restore"]
