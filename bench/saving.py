"""For how long does a checkpoint stop training?  python -m bench.saving [--preset NAME]

The state of a preset (weights and both of Adam's moments) is saved several times: in the loop, as safetensors' and torch's own
writers do it, and beside it. Beside stands the longest time for which a loop that only counts was kept from counting while the
other thread wrote: a writer that keeps Python's lock stops training too.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
import typer
from safetensors.torch import save_file
from torch import Tensor

from amdim.engine import checkpoint
from amdim.engine.async_checkpointer import AsyncCheckpointer
from amdim.engine.presets import PRESETS
from amdim.errors import UsageError, run_app
from amdim.model import AMDIM
from bench.machine import describe

CONFIG: dict[str, Any] = {"data": "", "settings": {}, "seed": 0}
TICK = 0.0005  # seconds that the counting loop rests


def state_of(preset: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    weights = AMDIM(PRESETS[preset].encoder, 1000).state_dict()
    floats = [tensor for tensor in weights.values() if tensor.is_floating_point()]
    moments = {number: {"exp_avg": tensor.clone(), "exp_avg_sq": tensor.clone()} for number, tensor in enumerate(floats)}
    return weights, {"step": 0, "optimizer": moments}


def longest_gap(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds that ``work`` takes in a thread, and the longest between two counts of this one."""
    thread, last, longest = threading.Thread(target=work), time.perf_counter(), 0.0
    began = last
    thread.start()
    while thread.is_alive():
        time.sleep(TICK)
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    return time.perf_counter() - began, longest


def theirs(root: Path, weights: dict[str, Tensor], trainer: dict[str, Any]) -> None:
    """The two files by the usual means."""
    save_file(weights, root / "model.safetensors")
    torch.save(trainer, root / "trainer.pt")


def main(
    preset: Annotated[str, typer.Option(help="Whose state.")] = "stl10",
    repeats: Annotated[int, typer.Option(min=1)] = 5,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,  # noqa: ARG001 - read by run_app
) -> None:
    if preset not in PRESETS:
        raise UsageError(f"--preset {preset}: there is no such preset; there are {', '.join(PRESETS)}")
    weights, trainer = state_of(preset)
    print(f"{describe()}\n{preset}, medians of {repeats}")
    with TemporaryDirectory() as folder:
        root, usual, ours = Path(folder), [], []
        for _ in range(repeats):
            usual.append(longest_gap(lambda: theirs(root, weights, trainer)))
            ours.append(longest_gap(lambda: checkpoint.save(root / "ours", 1, weights, trainer, CONFIG)))
        with AsyncCheckpointer(root / "beside", CONFIG) as writer:
            copies = []
            for step in range(repeats + 1):
                writer.save(step, weights, trainer)
                writer.settle()
                assert writer.last is not None
                copies.append(writer.last.copy_s)
        size = sum(file.stat().st_size for file in (root / "ours" / "step-1").iterdir())
    print(f"{size / 1e6:,.0f} MB; the copy that training waits for: {copies[0]:.3f} s at first, then {middle(copies[1:]):.3f} s")
    for name, times in (("their own writers, not flushed", usual), ("ours, flushed to the disk", ours)):
        print(f"{name}: {middle([t for t, _ in times]):.2f} s, longest stop beside it {middle([g for _, g in times]):.3f} s")


def middle(values: list[float]) -> float:
    return statistics.median(values)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(help=__doc__)(main)
    run_app(app, "python -m bench.saving")
