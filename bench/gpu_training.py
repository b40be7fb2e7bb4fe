"""How near does training on a GPU come to the step alone, and what do views cost?  python -m bench.gpu_training [--preset NAME]

Generated photographs (``bench.photos``), each recipe in two ways: ended by Triton's kernels, and all of it in DALI's graph. Views
alone are taken as fast as they come; training is what ``train.py`` does a step; the step alone has one batch again and again.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any
from unittest import mock

import torch
import typer

from amdim import train
from amdim.engine.distributed.dist_env import DistEnv
from amdim.engine.presets import PRESETS, Preset
from amdim.engine.runs import Config
from amdim.errors import UsageError, UserError, run_app
from amdim.pipeline import RECIPES, TwoViewLoader, dali
from bench.gpu_skip import Skip, need_gpu
from bench.machine import describe
from bench.photos import write_photos

ROOT = Path(__file__).parent.parent
CLASSES, EACH = 16, 512  # photographs: enough that an epoch has a dozen batches
RECIPE_NAMES = ("imagenet128", "strong128")
WARM = 5
WAYS: dict[str, Callable[[torch.device], bool]] = {"Triton": dali.is_available, "graph": lambda _: False}
HERE = torch.device("cuda", 0)


def photographs(folder: Path, each: int) -> Path:
    """A set of generated photographs."""
    with ProcessPoolExecutor() as pool:
        numbers = range(CLASSES)
        list(pool.map(write_photos, [folder / f"images/class{number}" for number in numbers], [each] * CLASSES, numbers))
    build = [sys.executable, "-m", "shards", "build", "folder", "--src", str(folder / "images"), "--out", str(folder / "set")]
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    subprocess.run(build, check=True, capture_output=True, env=os.environ | {"PYTHONPATH": paths})
    return folder / "set"


def seconds_each(work: Callable[[], object], count: int) -> float:
    """Of ``count`` calls, the device's work included, after some that are not counted."""
    for _ in range(WARM):
        work()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(count):
        work()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / count


def endless(loader: TwoViewLoader) -> Iterator[Any]:
    while True:
        yield from loader


def step_alone(trainer: train.Trainer, loader: TwoViewLoader, steps: int) -> float:
    B = loader.batch
    x1, x2 = (x.clone() for x in next(endless(loader))[:2])
    label, locations = (torch.zeros(shape, dtype=torch.int64, device=HERE) for shape in ((B,), (2, B)))
    return seconds_each(lambda: trainer.update(x1, x2, label, locations), steps)


def training(trainer: train.Trainer, loader: TwoViewLoader, steps: int) -> float:
    trainer.loader, batches = loader, train.stream(loader)
    return seconds_each(lambda: train.advance(trainer, batches), steps)


def rows(root: Path, preset: Preset, steps: int) -> Iterator[tuple[str, float]]:
    """What is measured, and seconds a batch."""

    def loader(name: str) -> TwoViewLoader:
        return TwoViewLoader(root, ["train"], RECIPES[name], preset.batch, device=HERE)

    first = loader(RECIPE_NAMES[0])
    trainer = train.Trainer(Config("", "", preset, 10**6, 0, "auto", "", compiled="auto"), first, DistEnv(0, 1, HERE))
    trainer.model.train()
    yield "step alone", step_alone(trainer, first, steps)
    for name in RECIPE_NAMES:
        for way, serves in WAYS.items():
            with mock.patch.object(dali, "is_available", serves):
                views = endless(loader(name))
                yield f"{name}, {way}: views alone", seconds_each(lambda views=views: next(views), steps)  # type: ignore[misc]
                del views  # and its pipeline, before another one works
                yield f"{name}, {way}: training", training(trainer, loader(name), steps)


def main(
    preset: Annotated[str, typer.Option(help="Whose encoder, of 128 pixels.")] = "imagenet-small",
    batch: Annotated[int | None, typer.Option(min=2, help="Images a step.", show_default="the preset's")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Counted of each.")] = 20,
    photos: Annotated[int, typer.Option(min=1, help="Photographs a class, of 16.")] = EACH,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,  # noqa: ARG001 - read by run_app
) -> None:
    try:
        need_gpu()
    except Skip as reason:
        raise UserError(f"{reason}; nothing of this is about a CPU") from reason
    if preset not in PRESETS or PRESETS[preset].encoder.size != 128:
        sized = [name for name, row in PRESETS.items() if row.encoder.size == 128]
        raise UsageError(f"--preset {preset}: give one of 128 pixels: {', '.join(sized)}")
    row = replace(PRESETS[preset], batch=batch or PRESETS[preset].batch)
    print(f"{describe()}\n{row.encoder}, batch {row.batch}, {steps} steps of each")
    with TemporaryDirectory() as folder:
        for title, seconds in rows(photographs(Path(folder), photos), row, steps):
            print(f"{title:34}{row.batch / seconds:9,.0f} images/s{1e3 * seconds:9.1f} ms", flush=True)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(help=__doc__)(main)
    run_app(app, "python -m bench.gpu_training")
