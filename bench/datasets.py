"""How long would the published data sets take here?  python -m bench.datasets

Of each, a few hundred synthetic pictures of the real size and layout are built in one process, and the rate is multiplied by the
number of real images. Listing an archive is timed on a tar of empty spaces with as many headers as one tenth of ImageNet has.
"""

from __future__ import annotations

import io
import tarfile
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image

from amdim.errors import run_app
from amdim.shards.build import build
from amdim.shards.sample_list import Listing
from amdim.shards.sources import cifar, imagenet, places205, stl10
from amdim.shards.sources.base import Encoding, Source
from amdim.shards.tar_reader import members
from bench.machine import describe

COUNT = 300
HEADERS, SPACE = 128_000, 110_000  # members, bytes of each
ENCODING = Encoding(256, 90)


def main(debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False) -> None:  # noqa: ARG001 - read by run_app
    print(describe())
    with tempfile.TemporaryDirectory(dir=".") as scratch:
        _list(Path(scratch) / "headers.tar")
        for name, (make, images) in SETS.items():
            (src := Path(scratch) / name).mkdir()
            _build(name, make(src), Path(scratch) / f"{name}-out", images)


def photograph(width: int, height: int, seed: int) -> NDArray[np.uint8]:
    """A smooth ground with some noise: as JPEG of quality 95 it takes about what a photograph takes."""
    rng = np.random.default_rng(seed)
    ground = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    noisy = np.asarray(ground, np.float32) + rng.normal(0, 9, (height, width, 1)).astype(np.float32)
    return noisy.clip(0, 255).astype(np.uint8)


def jpeg(width: int, height: int, seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(photograph(width, height, seed)).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def _imagenet(src: Path) -> Source:
    for split in ("train", "val"):
        (src / split / "n01440764").mkdir(parents=True)
        for number in range(COUNT // 2):
            (src / split / "n01440764" / f"{number}.JPEG").write_bytes(jpeg(500, 375, number))
    return imagenet.source(src, ENCODING)


def _places205(src: Path) -> Source:
    (src / "a/abbey").mkdir(parents=True)
    names = [f"a/abbey/{number}.jpg" for number in range(COUNT)]
    for number, name in enumerate(names):
        (src / name).write_bytes(jpeg(256, 256, number))
    for split, part in (("train", names[::2]), ("val", names[1::2])):
        (src / f"{split}_places205.csv").write_text("".join(f"{name} 0\n" for name in part))
    return places205.source(src, ENCODING)


def _cifar10(src: Path) -> Source:
    record = b"".join(b"\0" + photograph(32, 32, number).transpose(2, 0, 1).tobytes() for number in range(COUNT))
    for name in (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"):
        (src / name).write_bytes(record)
    (src / "batches.meta.txt").write_text("airplane\n")
    return cifar.source("cifar10", src)


def _stl10(src: Path) -> Source:
    pixels = b"".join(photograph(96, 96, number).transpose(2, 1, 0).tobytes() for number in range(COUNT))
    for name in ("train", "test", "unlabeled"):
        (src / f"{name}_X.bin").write_bytes(pixels)
        (src / f"{name}_y.bin").write_bytes(b"\1" * COUNT)
    (src / "class_names.txt").write_text("airplane\n")
    return stl10.source(src)


SETS: dict[str, tuple[Callable[[Path], Source], int]] = {
    "imagenet": (_imagenet, 1_331_167),
    "places205": (_places205, 2_469_373),
    "cifar10": (_cifar10, 60_000),
    "stl10": (_stl10, 113_000),
}


def _build(name: str, source: Source, out: Path, images: int) -> None:
    start = time.process_time()
    made = build(source, out, seed=0, workers=1, max_rejected=0, overwrite=False, show=lambda _: None).manifest
    samples = sum(split.samples for split in made.splits.values())
    rate = samples / (time.process_time() - start)
    size = sum(shard.bytes for split in made.splits.values() for shard in split.shards) / samples
    hours = images / rate / 3600
    print(f"{name:10}{rate:8,.0f} images/s of a core's time, {size / 1e3:6.1f} kB each in shards: ", end="")
    print(f"{images:,} images in {hours:.2f} core hours, {size * images / 1e9:.1f} GB")


def _list(path: Path) -> None:
    """A tar whose contents are holes, so that it takes little disk; every header is where it would be."""
    with path.open("wb") as file:
        for number in range(HEADERS):
            info = tarfile.TarInfo(f"n01440764_{number}.JPEG")
            info.size = SPACE
            file.write(info.tobuf())
            file.seek(-(-SPACE // 512) * 512, io.SEEK_CUR)
        file.write(bytes(1024))
    start = time.process_time()
    count = len(_listed(path))
    seconds = time.process_time() - start
    tracemalloc.start()
    kept = _listed(path)
    memory, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"listing   {count / seconds:8,.0f} members/s, {memory / len(kept):.0f} bytes each, {peak / 1e6:.1f} MB at most")


def _listed(path: Path) -> Listing:
    listing = Listing(width=3)
    with path.open("rb") as file:
        for member in members(file, str(path)):
            listing.add(member.name, 0, (0, member.offset, member.size))
    return listing


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(help=__doc__)(main)
    run_app(app, "python -m bench.datasets")
