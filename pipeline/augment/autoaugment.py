"""Fast AutoAugment on views: two operations of Pillow's, drawn like all else, and what each of them does to pixels.

The pairs were searched for by Lim et al. (arXiv 1905.00397) on ImageNet; ``fast_autoaugment.csv`` holds them. A view takes one
pair, and each of its operations with the probability that stands there. Of an operation there remain a few numbers, the same for
every back-end, and neutral where an operation is another: so DALI's graph needs no branches (``graph_steps``), and a CPU
(``steps``) and Triton's kernels (``operations_triton``) pass over what is neutral.

Shape letters: N views, S image side.
"""

from __future__ import annotations

import csv
import math
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from amdim.pipeline.augment.recipes import Recipe

FILE = Path(__file__).with_name("fast_autoaugment.csv")
NONE = "None"
RANGES = {  # what magnitudes 0 and 1 are
    NONE: (0.0, 0.0),
    "ShearX": (-0.3, 0.3),  # pixels across a pixel down
    "ShearY": (-0.3, 0.3),
    "TranslateX": (-0.45, 0.45),  # sides
    "TranslateY": (-0.45, 0.45),
    "Rotate": (-30.0, 30.0),  # degrees
    "AutoContrast": (0.0, 1.0),
    "Invert": (0.0, 1.0),
    "Equalize": (0.0, 1.0),
    "Solarize": (0.0, 256.0),  # first level that is inverted
    "Posterize": (4.0, 8.0),  # bits
    "Contrast": (0.1, 1.9),  # factors of ImageEnhance
    "Color": (0.1, 1.9),
    "Brightness": (0.1, 1.9),
    "Sharpness": (0.1, 1.9),
    "Cutout": (0.0, 0.2),  # sides
}
NAMES = list(RANGES)
WARPS = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")  # which go either way, by the toss of a coin
ENHANCERS = ("Contrast", "Color", "Brightness", "Sharpness")
STEPS = 2


class AutoAugmentParams(NamedTuple):
    """Of N views.

    operation: (N, 2), numbers in ``NAMES``; amount: (N, 2), in the unit of each.
    place: (N, 2, 2), the middle of a cutout from the top and from the left, in sides.
    """

    operation: np.ndarray
    amount: np.ndarray
    place: np.ndarray


class Steps(NamedTuple):
    """What the operations do, one after the other: (N, 2, ...) each.

    matrix: (2, 3), where pixel (x, y) of the result comes from.
    threshold: levels from this one on are inverted; 256 leaves all.
    grain: levels are rounded down to multiples of this; 1 leaves all.
    stretch, equalize: bool, whether each channel is.
    factor, toward: 1, or an enhancer's, which moves an image by this factor away from a duller one: its pixels' own gray, its
        mean gray, itself smoothed ((3,), a one for the one of them), or else black.
    hole: top, left, bottom, right in pixels of what is filled; none where it has no height.
    """

    matrix: np.ndarray
    threshold: np.ndarray
    grain: np.ndarray
    stretch: np.ndarray
    equalize: np.ndarray
    factor: np.ndarray
    toward: np.ndarray
    hole: np.ndarray


@cache
def table() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each pair its operations, their probabilities and amounts: (pairs, 2) each."""
    rows = list(csv.reader(line for line in FILE.read_text("utf-8").splitlines() if not line.startswith("#")))
    operation = np.array([[NAMES.index(name) for name in row[::3]] for row in rows])
    p, magnitude = (np.array([row[first::3] for row in rows], float) for first in (1, 2))
    low, high = np.array([RANGES[name] for name in NAMES]).T
    amount = low[operation] + magnitude * (high - low)[operation]
    return operation, p, np.where(operation == NAMES.index("Posterize"), np.floor(amount), amount)


def draw(recipe: Recipe, count: int, rng: np.random.Generator) -> AutoAugmentParams:
    if recipe.policy == "none":
        return none(count)
    operations, probabilities, amounts = table()
    pair = rng.integers(len(operations), size=count)
    done = rng.random((count, STEPS)) < probabilities[pair]
    other_way = (rng.random((count, STEPS)) < 0.5) & is_in(operations[pair], *WARPS)
    place = rng.random((count, STEPS, 2))
    return AutoAugmentParams(np.where(done, operations[pair], 0), np.where(other_way, -amounts[pair], amounts[pair]), place)


def none(count: int) -> AutoAugmentParams:
    """Views that are left as they are."""
    return AutoAugmentParams(np.zeros((count, STEPS), int), np.zeros((count, STEPS)), np.zeros((count, STEPS, 2)))


def is_in(operation: np.ndarray, *names: str) -> np.ndarray:
    return np.isin(operation, [NAMES.index(name) for name in names])


def as_steps(policy: AutoAugmentParams, side: int) -> Steps:
    operation, amount, place = policy

    def where(name: str, value: np.ndarray | float, otherwise: np.ndarray | float) -> np.ndarray:
        return np.where(is_in(operation, name), value, otherwise)

    toward = np.stack([is_in(operation, name) for name in ("Color", "Contrast", "Sharpness")], -1)
    return Steps(
        matrix=matrices(operation, amount, side),
        threshold=where("Solarize", amount, where("Invert", 0, 256)),
        grain=where("Posterize", 2 ** (8 - np.clip(amount, 4, 8)), 1).astype(np.int64),
        stretch=is_in(operation, "AutoContrast"),
        equalize=is_in(operation, "Equalize"),
        factor=np.where(is_in(operation, *ENHANCERS), amount, 1),
        toward=toward.astype(float),
        hole=holes(where("Cutout", amount, 0) * side, place * side, side),
    )


def matrices(operation: np.ndarray, amount: np.ndarray, side: int) -> np.ndarray:
    """Of affine maps of coordinates: (N, 2, 2, 3). Rotation is about the middle."""
    matrix = np.tile(np.eye(2, 3), (*operation.shape, 1, 1))
    for name, row, column, scale in (
        ("ShearX", 0, 1, 1),
        ("ShearY", 1, 0, 1),
        ("TranslateX", 0, 2, side),
        ("TranslateY", 1, 2, side),
    ):
        matrix[..., row, column] += np.where(is_in(operation, name), amount * scale, 0)
    angle = np.where(is_in(operation, "Rotate"), amount, 0) * math.pi / 180
    cos, sin, middle = np.cos(angle), np.sin(angle), side / 2
    turn = np.stack([cos, -sin, middle * (1 - cos + sin), sin, cos, middle * (1 - sin - cos)], -1).reshape(matrix.shape)
    return np.where(is_in(operation, "Rotate")[..., None, None], turn, matrix)


def holes(size: np.ndarray, middle: np.ndarray, side: int) -> np.ndarray:
    """Rectangles as the authors' code has them: half the size before the middle, and a pixel more than the size in all."""
    near = np.floor(np.maximum(0, middle - size[..., None] / 2))
    far = np.minimum(side, np.floor(np.minimum(side, near + size[..., None])) + 1)
    return np.where(size[..., None] > 0, np.concatenate([near, far], -1), 0).astype(np.int64)
