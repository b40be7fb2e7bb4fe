"""What a build costs beside its pixels, what two workers give, what shrinking in the decoder changes, and how large a plan is.

    python -m bench.shards [--images 4000] [--side 500] [--plan 14000000]

The bare loop reads, decodes, shrinks and encodes the same files, in the same kind of processes, and keeps nothing. A first
pass is not counted, so that the disk is out of it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from amdim.engine.monitor.resident_memory import most_resident
from amdim.errors import run_app
from amdim.shards import worker_pool
from amdim.shards.build import build
from amdim.shards.images.encode import encode_png, store
from amdim.shards.plan import Plan
from amdim.shards.sample_list import Listing
from amdim.shards.sources import folder
from amdim.shards.sources.base import Encoding, Raw, Sample, Source
from amdim.shards.writer import Job
from bench.machine import describe

ENCODING = Encoding(256, 90)
REPEATS = 3


def main(
    images: Annotated[int, typer.Option(help="Photographs made for the purpose.")] = 4000,
    side: Annotated[int, typer.Option(help="Their longer side in pixels.")] = 500,
    plan: Annotated[int, typer.Option(help="Samples of the synthetic listing; 0 leaves it out.")] = 14_000_000,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,  # noqa: ARG001 - read by run_app
) -> None:
    print(describe())
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        make_photographs(home / "src", images, side)
        builds(home, images)
    drafts()
    if plan:
        subprocess.run([sys.executable, "-c", f"from bench.shards import planned; planned({plan})"], check=True)


def builds(home: Path, images: int) -> None:
    """Bare loop and build by turns, on one worker and on two; the median of each."""
    spent: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for repeat in range(REPEATS + 1):
        for workers in (1, 2):
            for name, work in (("bare loop", bare), ("build", whole)):
                cpu = sum(os.times()[:4])
                wall = timed(lambda work=work, workers=workers: work(home, workers))  # type: ignore[misc]
                if repeat:  # the first warms the page cache
                    spent.setdefault((name, workers), []).append((wall, sum(os.times()[:4]) - cpu))
    median = {each: np.median(found, axis=0) for each, found in spent.items()}
    for (name, workers), (wall, cpu) in median.items():
        rate, each = images / wall, 1e3 * cpu / images
        print(f"{name:10} {workers} workers  {rate:6,.0f} images/s  {each:6.2f} ms of CPU time an image  n {REPEATS}")
    for workers in (1, 2):
        wall, cpu = median["build", workers] / median["bare loop", workers] - 1
        print(f"overhead   {workers} workers  {wall:.1%} by the clock, {cpu:.1%} in CPU time")
    print(f"two workers give {median['build', 1][0] / median['build', 2][0]:.2f} times one")


def timed(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def source_of(home: Path) -> Source:
    return folder.source(home / "src", ENCODING, 0, 0.0, unlabeled=False)


def whole(home: Path, workers: int) -> None:
    options = {"seed": 0, "max_rejected": 0.0, "overwrite": True}
    build(source_of(home), home / "out", workers=workers, show=lambda _: None, **options)  # type: ignore[arg-type]


def bare(home: Path, workers: int) -> None:
    plan = Plan(source_of(home), home / "out", 0)
    worker_pool.run(encode_all, plan, workers, lambda _: None, lambda *_: None)


def encode_all(job: Job, tick: worker_pool.Tick) -> None:
    for sample in job.samples:
        store(job.read(sample).image, job.encoding)
    tick(len(job.samples))


def make_photographs(root: Path, images: int, side: int) -> None:
    """Smooth pictures with grain, of about the size in bytes of ImageNet's; 50 are drawn, and written under many names."""
    drawn = [photograph(seed, side, side * 3 // 4) for seed in range(50)]
    for number in range(images):
        path = root / f"{number % 10}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(drawn[number % len(drawn)])


def photograph(seed: int, width: int, height: int) -> bytes:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    grainy = np.asarray(coarse) + rng.normal(0, 8, (height, width, 3))
    buffer = BytesIO()
    Image.fromarray(grainy.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def drafts() -> None:
    """What it changes that the JPEG decoder shrinks large photographs to twice the size wanted, against the filter alone."""
    for width, height in ((1600, 1200), (4000, 3000)):
        data = photograph(0, width, height)
        pixels = store(data, ENCODING).pixels
        filtered = Image.open(BytesIO(data)).resize(pixels.size, Image.Resampling.BICUBIC)
        difference = np.abs(np.asarray(pixels, int) - np.asarray(filtered, int))
        shrunk = min(timed(lambda data=data: void(store(data, ENCODING))) for _ in range(5))  # type: ignore[misc]
        plain = min(timed(lambda data=data: void(store_filtered(data))) for _ in range(5))  # type: ignore[misc]
        print(
            f"{width} x {height}: {1e3 * shrunk:.1f} ms, by the filter alone {1e3 * plain:.1f} ms; "
            f"levels differ by {difference.mean():.2f} on average, {difference.max()} at most"
        )


def store_filtered(data: bytes) -> bytes:
    buffer = BytesIO()
    image = Image.open(BytesIO(data))
    scale = ENCODING.size / min(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    image.resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=ENCODING.quality, subsampling="4:2:0")
    return buffer.getvalue()


def void(_: object) -> None:
    return None


def planned(count: int) -> None:
    """Lists ``count`` samples under names like ImageNet's, plans their shards, and makes every job once."""
    start = time.perf_counter()
    listing = Listing(width=1)
    for number in range(count):
        wnid = f"n{1440764 + number // 700:08d}"
        listing.add(f"{wnid}/{wnid}_{number % 700}.JPEG", number // 700, (110_000 + number % 1000,))
    plan = Plan(Source("synthetic", (), {"train": listing}, drawn, ENCODING), Path("out"), 0)
    seen = sum(len(plan[number].samples) for number in range(len(plan)))
    peak = most_resident() / 1e9
    print(f"plan: {seen:,} samples in {len(plan):,} shards, {peak:.2f} GB at most, {time.perf_counter() - start:.0f} s")


def drawn(sample: Sample) -> Raw:
    """About as large as an image of the set."""
    pixels = np.random.default_rng(sample.label).integers(0, 256, (190, 190, 3), np.uint8)
    return Raw(encode_png(pixels))


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(help=__doc__)(main)
    run_app(app, "python -m bench.shards")
