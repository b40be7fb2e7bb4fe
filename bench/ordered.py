"""What does a set that is sorted by class cost?  python -m bench.ordered [--steps 780] [--seeds 3]

The training images of shapes are packed into tars twice, as others may have packed theirs: sorted by class, and shuffled. Either
is adopted as it is (``make shards DATA=webdataset``), trained on with the demo's preset, and probed on the same validation set.
There are five times as many tars as the order mixes at a time, so that a batch of the sorted set holds few of the ten classes.
"""

from __future__ import annotations

import json
import statistics
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from amdim.errors import run_app
from amdim.pipeline import TwoViewLoader
from amdim.pipeline.augment.recipes import SHAPES32
from amdim.pipeline.sampler import WINDOW
from amdim.shards import index, manifest
from bench.learns import call
from bench.machine import describe

TARS, BATCH = 5 * WINDOW, 128
Sample = list[tuple[str, bytes]]  # names and contents of its files


def main(
    steps: Annotated[int, typer.Option(help="Of each training.")] = 780,
    seeds: Annotated[int, typer.Option(min=1, help="How many, from 0.")] = 1,
    runs: Annotated[Path, typer.Option(help="Where the tars and the runs go.")] = Path("runs/bench"),
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,  # noqa: ARG001 - read by run_app
) -> None:
    built = Path("data/shapes")
    call("-m", "shards", "build", "shapes", "--out", str(built))
    print(f"{describe()}\n{TARS} tars, {WINDOW} mixed at a time, {steps} steps of {BATCH}")
    print(f"{'':10}{'seed':>5}{'classes a batch':>17}{'loss':>9}{'linear':>9}{'kNN':>9}")
    for name in ("shuffled", "sorted"):
        packed = pack(built, runs / f"shapes-{name}", by_class=name == "sorted")
        rows = [learn(packed, runs, seed, steps) for seed in range(seeds)]
        for seed, (classes, loss, linear, knn) in enumerate(rows):
            print(f"{name:10}{seed:5}{classes:17.1f}{loss:9.3f}{linear:9.2%}{knn:9.2%}", flush=True)
        means = [statistics.mean(column) for column in zip(*rows, strict=True)]
        print(f"{name:10}{'mean':>5}{means[0]:17.1f}{means[1]:9.3f}{means[2]:9.2%}{means[3]:9.2%}  n {seeds}")


def pack(built: Path, out: Path, by_class: bool) -> Path:
    """The images of a set in new tars, which are then adopted; the validation images in one more."""
    if not (out / manifest.FILE).exists():
        out.mkdir(parents=True, exist_ok=True)
        samples = list(read(built, "train"))
        if by_class:
            samples.sort(key=label)
        for number, part in enumerate(np.array_split(np.arange(len(samples)), TARS)):
            write(out / f"train-{number:05}.tar", [samples[i] for i in part])
        write(out / "val-00000.tar", list(read(built, "val")))
        call("-m", "shards", "build", "webdataset", "--src", str(out))
    return out


def read(root: Path, split: str) -> Iterator[Sample]:
    """The samples of a split, as they lie in its shards: in random order."""
    for shard in manifest.load(root).splits[split].shards:
        with (root / shard.file).open("rb") as file:
            for entry in index.read_idx((root / shard.file).with_suffix(".idx")):
                yield [(member.name, index.read_member(file, member)) for member in entry]


def label(sample: Sample) -> int:
    return next(int(data) for name, data in sample if name.endswith(".cls"))


def write(tar: Path, samples: list[Sample]) -> None:
    with tarfile.open(tar, "w") as archive:
        for name, data in (member for sample in samples for member in sample):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, BytesIO(data))


def learn(data: Path, runs: Path, seed: int, steps: int) -> tuple[float, float, float, float]:
    """Trains and probes once: classes in a batch of the first epoch, the last loss, top-1 of both probes."""
    run = runs / f"{data.name}-seed{seed}"
    length = ("--preset", "demo", "--batch-size", str(BATCH), "--steps", str(steps))
    call("train.py", "--data", str(data), "--gpus", "0", *length, "--seed", str(seed), "--run", str(run), "--quiet")
    call("eval.py", "--probe", "linear,knn", "--run", str(run), "--gpus", "0")
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    tops = [json.loads((run / f"eval-{probe}.json").read_text())["top1"] for probe in ("linear", "knn")]
    return classes_in_a_batch(data, seed), last["loss"], tops[0], tops[1]


def classes_in_a_batch(data: Path, seed: int) -> float:
    loader = TwoViewLoader(data, ["train"], SHAPES32, BATCH, seed=seed)
    return statistics.mean(len(np.unique(loader.store.labels[loader.samples(0, step)])) for step in range(len(loader)))


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(help=__doc__)(main)
    run_app(app, "python -m bench.ordered")
