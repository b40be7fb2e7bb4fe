"""Colour jitter as one affine map per view (``color = "fused"``), for speed.

Each operation is linear in the pixel and in the image's mean pixel m (contrast turns about the mean gray), so together they are
``gain @ pixel + centre @ m`` and an image is touched once. What it changes against doing them one by one, as ``exact`` does:
nothing is rounded or clamped between operations, and hue turns in YIQ (as NTSC video does) rather than in HSV.

Shape letters: N images, P pixels of a view.
"""

from __future__ import annotations

import numpy as np

from amdim.pipeline.augment.jit import jit
from amdim.pipeline.augment.jitter_params import CONTRAST, JitterParams

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as in Pillow
TO_GRAY = np.tile(LUMA, (3, 1))
TO_YIQ = np.array([LUMA, [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
FROM_YIQ = np.linalg.inv(TO_YIQ)


def compose(jitter: JitterParams) -> tuple[np.ndarray, np.ndarray]:
    """The jitter as matrices: gain and centre, (N, 3, 3) each."""
    brightness, contrast, saturation, hue = jitter.amount.T
    linear = np.stack([scaled(brightness), scaled(contrast), toward_gray(saturation), hue_rotation(hue)])
    rows = np.arange(len(hue))
    gain, centre = scaled(np.ones(len(hue))), np.zeros((len(hue), 3, 3))
    for operation in jitter.order.T:
        step = linear[operation, rows]
        lift = np.where(operation == CONTRAST, 1 - contrast, 0.0)[:, None, None]
        # Contrast adds (1 - c) times the mean gray of the image as it stands, which is TO_GRAY @ (gain + centre) @ m.
        centre = step @ centre + lift * (TO_GRAY @ (gain + centre))
        gain = step @ gain
    keep = ~jitter.gray[:, None, None]
    return np.where(keep, gain, TO_GRAY @ gain), np.where(keep, centre, TO_GRAY @ centre)


def scaled(factor: np.ndarray) -> np.ndarray:
    return np.eye(3) * factor[:, None, None]


def toward_gray(saturation: np.ndarray) -> np.ndarray:
    return scaled(saturation) + (1 - saturation)[:, None, None] * TO_GRAY


def hue_rotation(turns: np.ndarray) -> np.ndarray:
    """Rotation of chroma in YIQ by an angle in turns: (N, 3, 3)."""
    cos, sin = np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)
    rotation = np.zeros((len(turns), 3, 3))
    rotation[:, 0, 0] = 1
    rotation[:, 1, 1], rotation[:, 1, 2], rotation[:, 2, 1], rotation[:, 2, 2] = cos, -sin, sin, cos
    return FROM_YIQ @ rotation @ TO_YIQ


@jit
def colour(levels: np.ndarray, gain: np.ndarray, centre: np.ndarray, shift: np.ndarray, out: np.ndarray) -> None:
    """Maps one view: ``gain @ pixel + centre @ m + shift``, for the CPU.

    Args:
        levels: (3, P) uint8.
        gain, centre: (3, 3) float32; shift: (3,) float32.
        out: (3, P) float32.
    """
    mean = np.array([mean_level(levels[0]), mean_level(levels[1]), mean_level(levels[2])])
    for c in range(3):
        weigh(levels[0], levels[1], levels[2], gain[c], shift[c] + (centre[c] * mean).sum(), out[c])


@jit
def mean_level(plane: np.ndarray) -> np.float32:
    total = np.int64(0)  # exact
    for p in range(plane.size):
        total += plane[p]
    return np.float32(total / plane.size)


@jit
def weigh(red: np.ndarray, green: np.ndarray, blue: np.ndarray, weights: np.ndarray, rest: np.float32, out: np.ndarray) -> None:
    """A plane (P,) as a weighted sum of three, and ``rest``."""
    a, b, c = weights[0], weights[1], weights[2]  # read once: ``out`` may be anywhere
    for p in range(out.size):
        out[p] = rest + a * np.float32(red[p]) + b * np.float32(green[p]) + c * np.float32(blue[p])
