"""The command `nadir serve`: the node itself, with a flag for each setting."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from node.cli_options import Config
from node.flags import SettingsCommand, load_settings


@SettingsCommand
def serve(
    config: Config = None,
    role: Annotated[
        list[str] | None,
        typer.Option(
            help="listener, worker, sender, web or scheduler (repeatable); all when not given.",
            show_default=False,
        ),
    ] = None,
    rebuild: Annotated[
        bool,
        typer.Option(
            "--rebuild",
            help="Go on with what is left of a node: objects whose database is lost, or rows whose objects are.",
        ),
    ] = False,
    **flags: Any,
) -> None:
    """Run the node until it is told to stop (SIGTERM, SIGHUP or Ctrl-C), then finish what is under way.

    Every flag may also stand in the settings file (dicom_port = 11112) or in the environment
    (NADIR_DICOM_PORT=11112); a flag wins over the environment, and that over the file.
    """
    settings = load_settings(config, flags)
    from node.serve import serve as run

    if rebuild:
        from node.objects_place import go_on_without
        from node.rows_place import remember
        from store.database import place_of

        go_on_without(settings.home)
        if settings.home.is_dir():
            remember(settings.home, place_of(settings.sql_url))
    run(settings, tuple(role or ()))


__all__ = ["serve"]
