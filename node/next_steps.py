"""What to do next, out of what the doctor found: the commands, in the order in which they help."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from models.extras import how_to_install
from node.doctor import Line
from node.settings import Settings
from node.web.access import is_loopback
from node.web.viewer_files import how_to_bring

MOST = 4


def next_steps(
    lines: Sequence[Line], settings: Settings, config: Path | None, *, has_people: bool
) -> tuple[str, ...]:
    """Return sentences, each with a command or a setting; what is broken comes first, and then alone.

    `has_people` tells whether anybody may sign in to the pages.
    """
    how = f" --config {shlex.quote(str(config))}" if config else f" --home {shlex.quote(str(settings.home))}"
    broken = [line for line in lines if line.needed and not line.ok]
    if broken:
        told = [f"mend {line.what}: {line.says}" for line in broken[:MOST]]
        return (*told, f"then look again: nadir doctor{how}")
    return tuple(_steps(lines, settings, how, has_people=has_people))


def _steps(lines: Sequence[Line], settings: Settings, how: str, *, has_people: bool) -> Iterator[str]:
    runs = any(line.what == "DICOM port" and not line.ok for line in lines)
    if not settings.callers and not settings.accept_any:
        yield 'nobody may send yet: name the scanners, callers = ["CT1@10.0.0.7"]'
    if not settings.destinations:
        yield 'results go nowhere yet: name the PACS, destinations = ["PACS@10.0.0.5:104"]'
    if not has_people and not settings.oidc.is_on and not is_loopback(settings.http_host):
        yield f"nobody can sign in yet: nadir users add NAME --role administrator{how}"
    if not runs:
        yield f"start the node: nadir serve{how}"
    scheme = "http" if settings.http_tls_certificate is None else "https"
    if runs:
        yield f"send a study to {settings.ae_title}@this-host:{settings.dicom_port}, and watch it on {scheme}://{settings.http_host}:{settings.http_port}/worklist"
    if any(line.what == "torch" and not line.ok for line in lines):
        yield f"for the learned models: {how_to_install('learn')}"
    if any(line.what == "viewer" and not line.ok for line in lines):
        yield f"for the viewer on /viewer: {how_to_bring()}"
    yield f"keep a copy, every night: nadir backup /backups/nadir{how} --keep 14"


__all__ = ["next_steps"]
