"""What do the two colour forms cost, and what do they do to what is learnt?  python -m bench.colors [shapes] [--epochs 3]

For each form: two-view images/s of its loader on its own, with either back-end, and the linear probe after training the data
set's default preset on a CPU, for the same steps from the same seeds. Prints a row a run, and the means.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Annotated

import typer

from amdim.errors import run_app
from amdim.pipeline import RECIPES, TwoViewLoader
from amdim.pipeline.augment.recipe_file import find_recipe
from amdim.pipeline.augment.recipes import BY_DATA
from bench.feeders import endless
from bench.learns import call
from bench.machine import describe, seconds

FORMS = ("exact", "fused")
BATCH, BATCHES = 128, 30


def file_of(form: str, base: str, folder: Path) -> Path:
    """A recipe file that differs from a named recipe in nothing but the form of its colours."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{base}-{form}.toml"
    path.write_text(f'base = "{base}"\ncolor = "{form}"\n')
    return path


def speed(data: Path, recipe: Path, pixels: str) -> float:
    """Images/s, two views each: the median of BATCHES batches."""
    views = endless(TwoViewLoader(data, ["train"], find_recipe(str(recipe))[1], BATCH, pixels=pixels))
    return BATCH / statistics.median(seconds(lambda: next(views), BATCHES))


def learn(data: Path, recipe: Path, seed: int, epochs: float, run: Path) -> float:
    """Linear top-1 of a run."""
    options = ("--gpus", "0", "--seed", str(seed), "--epochs", str(epochs), "--run", str(run), "--quiet")
    call("train.py", "--data", str(data), "--recipe", str(recipe), *options)
    call("eval.py", "--probe", "linear", "--run", str(run), "--gpus", "0")
    return float(json.loads((run / "eval-linear.json").read_text())["top1"])


def main(
    name: Annotated[str, typer.Argument(help="A data set that is built in.")] = "shapes",
    epochs: Annotated[float, typer.Option(help="Length of each run.")] = 3,
    seeds: Annotated[int, typer.Option(min=0, help="How many, from 0; with none, the speeds alone.")] = 2,
    runs: Annotated[Path, typer.Option(help="Where the runs go.")] = Path("runs/colors"),
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,  # noqa: ARG001 - read by run_app
) -> None:
    data, base = Path("data") / name, BY_DATA[name]
    call("-m", "shards", "build", name, "--out", str(data))
    recipes = {form: file_of(form, base, runs) for form in FORMS}
    print(f"{describe()}\n{name}, recipe {base} ({RECIPES[base].size} px), batches of {BATCH}, median of {BATCHES}")
    for form, recipe in recipes.items():
        rates = ", ".join(f"{speed(data, recipe, pixels):,.0f} images/s by {pixels}" for pixels in ("torch", "dali"))
        print(f"{form}: {rates}", flush=True)
    tops: dict[str, list[float]] = {form: [] for form in FORMS}
    for seed in range(seeds):
        for form, recipe in recipes.items():
            tops[form].append(learn(data, recipe, seed, epochs, runs / f"{name}-{form}-{epochs:g}-seed{seed}"))
            print(f"{form}, seed {seed}, {epochs:g} epochs: linear probe {tops[form][-1]:.2%}", flush=True)
    for form, values in tops.items() if seeds else ():
        print(f"{form}: mean {statistics.mean(values):.2%}, min {min(values):.2%}, max {max(values):.2%}, n {seeds}")


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(help=__doc__)(main)
    run_app(app, "python -m bench.colors")
