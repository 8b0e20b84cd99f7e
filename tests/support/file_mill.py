"""Takes hostile files in and reads them, many in one process: `python file_mill.py FOLDER DATA FIRST LAST`.

With `--files FILE...` it takes these instead; what else lies in the folder of a file is read with it.
For each seed it prints `start SEED`, and then one JSON line that says how the file ended. It may use 2 GiB; whoever
started it watches the clock.
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from hostile_corpus import make_corpus, mutated
from small_node import SmallNode

from node.fault import place
from node.intake import Intake
from plugins.errors import NadirError, Refused
from store.dicom.rules import check_files
from store.dicom.series import read_study
from store.objects import ObjectStore

MEMORY_BYTES = 2 << 30
LARGE_BYTES = 1 << 20
FRESH_EVERY = 400


def taken(intake: Intake, path: Path) -> str:
    """Return how the intake ended: stored or the code of a refusal; nothing else may come out of it."""
    temporary = intake.objects.temporary()
    shutil.copyfile(path, temporary)
    try:
        intake.take(temporary, source="mill")
    except Refused as refused:
        return refused.code
    return "stored"


def ended(work: Callable[[], str]) -> tuple[str, str]:
    """Return how reading ended, and where in the code when it was by an error that is not ours."""
    try:
        return work(), ""
    except NadirError as error:
        return getattr(error, "code", type(error).__name__), ""
    except MemoryError as error:
        return "memory", place(error)
    except Exception as error:  # the border of the child process, in which this runs
        return "broken", place(error)


def read(paths: list[Path]) -> str:
    """Return `read`, or the code of the first refusal of a part of the study."""
    refused = read_study(paths).study.refused
    return refused[0].code if refused else "read"


def checked(paths: list[Path]) -> str:
    """Return `checked`: `nadir check` judged a SEG or SR."""
    check_files(paths)
    return "checked"


def milled(intake: Intake, path: Path, paths: list[Path]) -> dict[str, str]:
    """Return how a file ended at each door."""
    said = {"file": path.name, "taken": taken(intake, path), "read": "", "place": "", "checked": ""}
    if said["taken"] != "stored" and path.stat().st_size > LARGE_BYTES:
        return said  # the node never reads it, and for a test it takes long
    said["read"], said["place"] = ended(lambda: read(paths))
    said["checked"], said["checked_place"] = ended(lambda: checked(paths))
    return said


def limit() -> None:
    """Bound this process as the analysis child is bounded."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")


def mill(folder: Path, data: Path | None, first: int, last: int) -> None:
    """Mill the files of these seeds."""
    samples = make_corpus(folder / "corpus", data)
    limit()
    home, path = folder / "home", folder / "file.dcm"
    for count, seed in enumerate(range(first, last)):
        if count % FRESH_EVERY == 0:
            shutil.rmtree(home, ignore_errors=True)
            intake = opened(home)
        sample, changed = mutated(samples, seed)
        print(f"start {seed}", flush=True)
        path.write_bytes(changed)
        said = milled(intake, path, [path, *sample.beside])
        print(json.dumps({**said, "seed": seed, "sample": sample.path.name}), flush=True)


def opened(home: Path) -> Intake:
    """Return the intake of a new node whose disk is not waited for."""
    return Intake(SmallNode.make(home).database, ObjectStore(home / "store", sync=False))


def peak_kib() -> int:
    """Return the most memory that this process held; getrusage would tell of the one that started it, too."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def main() -> None:
    """Mill the seeds, or the files."""
    if sys.argv[1] == "--files":
        files = [Path(name) for name in sys.argv[2:]]
        intake = opened(files[0].parents[1] / "home")
        limit()
        for path in files:
            began = time.process_time()
            said = milled(intake, path, sorted(path.parent.glob("*.dcm")))
            print(json.dumps({**said, "seconds": time.process_time() - began}), flush=True)
    else:
        data = Path(sys.argv[2]) if sys.argv[2] else None
        mill(Path(sys.argv[1]), data, int(sys.argv[3]), int(sys.argv[4]))
    print(json.dumps({"rss_kib": peak_kib()}), flush=True)


if __name__ == "__main__":
    main()
