"""Which optimizer, batch and views serve a small preset?  python -m bench.optimizer_ablation DATA [--steps 100] [--only NAME,…]

Trains the default preset of DATA (a directory, data/shapes or data/fashion-mnist) on the CPU with each variant below: the same
number of images and the same schedule, one thread. Then a linear probe on the centred view. It is trained on four fifths of the
images looked at and tested on the last fifth: all from the training split, as the validation split is for results and not for
choices. Prints a row a run as it ends, and a table with the mean and the range over seeds.
"""

from __future__ import annotations

import json
import statistics
from itertools import islice
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import typer

from amdim.engine import precision, runs
from amdim.engine.optim.ema import averaged
from amdim.engine.presets import default_preset
from amdim.errors import UsageError, run_app
from amdim.evaluation.feature_extractors import trained
from amdim.evaluation.features import collect, represent
from amdim.evaluation.probes.classification_metrics import score
from amdim.evaluation.probes.linear import train_linear
from amdim.pipeline import EvalLoader
from amdim.pipeline.augment.recipe_file import recipe_of
from amdim.shards import manifest as manifests
from bench.learns import call
from bench.machine import describe

# Rates of LAMB and LARS are relative to a weight's own length, so the presets' rates, Adam's, do not serve them.
ADAM = ("--lr", "2e-3")
VARIANTS = {
    "adam": (*ADAM, "--ema", "0.98"),  # the average changes no step: its probe is a row of its own
    "adam-half-batch": ("--lr", "1.4e-3"),  # the square root's rule
    "adam-0.0025-half-batch": ("--lr", "2.5e-3"),
    "adam-quarter-batch": ("--lr", "1e-3"),
    "adam-r1024-half-batch": ("--lr", "1.4e-3", "--config", "r1024.toml"),
    "adam-small-boxes": (*ADAM, "--config", "small-boxes.toml"),
    "adam-small-boxes-half-batch": ("--lr", "1.4e-3", "--config", "small-boxes.toml"),
    "adam-medium-boxes-half-batch": ("--lr", "1.4e-3", "--config", "medium-boxes.toml"),
    "adam-calm-colours": (*ADAM, "--config", "calm-colours.toml"),
    "adam-0.005": ("--lr", "5e-3"),
    "adamw-decay-0.05": (*ADAM, "--optimizer", "adamw", "--config", "decay.toml"),
    "lamb-0.01": ("--optimizer", "lamb", "--lr", "1e-2"),
    "lamb-0.03": ("--optimizer", "lamb", "--lr", "3e-2"),
    "lamb-0.03-half-batch": ("--optimizer", "lamb", "--lr", "3e-2"),
    "lamb-0.1": ("--optimizer", "lamb", "--lr", "1e-1"),
    "lars-5": ("--optimizer", "lars", "--lr", "5"),
    "lars-5-clip-1": ("--optimizer", "lars", "--lr", "5", "--grad-clip", "1"),
}
FILES = {
    "decay.toml": "weight_decay = 0.05\n",
    "r1024.toml": "[encoder]\nembedding = 1024\n",
    "small-boxes.toml": "[views]\narea = [0.15, 1.0]\n",
    "medium-boxes.toml": "[views]\narea = [0.3, 1.0]\n",
    "calm-colours.toml": "[views]\nbrightness = 0.2\ncontrast = 0.2\n",
}
AVERAGE = "adam, averaged 0.98"
HELD_OUT = 5  # one image in five of those looked at tests the probe
CPU = torch.device("cpu")


class Length(NamedTuple):
    """Of every run: ``steps`` of ``batch`` images, the first ``warmup`` with a rising rate."""

    steps: int
    batch: int
    warmup: int

    def options(self, name: str) -> tuple[str, ...]:
        """For a variant; half the batch means twice the steps."""
        by = 4 if name.endswith("quarter-batch") else 2 if name.endswith("half-batch") else 1
        steps, batch, warmup = map(str, (by * self.steps, self.batch // by, by * self.warmup))
        return ("--steps", steps, "--batch-size", batch, "--warmup", warmup)


def learn(data: Path, name: str, seed: int, length: Length, look: int, out: Path) -> dict[str, tuple[float, float]]:
    """Trains once: (last loss, probe) by the name of the row."""
    run = out / f"{data.name}-{name}-{length.steps}x{length.batch}-seed{seed}"
    for file, text in FILES.items():
        (out / file).write_text(text)
    more = [str(out / word) if word in FILES else word for word in VARIANTS[name]]
    common = ("--data", str(data), "--gpus", "0", "--seed", str(seed), "--run", str(run), "--quiet")
    call("train.py", *common, *length.options(name), *more)
    loss = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["loss"]
    saved = runs.newest_checkpoint(run)
    found = {name: (loss, probed(saved, data, look))}
    return found | ({AVERAGE: (loss, probed(averaged(saved), data, look))} if saved.trainer["average"] else {})


def probed(saved: runs.checkpoint.Checkpoint, data: Path, look: int) -> float:
    """Top-1 of a linear probe on images of the training split that it was not shown."""
    loader = EvalLoader(data, ["train"], recipe_of(saved.config))
    features = collect(islice(loader, look), represent(trained(saved), precision.choose("auto", CPU), CPU))
    classes, cut = len(manifests.load(data).classes), len(features.rows) - len(features.rows) // HELD_OUT
    shown, held = features._replace(rows=features.rows[:cut]), features._replace(rows=features.rows[cut:])
    return score(train_linear(shown, classes, CPU).classify, held, classes, CPU).top1


def row(name: str, found: list[tuple[float, float]]) -> str:
    losses, tops = zip(*found, strict=True)
    spread = f"{statistics.mean(tops):7.2%} ({min(tops):.2%} to {max(tops):.2%})"
    return f"{name:32} {spread}   {statistics.mean(losses):8.3f} ({min(losses):.3f} to {max(losses):.3f})"


def main(
    data: Annotated[Path, typer.Argument(help="A shard set of shapes or fashion-mnist.")],
    steps: Annotated[int, typer.Option(min=1, help="Of each run.")] = 100,
    batch: Annotated[int, typer.Option(min=4, help="Images a step.")] = 64,
    warmup: Annotated[int, typer.Option(min=0, help="Steps over which the rate rises.")] = 20,
    look: Annotated[int, typer.Option(min=1, help="Batches of 256 images for the probe.")] = 24,
    seeds: Annotated[str, typer.Option(help="With commas.")] = "0,1,2",
    only: Annotated[str | None, typer.Option(help="Names of variants, with commas.", show_default="all")] = None,
    out: Annotated[Path, typer.Option(help="Where the runs go.")] = Path("runs/recipes"),
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,  # noqa: ARG001 - read by run_app
) -> None:
    names = only.split(",") if only else list(VARIANTS)
    if unknown := [name for name in names if name not in VARIANTS]:
        raise UsageError(f"--only {unknown[0]}: there is no such variant; there are {', '.join(VARIANTS)}")
    out.mkdir(parents=True, exist_ok=True)
    print(f"{describe()}, {torch.get_num_threads()} threads")
    length = Length(steps, batch, warmup)
    preset = default_preset(data.name, gpu=False)
    print(f"{data.name}, preset {preset}: {steps} steps of {batch}, {warmup} warm-up, seeds {seeds}")
    table: dict[str, list[tuple[float, float]]] = {}
    for seed in map(int, seeds.split(",")):
        for name in names:
            for each, found in learn(data, name, seed, length, look, out).items():
                table.setdefault(each, []).append(found)
                print(f"seed {seed}  {each}: loss {found[0]:.3f}, top-1 {found[1]:.2%}", flush=True)
    print(f"{'':32} top-1: mean (range)             last loss: mean (range)")
    for each, numbers in table.items():
        print(row(each, numbers))


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(help=__doc__)(main)
    run_app(app, "python -m bench.optimizer_ablation")
