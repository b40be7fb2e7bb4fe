"""What do the presets for two CPU cores reach, and in what time?  python -m bench.learns NAME [--seeds 3]

Builds the data set if it is not there, trains its default preset on the CPU with each seed, probes, and prints a row a seed
and their mean; a random encoder and raw pixels beside the first. NAME is shapes or fashion-mnist.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from amdim.engine.presets import default_preset
from amdim.errors import UserError, run_app
from bench.machine import describe

PROBES = ("linear", "mlp", "knn")


def call(*arguments: str) -> float:
    """Runs a command of ours; its wall seconds.

    Raises:
        UserError: it failed; its own error stands above.
    """
    start = time.perf_counter()
    if subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=False).returncode:
        raise UserError(f"{' '.join(arguments)}: failed")
    return time.perf_counter() - start


def learn(data: Path, runs: Path, seed: int, baselines: bool = True) -> dict[str, Any]:
    """Trains and probes once: the probes' results, and ``minutes`` of training, start-up included."""
    run = runs / f"{data.name}-seed{seed}"
    anew = ("--run", str(run), "--resume", "never", "--quiet")
    minutes = call("train.py", "--data", str(data), "--gpus", "0", "--seed", str(seed), *anew) / 60
    beside = () if baselines else ("--no-baselines",)
    call("eval.py", "--probe", ",".join(PROBES), "--run", str(run), "--gpus", "0", *beside)
    return {"minutes": minutes} | {probe: json.loads((run / f"eval-{probe}.json").read_text()) for probe in PROBES}


def row(result: dict[str, Any]) -> str:
    cells = [f"{result['minutes']:8.1f}"]
    for probe in PROBES:
        found = (result[probe][name] for name in ("top1", "top1_random_init", "top1_raw_pixels"))
        cells.append(" ".join(f"{'–' if value is None else f'{value:.2%}':>10}" for value in found))
    return "  ".join(cells)


def main(
    name: Annotated[str, typer.Argument(help="shapes or fashion-mnist.")],
    seeds: Annotated[int, typer.Option(min=1, help="How many, from 0.")] = 1,
    runs: Annotated[Path, typer.Option(help="Where the runs go.")] = Path("runs/bench"),
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,  # noqa: ARG001 - read by run_app
) -> None:
    data = Path("data") / name
    call("-m", "shards", "build", name, "--out", str(data))
    print(
        f"{describe()}\n{name}, preset {default_preset(name, gpu=False)}; top-1 of the trained encoder, a random one, raw pixels"
    )
    print("seed   minutes  " + "  ".join(f"{probe:>32}" for probe in PROBES))
    results = []
    for seed in range(seeds):
        results.append(learn(data, runs, seed, baselines=seed == 0))
        print(f"{seed:4} {row(results[-1])}", flush=True)
    for probe in PROBES:
        tops = [result[probe]["top1"] for result in results]
        print(f"{probe}: mean {statistics.mean(tops):.2%}, min {min(tops):.2%}, max {max(tops):.2%}, n {seeds}")


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(help=__doc__)(main)
    run_app(app, "python -m bench.learns")
