"""How far is the order from a full shuffle, and what does it do to reads?  python -m bench.locality [--gib 8] [data/NAME]

The class mix of batches: of as many images and classes as ImageNet has, in shards packed in random order, as ours are, and sorted
by class, as others' may be. Labels alone, no images.

Then reads that the page cache does not hold: one at a time, and as a loader makes them, which tells the system of a batch's
images before it reads the first. Of shards of random bytes written here, or of the data set that is named. Before each turn the
files are dropped from the cache (``posix_fadvise``), and what came from the disk is counted by the system, where it counts.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from amdim.errors import run_app
from amdim.pipeline.sample_store import SampleStore
from amdim.pipeline.sampler import WINDOW, epoch_order
from amdim.shards import manifest as manifests
from amdim.shards.index import INDEX_DTYPE, UNLABELLED
from amdim.shards.manifest import Manifest, Shard, Split
from bench.machine import describe

SAMPLES, CLASSES, SHARDS, BATCH = 1_281_167, 1_000, 550, 256
WINDOWS = (1, WINDOW, 32, 128)
BUFFER = 5_000  # images in the buffer of a shuffle as the webdataset library makes it
IMAGE, SHARD_BYTES = 110_000, 128 << 20
READS = 4_000  # images of a turn


def main(
    data: Annotated[Path | None, typer.Argument(help="A shard set.", show_default="random bytes, written here")] = None,
    gib: Annotated[float, typer.Option(help="Of random bytes: more than a disk keeps in its own cache.")] = 4,
    turns: Annotated[int, typer.Option(help="Of each order.")] = 3,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,  # noqa: ARG001 - read by run_app
) -> None:
    print(f"{describe()}\nload before it began: {os.getloadavg()[0]:.1f}")
    show_mix()
    with shards_to_read(data, gib) as store:
        show_reads(store, turns)


def show_mix() -> None:
    """A row an order: what batches hold. Chi-square is of class counts, over its degrees of freedom: 1 is what chance gives."""
    sizes = [len(part) for part in np.array_split(np.arange(SAMPLES), SHARDS)]
    by_class = np.arange(SAMPLES) * CLASSES // SAMPLES
    packed = {"packed in random order": np.random.default_rng(0).permutation(by_class), "sorted by class": by_class}
    print(f"\n{SAMPLES:,} images of {CLASSES:,} classes in {SHARDS} shards, batches of {BATCH}")
    print(f"{'':46}{'classes a batch':>16}{'chi-square / df':>17}{'pairs of a class':>18}")
    for how, labels in packed.items():
        for name, order in orders(sizes).items():
            classes, chi, pairs = mix(labels[order])
            print(f"{how + ', ' + name:46}{classes:16.1f}{chi:17.2f}{pairs:18.2%}", flush=True)


def orders(sizes: list[int]) -> dict[str, np.ndarray]:
    windows = {f"windows of {window}": epoch_order(sizes, 0, 0, window) for window in WINDOWS}
    return {"full shuffle": shuffled(sum(sizes))} | windows | {f"buffer of {BUFFER:,}": buffered(sizes)}


def shuffled(count: int) -> np.ndarray:
    return np.random.default_rng(1).permutation(count)


def buffered(sizes: list[int]) -> np.ndarray:
    """Shards in random order through a buffer: each image that comes in sends out one of those that are there."""
    rng = np.random.default_rng(2)
    starts = np.cumsum([0, *sizes])
    stream = np.concatenate([np.arange(starts[shard], starts[shard + 1]) for shard in rng.permutation(len(sizes))]).tolist()
    held, out = stream[:BUFFER], []
    for sample, place in zip(stream[BUFFER:], rng.integers(0, BUFFER, len(stream) - BUFFER).tolist(), strict=True):
        out.append(held[place])
        held[place] = sample
    return np.array(out + rng.permutation(held).tolist())


def mix(labels: np.ndarray) -> tuple[float, float, float]:
    """Of the batches of an epoch: distinct classes, chi-square over its degrees of freedom, share of pairs of one class."""
    steps = len(labels) // BATCH
    number = np.repeat(np.arange(steps), BATCH) * CLASSES + labels[: steps * BATCH]
    counts = np.bincount(number, minlength=steps * CLASSES).reshape(steps, CLASSES)
    squares = (counts**2).sum(1)
    chi = squares * CLASSES / BATCH - BATCH  # classes are equally large
    return (counts > 0).sum(1).mean(), chi.mean() / (CLASSES - 1), ((squares - BATCH) / (BATCH * (BATCH - 1))).mean()


@contextmanager
def shards_to_read(data: Path | None, gib: float) -> Iterator[SampleStore]:
    if data is not None:
        yield SampleStore(data, ["train"])
        return
    with tempfile.TemporaryDirectory(dir=".") as scratch:
        write_random(Path(scratch), max(2 * WINDOW, int(gib * 2**30 / SHARD_BYTES)))
        yield SampleStore(Path(scratch), ["train"])


def write_random(root: Path, count: int) -> None:
    """A set whose shards hold random bytes where images would be, the same in each."""
    data = np.random.default_rng(0).bytes(SHARD_BYTES)
    per_shard = SHARD_BYTES // IMAGE
    rows = np.zeros(per_shard, INDEX_DTYPE)
    rows["offset"], rows["size"], rows["label"] = np.arange(per_shard) * IMAGE, IMAGE, UNLABELLED
    rows["crc"] = [zlib.crc32(data[start : start + IMAGE]) for start in rows["offset"]]
    files = [f"train-{number:05}.tar" for number in range(count)]
    for file in files:
        with (root / file).open("wb") as out:
            out.write(data)
            os.fsync(out.fileno())  # only what is on the disk can be dropped from the cache
        np.save((root / file).with_suffix(".npy"), rows)
    shards = tuple(Shard(file, per_shard, SHARD_BYTES, "") for file in files)
    splits = {"train": Split(count * per_shard, 0, shards)}
    manifests.save(Manifest("random", (), (0.5,) * 3, (0.25,) * 3, splits, {}, {}), root)


def show_reads(store: SampleStore, turns: int) -> None:
    count = len(store)
    epoch, full = epoch_order(store.shard_sizes, 0, 0), shuffled(count)
    ways = {  # samples, and how many the system is told of at a time
        "in the order of the files": (np.arange(count), 1),
        f"windows of {WINDOW}, one at a time": (epoch, 1),
        "fully shuffled, one at a time": (full, 1),
        f"windows of {WINDOW}, as the loader": (epoch, BATCH),
        "fully shuffled, as the loader": (full, BATCH),
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(turns):
        for name, (order, batch) in ways.items():
            taken[name].append(read(store, order[:READS], batch))
    total, shown = store.length.sum() / 2**30, min(READS, count)
    print(f"\nreading {shown:,} of {count:,} images, {total:.1f} GiB in {len(store.shards)} shards; medians of {turns}")
    print(f"{'':46}{'images/s':>10}{'MB/s':>8}{'from disk':>11}{'shards in 1,000':>17}")
    for name, (order, _) in ways.items():
        seconds, disk = (statistics.median(column) for column in zip(*taken[name], strict=True))
        rows, size = order[:READS], store.length[order[:READS]].sum()
        shards = statistics.mean(len({store.shard_of(i) for i in rows[k : k + 1_000]}) for k in range(0, len(rows), 1_000))
        print(f"{name:46}{len(rows) / seconds:10,.0f}{size / seconds / 1e6:8,.0f}{disk / size:10.2f}x{shards:17.0f}")


def read(store: SampleStore, rows: np.ndarray, batch: int) -> tuple[float, float]:
    """Seconds, and bytes that came from the disk, of reading images that no cache of this machine holds."""
    for shard in store.shards:
        os.posix_fadvise(store.set.open(shard).fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    before, start = from_disk(), time.perf_counter()
    for k in range(0, len(rows), batch):
        store.batch(rows[k : k + batch]) if batch > 1 else store.encoded(rows[k])
    return time.perf_counter() - start, from_disk() - before


def from_disk() -> float:
    """Bytes that the system has fetched from disks for this process; not a number where it does not say."""
    try:
        fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
        return float(fields["read_bytes"])
    except (OSError, KeyError):
        return float("nan")


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(help=__doc__)(main)
    run_app(app, "python -m bench.locality")
