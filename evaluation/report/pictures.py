"""Pictures for a page: samples of a shard set at a size to look at, and pixels as the ``src`` of an ``<img>``.

Shape letters: n images.
"""

from __future__ import annotations

import base64
from dataclasses import replace
from io import BytesIO
from typing import NamedTuple

import numpy as np
from PIL import Image

from amdim.evaluation.report.image_subset import Subset
from amdim.pipeline.augment.recipes import Recipe
from amdim.pipeline.augment.view_params import center_view_params
from amdim.pipeline.preview import render

SIDE = 112  # pixels of a picture on the page, whatever the encoder sees: the page's size depends on neither it nor the images
QUALITY = 82


class Picture(NamedTuple):
    """An image of the page: ``src`` is a data URI, ``alt`` says in words what it shows."""

    src: str
    alt: str
    width: int
    height: int


def picture(pixels: np.ndarray, alt: str, exact: bool = False) -> Picture:
    """Of (height, width, 3) uint8: every pixel ``exact``, or what looks like it in fewer bytes."""
    file, kind = BytesIO(), "png" if exact else "jpeg"
    Image.fromarray(pixels).save(file, kind, quality=QUALITY, optimize=True)
    src = f"data:image/{kind};base64," + base64.b64encode(file.getvalue()).decode()
    return Picture(src, alt, pixels.shape[1], pixels.shape[0])


def at_size(recipe: Recipe, side: int) -> Recipe:
    """The recipe with views of another size that show the same part of an image."""
    return replace(recipe, size=side, resize=round(recipe.resize * side / recipe.size))


def thumbnails(part: Subset, recipe: Recipe, side: int = SIDE) -> np.ndarray:
    """The part of the samples that evaluation sees: (n, side, side, 3) uint8."""
    if not len(part.rows):
        return np.zeros((0, side, side, 3), np.uint8)
    shown = at_size(recipe, side).centred()
    draw = lambda rows: render(part.store, rows, shown, [center_view_params(shown, part.store.sizes[rows])])[0]  # noqa: E731
    return np.concatenate([draw(rows) for rows in part.batches(len(part.rows))])


def tiled(pixels: np.ndarray, columns: int) -> np.ndarray:
    """(n, side, side, 3) as one sheet, row by row, black where there are too few."""
    n, side = pixels.shape[:2]
    rows = -(-n // columns)
    sheet = np.zeros((rows * columns, side, side, 3), np.uint8)
    sheet[:n] = pixels
    return sheet.reshape(rows, columns, side, side, 3).swapaxes(1, 2).reshape(rows * side, columns * side, 3)
