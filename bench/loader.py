"""How fast are two views an image, and what of it is decoding?  python -m bench.loader [data/NAME] [--recipe NAME]

Compares in one run: the two-view loader, one centred view (decoding and one resampling), and feeding bytes alone.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Annotated

import typer

from bench.machine import describe, seconds
from errors import run_app
from pipeline import RECIPES, EvalLoader, TwoViewLoader
from pipeline.recipes import BY_DATA
from shards import manifest as manifests

BATCHES = 40


def main(
    data: Annotated[Path, typer.Argument(help="A shard set.")] = Path("data/shapes"),
    recipe: Annotated[str | None, typer.Option(help="Recipe.", show_default="by the data set")] = None,
    batch: Annotated[int, typer.Option(help="Images a batch.")] = 128,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,  # noqa: ARG001 - read by run_app
) -> None:
    name = recipe or BY_DATA.get(manifests.load(data).name, "imagenet128")
    views = RECIPES[name]
    print(f"{describe()}\n{data}, recipe {name}, batches of {batch}")
    two = TwoViewLoader(data, ["train"], views, batch)
    # Long enough for the batches below, so that none is of another length.
    one = EvalLoader(data, ["train"], views, batch)
    train, test = endless(two), endless(one)
    positions = two.positions(0, 0)
    work = {
        "two views": lambda: next(train),
        "one centred view": lambda: next(test),
        "bytes and draws alone": lambda: two.job(*next(positions)),
    }
    for title, each in work.items():
        times = seconds(each, BATCHES)
        print(f"{title:24}{batch / statistics.median(times):10,.0f} images/s   n {BATCHES}")


def endless(loader):  # type: ignore[no-untyped-def]
    while True:
        yield from loader


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(help=__doc__)(main)
    run_app(app, "python -m bench.loader")
