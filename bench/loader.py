"""How fast are two views an image, and beside what others make of them?  python -m bench.loader [data/NAME] [--recipe NAME]

Without a data set it generates photographs of 500 x 375 and takes them twice: as they are, and shrunk to a shorter side of 160.
Ways to make two views, each in a process of its own, take turns in rounds: ours (either form of colour, strong, DALI's graph),
torchvision in a DataLoader, the webdataset library with torchvision; and as bounds, decoding alone, fed by us and by DALI's own
reader, and reading alone. torchvision is put into .bench/ and nowhere else; if it cannot be had, that is said.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from amdim.errors import UserError, run_app
from amdim.pipeline import RECIPES
from amdim.pipeline.augment.recipes import BY_DATA, Recipe
from amdim.shards import manifest
from amdim.shards.build import build
from amdim.shards.sources import folder
from amdim.shards.sources.base import Encoding
from bench.datasets import jpeg
from bench.machine import describe

TORCHVISION = "torchvision==0.28.0"  # the one for requirements.txt's torch
HOME = Path(".bench/torchvision")
WAYS = {  # title: feeder, form of views
    "torchvision, DataLoader": ("torchvision", "exact"),
    "webdataset, torchvision": ("webdataset", "exact"),
    "ours, exact": ("ours", "exact"),
    "ours, fused": ("ours", "fused"),
    "ours, exact, strong": ("ours", "strong"),
    "ours, exact, DALI's graph": ("ours-dali", "exact"),
    "decoding alone": ("decoded", "exact"),
    "the same, DALI's reader": ("decoded-by-dali", "exact"),
    "bytes and draws alone": ("bytes", "exact"),
}
PHOTOGRAPHS = 1024


class Feeder:
    """A process that makes views when it is told to."""

    def __init__(self, name: str, root: Path, recipe: Recipe, batch: int) -> None:
        fields = json.dumps(asdict(recipe) | {"batch": batch})
        paths = os.pathsep.join([str(HOME), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.feeders", name, str(root), fields],
            env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.answer()

    def answer(self) -> str:
        assert self.process.stdout
        if line := self.process.stdout.readline():
            return line
        raise UserError(f"bench.feeders {self.name}: ended without an answer; what it said is above")

    def round(self) -> dict[str, float]:
        assert self.process.stdin
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return json.loads(self.answer())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def main(
    data: Annotated[Path | None, typer.Argument(help="A shard set of JPEGs.", show_default="photographs, made here")] = None,
    recipe: Annotated[str | None, typer.Option(help="Recipe.", show_default="by the data set")] = None,
    batch: Annotated[int, typer.Option(help="Images a batch.")] = 64,
    rounds: Annotated[int, typer.Option(help="Turns of each way.")] = 5,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,  # noqa: ARG001 - read by run_app
) -> None:
    print(f"{describe()}\nload before it began: {os.getloadavg()[0]:.1f}", flush=True)
    ways = WAYS if has_torchvision() else {title: way for title, way in WAYS.items() if "torchvision" not in title}
    if data is not None:
        compare(data, RECIPES[recipe or BY_DATA.get(manifest.load(data).name, "imagenet128")], batch, rounds, ways)
        return
    with tempfile.TemporaryDirectory(dir=".") as scratch:
        for title, root in photographs(Path(scratch)).items():
            print(f"{PHOTOGRAPHS} photographs, {title}")
            compare(root, RECIPES[recipe or "imagenet128"], batch, rounds, ways)


def has_torchvision() -> bool:
    """Whether it lies in its own directory, after trying to get it there."""
    if not (HOME / "torchvision").exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(HOME), TORCHVISION]
        if subprocess.run(command, check=False).returncode:
            print(f"left out: {TORCHVISION} could not be installed, and what needs it cannot be compared")
            return False
    return True


def photographs(scratch: Path) -> dict[str, Path]:
    """Generated photographs as shard sets, by how they are stored."""
    source = scratch / "images"
    source.mkdir()
    for number in range(PHOTOGRAPHS):
        (source / f"{number}.jpg").write_bytes(jpeg(500, 375, number))
    sets = {"500 x 375": 0, "shorter side 160": 160}
    for side in sets.values():
        made = folder.source(source, Encoding(side, 90), seed=0, val=0.0, unlabeled=True)
        build(made, scratch / str(side), seed=0, workers=1, max_rejected=0, overwrite=False, show=lambda _: None)
    return {title: scratch / str(side) for title, side in sets.items()}


def compare(root: Path, recipe: Recipe, batch: int, rounds: int, ways: dict[str, tuple[str, str]]) -> None:
    exact = replace(recipe, color="exact")
    strong = replace(exact, area=(0.2, 0.9), jitter_p=1.0, policy="fast-autoaugment", lighting=0.1)  # as strong128
    forms = {"exact": exact, "fused": replace(recipe, color="fused"), "strong": strong}
    feeders = {title: Feeder(name, root, forms[form], batch) for title, (name, form) in ways.items()}
    taken: dict[str, list[dict[str, float]]] = {title: [] for title in feeders}
    for _ in range(rounds):
        for title, feeder in feeders.items():
            taken[title].append(feeder.round())
    for feeder in feeders.values():
        feeder.close()
    middle = {title: {key: statistics.median(one[key] for one in each) for key in each[0]} for title, each in taken.items()}
    first = next(iter(middle.values()))["seconds"]
    print(f"{'':28}{'images/s':>10}{'ratio':>8}{'CPU ms/image':>14}{'peak GiB':>10}{'slowest/fastest':>17}")
    for title, row in middle.items():
        times = [one["seconds"] for one in taken[title]]
        rate, ratio, spread = batch / row["seconds"], first / row["seconds"], max(times) / min(times)
        print(
            f"{title:28}{rate:10,.0f}{ratio:8.2f}{1e3 * row['cpu'] / batch:14.2f}{row['peak'] / 2**30:10.2f}{spread:17.2f}",
            flush=True,
        )


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(help=__doc__)(main)
    run_app(app, "python -m bench.loader")
