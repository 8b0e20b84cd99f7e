"""The front door beside its peers: how fast, how durable, how many at one time, and at what cost.

    python benchmarks/ingest.py [FOLDER] [--rows 1,2,3,4,5] [--runs 5] [--images 500] [--quick] [--json out.json]

Every receiver is a process of its own; the runs of a row are interleaved and their medians compared. After each run
the stored files are counted and their bytes added up. Receivers run with TCP_NODELAY=1: without it DCMTK and Orthanc
wait for Nagle's algorithm, which would flatter us. `blast` is our own sender with every PDU encoded beforehand,
`storescu` is DCMTK's. Rows 1, 3, 4 and 5 store on --fast-disk (tmpfs), row 2 on --disk. FOLDER holds CT slices in
explicit VR little endian; without one 500 slices of 512 x 512 are made.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from blast import Blast, Image, TurnedAwayError, pdu_bytes_of, send_all
from receivers import (
    PATH,
    PDU_BYTES,
    ForkingStoreScp,
    Nadir,
    NadirFiles,
    NadirNoSync,
    NadirPynetdicom,
    Orthanc,
    Receiver,
    StockPynetdicom,
    StoreScp,
    SyncingOrthanc,
)
from rich.console import Console
from rich.table import Table
from scan import make_pixels, write_scan

MIB = 1 << 20
RETRY_SECONDS = 0.02
PATIENCE_SECONDS = 120.0
Send = Callable[[Receiver], float]


@dataclass(kw_only=True)
class Measured:
    """What one receiver did in one row."""

    receiver: str
    """Its name."""
    values: list[float] = field(default_factory=list)
    """Figure of each run, in the unit of the row."""
    cpu_ms: list[float] = field(default_factory=list)
    """Processor time of the receiver for one image."""
    peak_mib: float = 0.0
    """Largest resident memory of the receiver's processes together."""
    lost: int = 0
    """Images that were acknowledged and not found."""

    @property
    def median(self) -> float:
        """Return the median of the runs."""
        return statistics.median(self.values)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison."""

    name: str
    """What is compared, with sender and sink."""
    unit: str
    """Unit of the figures."""
    receivers: Sequence[type[Receiver]]
    """Who takes part; the others are told as ratios to the first."""
    send: Send
    """Sends to one receiver and returns the figure."""
    images: int
    """How many different images a run sends."""
    bytes: int
    """Their data sets together."""
    times: int = 1
    """How often each is sent."""
    sink: Path
    """Where they are stored."""
    raw: Callable[[], dict[str, float]] | None = None
    """What to compare with that is no receiver."""
    frees: bool = True
    """Whether a run's files are deleted before the next: ext4 without a journal is slow to make files after that."""


def main() -> None:
    """Measure the rows that are asked for, print their tables, and write them as JSON."""
    options = _options()
    with (
        tempfile.TemporaryDirectory(dir=options.fast_disk) as fast,
        tempfile.TemporaryDirectory(dir=options.disk) as slow,
    ):
        images, folder = _images(options, Path(fast))
        results = []
        for row in _rows(options, images, folder, Path(fast), Path(slow)):
            measured = _measure(row, options.runs)
            _print(row, measured)
            results.append({"row": row.name, "unit": row.unit, "receivers": [asdict(m) for m in measured]})
        if options.json:
            options.json.write_text(json.dumps({"images": len(images), "rows": results}, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", help="CT slices to send")
    parser.add_argument("--rows", default="1,2,3,4,5")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--fast-disk", type=Path, default=Path("/dev/shm"), help="a tmpfs")
    parser.add_argument(
        "--disk", type=Path, default=Path(tempfile.gettempdir()), help="a folder on a real disk"
    )
    parser.add_argument("--quick", action="store_true", help="50 images, 1 run, 40 associations, 128 MiB")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.associations, options.large_bytes = 200, 1 << 30
    if options.quick:
        options.images, options.runs, options.associations, options.large_bytes = 50, 1, 40, 128 * MIB
    return options


def _images(options: argparse.Namespace, work: Path) -> tuple[list[Image], Path]:
    """Return the images to send and the folder of their files, for storescu."""
    folder = options.folder
    if folder is None:
        folder = work / "scan"
        write_scan(folder, make_pixels(options.images))
    images = [Image.read(path) for path in sorted(folder.rglob("*.dcm"))]
    if len({image.sop_class_uid for image in images}) != 1:
        raise SystemExit(f"{folder} must hold images of one SOP class")
    return images, folder


def _rows(
    options: argparse.Namespace, images: Sequence[Image], folder: Path, work: Path, disk: Path
) -> list[Row]:
    wanted = set(options.rows.split(","))
    size = sum(len(image.data) for image in images)
    one = {"unit": "images/s", "images": len(images), "bytes": size}
    quick_receivers = (StoreScp, NadirFiles, NadirNoSync, NadirPynetdicom, Orthanc, StockPynetdicom)
    durable = (SyncingOrthanc, Nadir)
    few, pair = images[: min(100, len(images))], images[:2]
    rows = []
    if "1" in wanted:
        name = f"{len(images)} images, one association, tmpfs, nothing synced"
        for sender, send in (("blast", _blast(images)), ("storescu", _storescu(folder, len(images)))):
            rows.append(
                Row(name=f"1 {name}, {sender}", receivers=quick_receivers, send=send, sink=work, **one)
            )
    if "2" in wanted:
        name = f"2 {len(images)} images, one association, on disk before the answer, blast"
        raw = _raw_writes(images, disk)
        rows.append(
            Row(name=name, receivers=durable, send=_blast(images), sink=disk, raw=raw, frees=False, **one)
        )
    if "3" in wanted:
        count = options.associations
        rows.append(
            Row(
                name=f"3 {count} associations at one time, 2 images each, tmpfs, nothing synced, blast",
                unit="images/s",
                receivers=(ForkingStoreScp, NadirNoSync, Orthanc),
                send=_crowd(pair, count),
                images=2,
                bytes=sum(len(image.data) for image in pair),
                times=count,
                sink=work,
            )
        )
    if "4" in wanted:
        rows.append(
            Row(
                name=f"4 {len(few)} associations of one image, one after another, tmpfs, nothing synced, blast",
                unit="ms",
                receivers=(StoreScp, ForkingStoreScp, NadirFiles, NadirNoSync, Orthanc),
                send=_one_by_one(few),
                images=len(few),
                bytes=sum(len(image.data) for image in few),
                sink=work,
            )
        )
    if "5" in wanted:
        large = _large(images[0], options.large_bytes)
        rows.append(
            Row(
                name=f"5 one object of {options.large_bytes // MIB} MiB, tmpfs, nothing synced, blast",
                unit="MB/s",
                receivers=(StoreScp, NadirNoSync, Orthanc),
                send=lambda receiver: _blast([large])(receiver) * len(large.data) / 1e6,
                images=1,
                bytes=len(large.data),
                sink=work,
            )
        )
    return rows


def _measure(row: Row, runs: int) -> list[Measured]:
    """Run every receiver in turn, `runs` times, so that what else the machine does meets all alike."""
    measured = [Measured(receiver=kind.name) for kind in row.receivers]
    extra: dict[str, Measured] = {}
    for run in range(runs):
        for kind, result in zip(row.receivers, measured, strict=True):
            _run(row, kind(row.sink / f"run{run}-{kind.__name__}"), result)
        for name, value in (row.raw() if row.raw else {}).items():
            extra.setdefault(name, Measured(receiver=name)).values.append(value)
    return [*measured, *extra.values()]


def _run(row: Row, receiver: Receiver, result: Measured) -> None:
    receiver.start()
    try:
        before = receiver.cpu_seconds()
        result.values.append(row.send(receiver))
        result.cpu_ms.append((receiver.cpu_seconds() - before) * 1000 / (row.images * row.times))
        time.sleep(0.2)
    finally:
        receiver.stop()
    result.peak_mib = max(result.peak_mib, receiver.peak_bytes / MIB)
    stored = list(receiver.stored())
    result.lost += max(0, row.images - len(stored))
    if sum(path.stat().st_size for path in stored) < row.bytes:
        result.lost = result.lost or row.images
    if row.frees:
        shutil.rmtree(receiver.folder)


def _blast(images: Sequence[Image]) -> Send:
    encoded: dict[int, list[bytes]] = {}

    def send(receiver: Receiver) -> float:
        uid = images[0].sop_class_uid
        length = min(pdu_bytes_of(receiver.port, uid), PDU_BYTES)
        if length not in encoded:
            encoded.clear()
            encoded[length] = [image.message(length) for image in images]
        begun = time.perf_counter()
        send_all(receiver.port, encoded[length], uid)
        return len(images) / (time.perf_counter() - begun)

    return send


def _storescu(folder: Path, count: int) -> Send:
    program = shutil.which("storescu", path=PATH)
    assert program is not None

    def send(receiver: Receiver) -> float:
        flags = ("-pdu", str(PDU_BYTES), "--max-send-pdu", str(PDU_BYTES), "-aec", "NADIR")
        begun = time.perf_counter()
        subprocess.run(
            [program, *flags, "127.0.0.1", str(receiver.port), "--scan-directories", str(folder)],
            check=True,
            env={**os.environ, "TCP_NODELAY": "1"},
        )
        return count / (time.perf_counter() - begun)

    return send


def _crowd(images: Sequence[Image], count: int) -> Send:
    """Return a sender that opens many associations at one time; who is turned away comes again."""

    def send(receiver: Receiver) -> float:
        length = min(pdu_bytes_of(receiver.port, images[0].sop_class_uid), PDU_BYTES)
        messages = [image.message(length) for image in images]
        failed: list[str] = []

        def come() -> None:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while time.monotonic() < deadline:
                try:
                    send_all(receiver.port, messages, images[0].sop_class_uid)
                    return
                except TurnedAwayError:
                    time.sleep(RETRY_SECONDS)
                except OSError as error:
                    failed.append(str(error))
                    return
            failed.append("out of patience")

        threads = [threading.Thread(target=come) for _ in range(count)]
        begun = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - begun
        if failed:
            print(f"  {receiver.name}: {len(failed)} of {count} associations failed: {failed[0]}")
        return (count - len(failed)) * len(images) / seconds

    return send


def _one_by_one(images: Sequence[Image]) -> Send:
    def send(receiver: Receiver) -> float:
        length = min(pdu_bytes_of(receiver.port, images[0].sop_class_uid), PDU_BYTES)
        latencies = []
        for image in images:
            message = image.message(length)
            begun = time.perf_counter()
            association = Blast(receiver.port, image.sop_class_uid)
            status = association.store(message)
            association.release()
            latencies.append((time.perf_counter() - begun) * 1000)
            if status != 0:
                raise ConnectionError(f"status {status:04X}")
        return statistics.median(latencies)

    return send


def _large(image: Image, size: int) -> Image:
    """Return the image with so many bytes of pixels."""
    at = image.data.rindex(b"\xe0\x7f\x10\x00OW") + 8
    head = image.data[:at] + size.to_bytes(4, "little")
    return Image(
        sop_class_uid=image.sop_class_uid, sop_instance_uid=image.sop_instance_uid, data=head + bytes(size)
    )


def _raw_writes(images: Sequence[Image], folder: Path) -> Callable[[], dict[str, float]]:
    """Return what the disk takes when each file is synced before the next, as an answer needs it."""

    def write(*, everything: bool) -> float:
        raw = Path(tempfile.mkdtemp(dir=folder))
        directory = os.open(raw, os.O_RDONLY)
        begun = time.perf_counter()
        with (folder / "log").open("wb", buffering=0) as log:
            for number, image in enumerate(images):
                with (raw / str(number)).open("wb", buffering=0) as file:
                    file.write(image.data)
                    os.fsync(file.fileno())
                if everything:
                    os.fsync(directory)
                    log.write(bytes(4096))
                    os.fdatasync(log.fileno())
        rate = len(images) / (time.perf_counter() - begun)
        os.close(directory)
        return rate

    return lambda: {
        "raw write, fsync of each file": write(everything=False),
        "raw write, fsync of file and folder, 4 KiB to a log and fdatasync": write(everything=True),
    }


def _print(row: Row, measured: Sequence[Measured]) -> None:
    table = Table("receiver", row.unit, "spread", "ratio", "CPU ms/image", "peak MiB", "lost", title=row.name)
    for one in measured:
        table.add_row(
            one.receiver,
            f"{one.median:.1f}",
            f"{min(one.values):.1f} to {max(one.values):.1f}",
            f"{one.median / measured[0].median:.2f}",
            f"{statistics.median(one.cpu_ms):.2f}" if one.cpu_ms else "",
            f"{one.peak_mib:.0f}" if one.peak_mib else "",
            str(one.lost),
        )
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
