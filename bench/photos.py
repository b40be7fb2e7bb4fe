"""Generated photographs, where ImageNet is not at hand: JPEG files of its stored size and about its number of bytes."""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from amdim.pipeline import RECIPES, TwoViewLoader
from bench.machine import seconds

COUNT, BATCH = 256, 64


def write_photos(directory: Path, count: int = COUNT, seed: int = 0) -> None:
    """JPEG files whose shorter side is 256, noise of three scales: some 25 KB each, as ImageNet's at this size."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        width = int(rng.integers(256, 385))
        image = np.zeros((256, width, 3), np.float32)
        for side, weight in ((4, 0.6), (24, 0.3), (128, 0.1)):
            coarse = Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8))
            image += weight * np.asarray(coarse.resize((width, 256), Image.Resampling.BICUBIC), np.float32)
        (directory / "all").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.astype(np.uint8)).save(directory / "all" / f"{number}.jpg", quality=90)


def two_views_a_second() -> float:
    """Images/s of two imagenet128 views of such files, on one thread of this CPU."""
    with TemporaryDirectory() as folder:
        source, out = Path(folder, "photos"), Path(folder, "set")
        write_photos(source)
        build = [sys.executable, "-m", "shards", "build", "folder", "--src", str(source), "--out", str(out), "--val", "0.05"]
        subprocess.run([*build, "--workers", "1"], check=True, capture_output=True)
        views = endless(TwoViewLoader(out, ["train"], RECIPES["imagenet128"], BATCH, threads=1))
        return BATCH / statistics.median(seconds(lambda: next(views), 12))


def endless(loader):  # type: ignore[no-untyped-def]
    while True:
        yield from loader
