"""How far do the two protocols of probing lie apart?  python -m bench.probe_protocols --run NAME [--data NAME] [--views 0,2,4]

Probes a run's encoder with features extracted once (with each number of augmented views) and as the paper does, with new views in
every epoch, and prints a row each: top-1 and its distance from the paper's protocol, in points, and the seconds it took.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from amdim.engine import runs
from amdim.errors import run_app
from bench.learns import call
from bench.machine import describe

PROBES = ("linear", "mlp")


def measure(run: Path, arguments: list[str]) -> dict[str, Any]:
    """The results of both probes, by name; of a copy, as the run's own results are not to be replaced."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = shutil.copytree(run, Path(scratch) / run.name, ignore=shutil.ignore_patterns("features", "left-*", "events*"))
        call("eval.py", "--probe", ",".join(PROBES), "--run", str(copy), "--no-baselines", *arguments)
        return {probe: json.loads((copy / f"eval-{probe}.json").read_text()) for probe in PROBES}


def row(name: str, found: dict[str, Any], paper: dict[str, Any]) -> str:
    return f"{name:24} " + "   ".join(cell(found[probe], paper[probe]["top1"]) for probe in PROBES)


def cell(found: dict[str, Any], paper: float) -> str:
    return f"{found['top1']:8.2%} {100 * (found['top1'] - paper):+7.2f} {found['seconds']:9.0f} s"


def main(
    run: Annotated[str, typer.Option(help="A run's name or directory.")],
    data: Annotated[str | None, typer.Option(help="A shard set.", show_default="the run's")] = None,
    views: Annotated[str, typer.Option(help="Augmented views to try, with commas.")] = "0,2,4",
    epochs: Annotated[float | None, typer.Option(help="Of the paper's protocol.", show_default="its own")] = None,
    gpus: Annotated[int, typer.Option(help="0 is the CPU.")] = 0,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,  # noqa: ARG001 - read by run_app
) -> None:
    where = runs.run_path(run)
    common = ["--gpus", str(gpus), *(["--data", data] if data else [])]
    paper = measure(where, [*common, "--protocol", "paper", *(["--probe-epochs", str(epochs)] if epochs else [])])
    first = paper["linear"]
    print(f"{describe()}\n{first['run']}, step {first['step']:,}, on {first['data']}: {first['n_test']:,} test images")
    print(f"{'':24} " + "   ".join(f"{probe:>8} {'points':>7} {'time':>11}" for probe in PROBES))
    print(row(f"paper, {first['chosen']['epochs']:g} epochs", paper, paper), flush=True)
    for count in views.split(","):
        print(row(f"cached, {count} augmented", measure(where, [*common, "--views", count]), paper), flush=True)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(help=__doc__)(main)
    run_app(app, "python -m bench.probe_protocols")
