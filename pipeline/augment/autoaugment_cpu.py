"""One operation of a policy on a view, compiled for the CPU: on bytes, and bit for bit what Pillow makes of it.

Shape letters: N views, S image side, P = S S pixels of a view.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from amdim.pipeline.augment.autoaugment import Steps
from amdim.pipeline.augment.jit import jit

FILL = (125, 123, 114)  # ImageNet's mean colour, which the authors of Fast AutoAugment fill holes with
ZERO, TOP = np.float32(0), np.float32(255)
OWN, MEAN, SMOOTH, BLACK = range(4)  # what an enhancer starts from


class Parameters(NamedTuple):
    """``Steps`` in the numbers that loops take.

    affine: (N, 2, 6) int64, ``fixed_point``.
    curve: (N, 2, 4) float64, threshold, grain, stretch and equalize.
    factor: (N, 2) float32; dull: (N, 2) int64, what an enhancer starts from.
    hole: (N, 2, 4) int64.
    """

    affine: np.ndarray
    curve: np.ndarray
    factor: np.ndarray
    dull: np.ndarray
    hole: np.ndarray


def prepare(steps: Steps) -> Parameters:
    curve = np.stack([steps.threshold, steps.grain, steps.stretch, steps.equalize], -1).astype(float)
    dull = np.where(steps.toward.any(-1), steps.toward.argmax(-1), BLACK)
    return Parameters(fixed_point(steps.matrix), curve, steps.factor.astype(np.float32), dull, steps.hole)


def fixed_point(matrix: np.ndarray) -> np.ndarray:
    """Pillow's, of 16 bits: of the step to the next column, to the next row, and of the middle of the first pixel."""
    first = matrix[..., 2] + 0.5 * matrix[..., 0] + 0.5 * matrix[..., 1]
    parts = np.concatenate([matrix[..., 0], matrix[..., 1], first], -1)  # x and y of each
    return np.floor(parts * 65536 + 0.5).astype(np.int64)


@jit
def apply(
    levels: np.ndarray, spare: np.ndarray, affine: np.ndarray, curve: np.ndarray, factor: np.float32, dull: int, hole: np.ndarray
) -> None:
    """One operation in place, by its part of ``Parameters``; (3, P) uint8 each, what is in ``spare`` is of no use."""
    side = int(np.sqrt(levels.shape[1]))
    if affine[0] != 65536 or affine[1] != 0 or affine[2] != 0 or affine[4] != 32768 or affine[5] != 32768:
        warp(levels, spare, side, affine)
    if curve[0] < 256 or curve[1] > 1 or curve[2] != 0 or curve[3] != 0:
        for c in range(3):
            look_up(levels[c], curve)
    if factor != 1:
        if dull in (OWN, MEAN):
            to_gray(levels, spare, dull == MEAN)
        for c in range(3):
            if dull == SMOOTH:
                smooth(levels[c], spare[c], side)
            extrapolate(levels[c], spare[c], factor, dull == BLACK)
    for y in range(hole[0], hole[2]):
        for x in range(hole[1], hole[3]):
            for c in range(3):
                levels[c, y * side + x] = FILL[c]


@jit
def warp(levels: np.ndarray, spare: np.ndarray, side: int, affine: np.ndarray) -> None:
    """Each pixel from the nearest one of where it comes from, black from beyond the border."""
    for y in range(side):
        across, down = affine[4] + affine[2] * y, affine[5] + affine[3] * y
        for x in range(side):
            column, row = across >> 16, down >> 16
            inside = 0 <= column < side and 0 <= row < side
            for c in range(3):
                spare[c, y * side + x] = levels[c, row * side + column] if inside else 0
            across += affine[0]
            down += affine[1]
    for c in range(3):
        for p in range(levels.shape[1]):
            levels[c, p] = spare[c, p]


@jit
def look_up(plane: np.ndarray, curve: np.ndarray) -> None:
    """What maps levels to levels, of one channel (P,)."""
    threshold, grain = curve[0], int(curve[1])
    table = np.empty(256, np.uint8)
    for level in range(256):
        bright = 255 - level if level >= threshold else level
        table[level] = bright - bright % grain
    if curve[2] != 0 or curve[3] != 0:
        count = np.zeros(256, np.int64)
        for p in range(plane.size):
            count[plane[p]] += 1
        if curve[2] != 0:
            stretched(count, table)
        else:
            equalized(count, table)
    for p in range(plane.size):
        plane[p] = table[plane[p]]


@jit
def stretched(count: np.ndarray, table: np.ndarray) -> None:
    """From the darkest level that is there to the brightest, as 0 to 255."""
    low, high = 0, 255
    while count[low] == 0:
        low += 1
    while count[high] == 0:
        high -= 1
    scale = 255.0 / max(high - low, 1)
    for level in range(low, high + 1):
        table[level] = int(level * scale - low * scale) if high > low else level


@jit
def equalized(count: np.ndarray, table: np.ndarray) -> None:
    """Each level by how many pixels are darker; those of the brightest do not count."""
    total, brightest = 0, 0
    for level in range(256):
        total += count[level]
        brightest = count[level] if count[level] > 0 else brightest
    width = (total - brightest) // 255  # pixels for each level
    darker = width // 2
    for level in range(256):
        table[level] = min(darker // width, 255) if width > 0 else level
        darker += count[level]


@jit
def to_gray(levels: np.ndarray, out: np.ndarray, mean: bool) -> None:
    """The image in gray, or all of it in the mean of that."""
    total = 0
    for p in range(levels.shape[1]):
        gray = (19595 * levels[0, p] + 38470 * levels[1, p] + 7471 * levels[2, p] + 32768) >> 16  # ITU-R BT.601
        total += gray
        out[0, p] = gray
    for p in range(levels.shape[1]):
        level = int(total / levels.shape[1] + 0.5) if mean else int(out[0, p])
        out[0, p] = out[1, p] = out[2, p] = level


@jit
def smooth(plane: np.ndarray, out: np.ndarray, side: int) -> None:
    """Means of 3 x 3 pixels in which the middle one counts five times; the border stays."""
    for p in range(plane.size):
        out[p] = plane[p]
    above, here, below = (
        plane[:-side],
        plane[side:],
        plane[2 * side :],
    )  # the last of a row meets the next row, and is passed over
    for y in range(side - 2):
        for p in range(y * side + 1, (y + 1) * side - 1):
            total = np.int32(above[p - 1]) + above[p] + above[p + 1] + below[p - 1] + below[p] + below[p + 1]
            total += here[p - 1] + 5 * np.int32(here[p]) + here[p + 1]
            out[side + p] = (2 * total + 13) // 26  # thirteenths, rounded


@jit
def extrapolate(plane: np.ndarray, dull: np.ndarray, factor: np.float32, black: bool) -> None:
    for p in range(plane.size):
        low = ZERO if black else np.float32(dull[p])
        plane[p] = np.uint8(min(max(low + factor * (np.float32(plane[p]) - low), ZERO), TOP))
