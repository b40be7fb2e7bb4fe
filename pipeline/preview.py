"""A contact sheet of what training sees: `python -m pipeline.preview data/NAME [--recipe NAME|FILE.toml] [--out FILE.png]`.

Each row is an image's centre, then pairs of views of it, as the loader makes them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image
from torch import Tensor

from amdim.errors import run_app
from amdim.pipeline.augment.recipe_file import find_recipe
from amdim.pipeline.augment.recipes import BY_DATA, Recipe
from amdim.pipeline.augment.view_params import ViewParams, center_view_params, sample_view_params
from amdim.pipeline.dali import batch_request, choose_backend, make_views
from amdim.pipeline.sample_store import SampleStore
from amdim.shards import manifest as manifests

ROWS, PAIRS = 8, 4
GAP = 4  # pixels between pictures; twice that between pairs


def contact_sheet(root: Path, recipe: Recipe, seed: int = 0) -> Image.Image:
    """ROWS images of the training split with PAIRS pairs of views each."""
    store = SampleStore(root, ["train"])
    rows = np.random.default_rng(seed).permutation(len(store))[:ROWS]
    columns = [render(store, rows, recipe.centred(), [center_view_params(recipe, store.sizes[rows])])]
    columns += [
        render(store, rows, recipe, list(sample_view_params(recipe, store.sizes[rows], seed, 0, pair))) for pair in range(PAIRS)
    ]
    return assemble([view for column in columns for view in column], recipe.size)


def render(store: SampleStore, rows: np.ndarray, recipe: Recipe, draws: list[ViewParams]) -> list[np.ndarray]:
    """Views of some samples under given draws, as pictures: (n, S, S, 3) uint8 each."""
    jobs, cpu = iter([batch_request(store, rows, draws)]), torch.device("cpu")
    views = next(make_views(jobs, recipe, len(draws), len(rows), cpu, choose_backend("auto", cpu), 1, store.set, prefetch=0))
    return [as_pixels(view, recipe) for view in views]


def as_pixels(view: Tensor, recipe: Recipe) -> np.ndarray:
    """Undoes the normalisation: (n, S, S, 3) uint8."""
    rgb = view.permute(0, 2, 3, 1).float() * torch.tensor(recipe.std) + torch.tensor(recipe.mean)
    return (rgb.clamp(0, 1) * 255).round().byte().numpy()


def assemble(columns: list[np.ndarray], side: int) -> Image.Image:
    """Pictures side by side on white, scaled up where they are small."""
    lefts = np.cumsum([0] + [side + (GAP if i % 2 else 2 * GAP) for i in range(len(columns))])
    sheet = np.full((len(columns[0]) * (side + GAP) - GAP, lefts[-1] - 2 * GAP, 3), 255, np.uint8)
    for left, column in zip(lefts, columns, strict=False):
        for row, picture in enumerate(column):
            top = row * (side + GAP)
            sheet[top : top + side, left : left + side] = picture
    zoom = max(1, 128 // side)
    return Image.fromarray(sheet).resize((sheet.shape[1] * zoom, sheet.shape[0] * zoom), Image.Resampling.NEAREST)


def main(
    data: Annotated[Path, typer.Argument(help="A shard set's directory.")],
    recipe: Annotated[str | None, typer.Option(help="Name of a recipe, or FILE.toml.", show_default="by the data set")] = None,
    out: Annotated[Path | None, typer.Option(help="Picture to write.", show_default="DATA/views.png")] = None,
    seed: Annotated[int, typer.Option(help="Of the images and views.")] = 0,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,  # noqa: ARG001 - read by run_app
) -> None:
    manifest = manifests.load(data)
    name = recipe or BY_DATA.get(manifest.name, "imagenet128")
    _, views = find_recipe(name)
    path = out or data / "views.png"
    contact_sheet(data, views, seed).save(path)
    print(f"{path}: each row is an image's centre and {PAIRS} pairs of views, recipe {name}")


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(help=__doc__)(main)
    run_app(app, "python -m pipeline.preview")
