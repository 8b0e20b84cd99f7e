"""Series of public archives into a folder: several at a time, what is there not again, and a record beside them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from plugins.errors import NadirError, Refused
from training.curate.selection import RemoteSeries, Selection
from training.curate.series_files import SeriesFiles
from training.curate.wire import Halted, Wire

RECORD = "collection.json"
SPARE_BYTES = 256 << 20
"""What a disk keeps free."""


class Source(Protocol):
    """An archive. Errors are those of `training.curate.wire`."""

    name: str
    """Short name."""
    title: str
    """Name for people."""
    wire: Wire
    """Its connections."""

    @property
    def address(self) -> str:
        """Return where it is."""

    def version(self) -> str:
        """Return the version of the archive; empty when it has none."""

    def series(self, collection: str, selection: Selection) -> tuple[RemoteSeries, ...]:
        """Return all series of a collection, as far as the selection can be asked for."""

    def find(self, uids: Iterable[str]) -> dict[str, RemoteSeries]:
        """Return those of the series that the archive has."""

    def fetch(
        self, series: RemoteSeries, files: SeriesFiles, sops: frozenset[str] = frozenset()
    ) -> dict[str, str]:
        """Return why instances did not come, by what they are called; `sops` are wanted, all when empty."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One series that is to be there, whole or some of its instances."""

    source: Source
    """Who has it."""
    series: RemoteSeries
    """What it is."""
    sops: frozenset[str] = frozenset()
    """Instances that are wanted; all when empty."""
    elsewhere: frozenset[str] = frozenset()
    """MD5s of its files that are there in another place."""


@dataclass(frozen=True, kw_only=True)
class Got:
    """What came of one series."""

    wanted: Wanted
    """The series."""
    new: int
    """Number of files that came."""
    kept: int
    """Number of its files that are there now."""
    size_bytes: int
    """Length of these."""
    missing: Mapping[str, str]
    """Why instances are not there, by what they are called; empty means all of them."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be downloaded, and why."""

    wanted: tuple[Wanted, ...]
    """The series."""
    collection: str
    """Name of the collection, or of several."""
    query: Mapping[str, Any]
    """What was asked for."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Number of series by the reason they are left out for."""
    absent: Mapping[str, str] = field(default_factory=dict)
    """Why nobody has a series, by its UID."""

    @property
    def size_bytes(self) -> int:
        """Return the length of all whole series, as far as the archives tell it."""
        return sum(one.series.size_bytes or 0 for one in self.wanted if not one.sops)

    def record(self, now: datetime, got: Sequence[Got] | None = None) -> dict[str, Any]:
        """Return what `collection.json` says: whose the data are, under which licence, what is missing.

        Without `got` it is what the download begins with.
        """
        sources = list({one.source.name: one.source for one in self.wanted}.values())
        missing = {
            one.wanted.series.series_instance_uid: dict(one.missing) for one in got or () if one.missing
        }
        series = [one.series for one in self.wanted]
        return {
            "source": ", ".join(one.title for one in sources),
            "server": ", ".join(one.address for one in sources),
            "collection": self.collection,
            "version": ", ".join(filter(None, (one.version() for one in sources))),
            "date": now.isoformat(timespec="seconds"),
            "query": dict(self.query),
            **{key: _counted(series, key) for key in ("modality", "licence", "licence_uri", "citation")},
            "left_out": dict(self.left_out),
            "is_finished": got is not None,
            "missing": {**missing, **{uid: {"the series": why} for uid, why in self.absent.items()}},
            "series": [{**one.series.plain(), "source": one.source.title} for one in self.wanted],
        }


def download(
    wanted: Sequence[Wanted], folder: Path, *, at_once: int = 4, tell: Callable[[Got], None] = lambda _: None
) -> tuple[Got, ...]:
    """Return what came of each series, in the order of `wanted`.

    Nothing that is there and whole is fetched. What fails is told in the results; a full disk ends everything.
    Refuses `no-room` when the disk has none to begin with.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [SeriesFiles(folder, one.series.series_instance_uid) for one in wanted]
    _require_room(folder, wanted, files, at_once)
    done: dict[int, Got] = {}
    pool = ThreadPoolExecutor(at_once)
    try:
        running = {
            pool.submit(_fetch, one, place): number
            for number, (one, place) in enumerate(zip(wanted, files, strict=True))
        }
        for future in as_completed(running):
            got = done[running[future]] = future.result()
            tell(got)
    except BaseException:
        for one in wanted:
            one.source.wire.stop.set()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return tuple(done[number] for number in range(len(wanted)))


def _fetch(wanted: Wanted, files: SeriesFiles) -> Got:
    before = len(files.kept)
    files.elsewhere = wanted.elsewhere
    try:
        missing = wanted.source.fetch(wanted.series, files, wanted.sops)
    except (NadirError, OSError) as error:
        if isinstance(error, Halted | OSError):
            wanted.source.wire.stop.set()
        why = error.sentence if isinstance(error, Refused) else str(error)
        missing = dict.fromkeys(sorted(wanted.sops) or ["the series"], why)
    return Got(
        wanted=wanted,
        new=len(files.kept) - before,
        kept=len(files.kept),
        size_bytes=files.size_bytes,
        missing=missing,
    )


def _require_room(folder: Path, wanted: Sequence[Wanted], files: Sequence[SeriesFiles], at_once: int) -> None:
    lengths = [one.series.size_bytes or 0 for one in wanted if not one.sops]
    there = [place.size_bytes for one, place in zip(wanted, files, strict=True) if not one.sops]
    to_come = [max(0, length - have) for length, have in zip(lengths, there, strict=True)]
    # A series that comes as a zip file is there twice for a moment.
    needed = sum(to_come) + sum(sorted(to_come)[-at_once:])
    free = shutil.disk_usage(folder).free
    if needed and needed + SPARE_BYTES > free:
        text = f"{folder} has {free / 1e9:.1f} GB free, and {needed / 1e9:.1f} GB are needed: free some, or choose less"
        raise Refused("no-room", text)


def write_record(folder: Path, entry: Mapping[str, Any]) -> Path:
    """Write `collection.json` and return its path; what other questions brought before stays, under `earlier`."""
    path = folder / RECORD
    earlier: list[dict[str, Any]] = []
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        earlier = [*before.pop("earlier", []), before]
    except FileNotFoundError:
        pass
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise Refused("bad-record", f"{path} is no record of a download; move it away") from error
    others = [one for one in earlier if not _is_replaced(one, entry)]
    text = json.dumps({**entry, "earlier": others}, indent=2)
    scratch = path.with_suffix(".json.new")
    scratch.write_text(text + "\n", encoding="utf-8")
    os.replace(scratch, path)
    return path


def _is_replaced(before: Mapping[str, Any], entry: Mapping[str, Any]) -> bool:
    """Return whether a record answers the question of an earlier one, and speaks of every series of it."""
    same = all(before.get(key) == entry[key] for key in ("source", "collection", "query"))
    told = [{one["series_instance_uid"] for one in record["series"]} for record in (before, entry)]
    return same and told[0] <= told[1]


def _counted(series: Sequence[RemoteSeries], field: str) -> dict[str, int]:
    """Return the number of series by a value; empty stands for what the archive does not tell."""
    counts: dict[str, int] = {}
    for one in series:
        value = getattr(one, field)
        counts[value] = counts.get(value, 0) + 1
    return counts


def find_wanted(
    needs: Mapping[str, frozenset[str]],
    elsewhere: Mapping[str, frozenset[str]],
    sources: Sequence[Source],
) -> tuple[tuple[Wanted, ...], dict[str, str]]:
    """Return the series that are needed and the first source that has each, and why none has the others."""
    wanted: list[Wanted] = []
    left = dict(needs)
    why: dict[str, list[str]] = {uid: [] for uid in needs}
    for source in sources:
        try:
            found = source.find(left) if left else {}
            said = f"{source.title} does not have it"
        except NadirError as error:
            found, said = {}, f"{source.title}: {error.sentence if isinstance(error, Refused) else error}"
        for uid in list(left):
            if uid in found:
                sops = left.pop(uid)
                there = elsewhere.get(uid, frozenset())
                wanted.append(Wanted(source=source, series=found[uid], sops=sops, elsewhere=there))
            else:
                why[uid].append(said)
    return tuple(wanted), {uid: "; ".join(why[uid]) for uid in left}


__all__ = ["RECORD", "Got", "Plan", "Source", "Wanted", "download", "find_wanted", "write_record"]
