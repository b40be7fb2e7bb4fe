"""What do views made ahead of need save a training step?  python -m bench.ahead [data/NAME] [--preset demo]

Real steps on real batches, in one process: a loader for each number of batches made ahead, which take turns with the same model.
Beside the seconds of a step stand those that it waited for its views, and those of the processors.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import torch
import typer

from amdim.engine.precision import choose
from amdim.engine.presets import PRESETS, Preset
from amdim.errors import run_app
from amdim.pipeline import RECIPES, TwoViewLoader, Views
from bench.machine import describe
from bench.step import Arrangement, build, ladder

DEPTHS = (0, 1, 2, 4)
WARMUP = 2  # steps of a turn that are not counted: batches that were made before it began
CPU = torch.device("cpu")


class Stepper:
    """Takes training steps with a preset's model in our arrangement."""

    def __init__(self, preset: Preset) -> None:
        how: Arrangement = list(ladder(compiled=False, gpu=False).values())[-1]
        self.model, self.optimizer = build(preset, how, CPU)
        self.precision, self.batch = choose("auto", CPU), preset.batch

    def __call__(self, views: Views) -> None:
        with self.precision.autocast(CPU):
            total = self.model(views.x1, views.x2, views.label, torch.randint(25, (2, self.batch))).total
        self.optimizer.zero_grad()
        total.backward()
        self.optimizer.step()


def endless(loader: TwoViewLoader) -> Iterator[Views]:
    while True:
        yield from loader


def turn(step: Stepper, batches: Iterator[Views], steps: int) -> tuple[float, float, float]:
    """Seconds a step: on the clock, waiting for views, and of processors."""
    waited = 0.0
    for number in range(WARMUP + steps):
        if number == WARMUP:
            start, cpu, waited = time.perf_counter(), time.process_time(), 0.0
        asked = time.perf_counter()
        views = next(batches)
        waited += time.perf_counter() - asked
        step(views)
    return (time.perf_counter() - start) / steps, waited / steps, (time.process_time() - cpu) / steps


def main(
    data: Annotated[Path, typer.Argument(help="A shard set with ten classes.")] = Path("data/shapes"),
    preset: Annotated[str, typer.Option(help="Whose encoder, batch and recipe.")] = "demo",
    steps: Annotated[int, typer.Option(min=1, help="Of a turn.")] = 20,
    turns: Annotated[int, typer.Option(min=1, help="Of each number of batches.")] = 5,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,  # noqa: ARG001 - read by run_app
) -> None:
    row = PRESETS[preset]
    print(f"{describe()}, {torch.get_num_threads()} threads\nload before it began: {os.getloadavg()[0]:.1f}")
    print(f"{data}, preset {preset}, batches of {row.batch}; medians of {turns} turns of {steps} steps")
    step, recipe = Stepper(row), RECIPES[row.recipe]
    sources = {depth: endless(TwoViewLoader(data, ["train"], recipe, row.batch, prefetch=depth)) for depth in DEPTHS}
    taken: dict[int, list[tuple[float, float, float]]] = {depth: [] for depth in DEPTHS}
    for _ in range(turns):
        for depth, batches in sources.items():
            taken[depth].append(turn(step, batches, steps))
    print(f"{'batches ahead':>14}{'s a step':>10}{'min':>8}{'max':>8}{'waited':>9}{'CPU s':>8}")
    for depth, rows in taken.items():
        wall, waited, cpu = (statistics.median(column) for column in zip(*rows, strict=True))
        least, most = min(rows)[0], max(rows)[0]
        print(f"{depth:14}{wall:10.3f}{least:8.3f}{most:8.3f}{waited:9.3f}{cpu:8.3f}")


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(help=__doc__)(main)
    run_app(app, "python -m bench.ahead")
