"""Pairs of augmented views: what training sees, and is asked to match."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from amdim.evaluation.report.image_subset import Subset, names_of
from amdim.evaluation.report.pictures import SIDE, Picture, at_size, picture, thumbnails
from amdim.pipeline.augment.recipes import Recipe
from amdim.pipeline.augment.view_params import sample_view_params
from amdim.pipeline.preview import render
from amdim.shards.manifest import Manifest

IMAGES, PAIRS = 6, 4
GAP = 3  # pixels between the two views of a pair


class Pairs(NamedTuple):
    """The centre of an image, as evaluation sees it, and pairs of views of the whole."""

    image: Picture
    pairs: list[Picture]


def pairs(part: Subset, manifest: Manifest, recipe: Recipe, seed: int = 0) -> list[Pairs]:
    """Of a few images of ``part``; the boxes and colours are those of training, the pixels more than it is shown."""
    few = part.take(np.arange(min(IMAGES, len(part.rows))))
    sizes, shown = few.store.sizes[few.rows], at_size(recipe, SIDE)
    draws = [view for number in range(PAIRS) for view in sample_view_params(recipe, sizes, seed, 0, number)]
    views = render(few.store, few.rows, shown, draws)
    found = []
    for i, (name, centre) in enumerate(zip(names_of(few, manifest), thumbnails(few, recipe), strict=True)):
        what = name or "image"
        joined = [beside(views[2 * k][i], views[2 * k + 1][i]) for k in range(PAIRS)]
        both = [picture(each, f"two augmented views of this {what}") for each in joined]
        found.append(Pairs(picture(centre, f"{what}, the centre of the image"), both))
    return found


def beside(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(S, 2 S + GAP, 3): two views with a neutral gray between them, which suits light pages and dark ones."""
    return np.concatenate([one, np.full((len(one), GAP, 3), 128, np.uint8), other], 1)
