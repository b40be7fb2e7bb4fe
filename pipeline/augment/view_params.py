"""Every random number of the views: a pure function of (seed, epoch, step), drawn for the whole global batch.

NumPy's Philox is a counter-based generator: any step's numbers can be had without the steps before it, so ranks slice the same
draws, resuming is seeking, and a test can replay any view. Drawing costs about 10 us an image.

Shape letter: N images of the global batch.
"""

from __future__ import annotations

import math
import zlib
from typing import NamedTuple

import numpy as np

from amdim.pipeline.augment import autoaugment, jitter_params, pca_lighting
from amdim.pipeline.augment.autoaugment import AutoAugmentParams
from amdim.pipeline.augment.jitter_params import JitterParams
from amdim.pipeline.augment.recipes import Recipe

TRIES = 10  # boxes tried before falling back to the largest centred one, as torchvision does


class ViewParams(NamedTuple):
    """Parameters of one view of N images.

    box: (N, 4) int64, top, left, bottom, right in pixels of the stored image; left > right where the view is mirrored, and
        top > bottom where it is upside down.
    transposed: (N,) bool, whether rows and columns are swapped, after that.
    policy: operations on it before its jitter.
    jitter: of its colours.
    light: (N, 3), added to its colours in 0..1.
    """

    box: np.ndarray
    transposed: np.ndarray
    policy: AutoAugmentParams
    jitter: JitterParams
    light: np.ndarray


def identity_params(box: np.ndarray) -> ViewParams:
    """A box of each image and nothing else."""
    count = len(box)
    return ViewParams(box, np.zeros(count, bool), autoaugment.none(count), jitter_params.none(count), pca_lighting.none(count))


def slice_params(draws: ViewParams, rows: slice) -> ViewParams:
    """The parameters of some of the images."""
    operations = AutoAugmentParams(*(part[rows] for part in draws.policy))
    colours = JitterParams(*(part[rows] for part in draws.jitter))
    return ViewParams(draws.box[rows], draws.transposed[rows], operations, colours, draws.light[rows])


def generator(seed: int, *position: int, stream: str) -> np.random.Generator:
    """An independent generator for each (seed, position, stream)."""
    entropy = np.random.SeedSequence([seed, zlib.crc32(stream.encode()), *position])
    return np.random.Generator(np.random.Philox(entropy))


def sample_view_params(recipe: Recipe, sizes: np.ndarray, seed: int, epoch: int, step: int) -> tuple[ViewParams, ViewParams]:
    """Both views' parameters for the images of one global batch; ``sizes`` is (N, 2) int, width and height."""
    rng = generator(seed, epoch, step, stream="views")
    # Orientation is drawn once per image and shared by the two views.
    across = rng.random(len(sizes)) < recipe.flip
    other = generator(seed, epoch, step, stream="orientation").random((2, len(sizes)))
    down, swap = other[0] < recipe.flip_vertical, other[1] < recipe.transpose
    strong = generator(seed, epoch, step, stream="strong")
    first, second = (sample_one_view(recipe, sizes, rng, strong) for _ in range(2))
    return oriented(first, across, down, swap), oriented(second, across, down, swap)


def sample_one_view(recipe: Recipe, sizes: np.ndarray, rng: np.random.Generator, strong: np.random.Generator) -> ViewParams:
    """What came later has a stream of its own, so that it moves nothing that was drawn before."""
    count = len(sizes)
    box = random_box(recipe, sizes, rng) if recipe.crop == "resized" else shifted_box(recipe, sizes, rng)
    colours = jitter_params.draw(recipe, count, rng)
    return identity_params(box)._replace(
        policy=autoaugment.draw(recipe, count, strong), jitter=colours, light=pca_lighting.draw(recipe, count, strong)
    )


def oriented(view: ViewParams, across: np.ndarray, down: np.ndarray, swap: np.ndarray) -> ViewParams:
    return view._replace(box=mirrored(view.box, across, down), transposed=swap)


def center_view_params(recipe: Recipe, sizes: np.ndarray) -> ViewParams:
    """The view of evaluation: the centred square that is S x S of an image whose shorter side is ``resize``; nothing random."""
    side = np.maximum(1, np.rint(sizes.min(1) * recipe.size / recipe.resize)).astype(np.int64)[:, None]
    corner = (sizes[:, ::-1] - side) // 2
    return identity_params(np.concatenate([corner, corner + side], 1))


def random_box(recipe: Recipe, sizes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random area and aspect ratio at a random place, as torchvision's RandomResizedCrop draws them: (N, 4)."""
    N = len(sizes)
    width, height = sizes[:, :1], sizes[:, 1:]
    area = width * height * rng.uniform(*recipe.area, (N, TRIES))
    ratio = np.exp(rng.uniform(math.log(recipe.aspect[0]), math.log(recipe.aspect[1]), (N, TRIES)))
    w, h = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    fits = (w >= 1) & (h >= 1) & (w <= width) & (h <= height)
    pick = (np.arange(N), fits.argmax(1))
    largest_w, largest_h = largest_box(recipe, sizes)
    w, h = np.where(fits.any(1), w[pick], largest_w), np.where(fits.any(1), h[pick], largest_h)
    place = rng.random((N, 2))
    some = fits.any(1)
    top = np.where(some, np.floor(place[:, 0] * (sizes[:, 1] - h + 1)), (sizes[:, 1] - h) // 2)
    left = np.where(some, np.floor(place[:, 1] * (sizes[:, 0] - w + 1)), (sizes[:, 0] - w) // 2)
    return np.stack([top, left, top + h, left + w], 1).astype(np.int64)


def largest_box(recipe: Recipe, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Width and height of the largest box whose aspect ratio is allowed."""
    low, high = recipe.aspect
    width, height = sizes[:, 0], sizes[:, 1]
    return np.minimum(width, np.rint(height * high)), np.minimum(height, np.rint(width / low))


def shifted_box(recipe: Recipe, sizes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The whole image moved by up to ``shift`` pixels along each axis; what lies outside is reflected by the graph."""
    moved = rng.random(len(sizes)) < recipe.shift_p
    offset = rng.integers(-recipe.shift, recipe.shift, (len(sizes), 2), endpoint=True) * moved[:, None]
    return np.concatenate([offset, offset + sizes[:, ::-1]], 1)


def mirrored(box: np.ndarray, across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Swaps left and right, top and bottom, where an image is flipped: the resampler then mirrors at no cost."""
    box = np.where(across[:, None], box[:, [0, 3, 2, 1]], box)
    return np.where(down[:, None], box[:, [2, 1, 0, 3]], box)


def sample_locations(seed: int, epoch: int, step: int, batch: int, places: int = 25) -> np.ndarray:
    """The 5x5 location of each view that is source of the r5 to r5 term, for the global batch: (2, N) int64."""
    return generator(seed, epoch, step, stream="locations").integers(0, places, (2, batch))
