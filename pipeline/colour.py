"""Colour jitter as one affine map per view: brightness, contrast, saturation and hue in random order, then gray.

Each operation is linear in the pixel and in the image's mean pixel m (contrast turns about the mean gray), so together they are
``gain @ pixel + centre @ m`` and an image is touched once. What it changes against doing them one by one: nothing is clamped
between operations, and hue turns in YIQ (as NTSC video does) rather than in HSV.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.recipes import Recipe

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as in Pillow
TO_GRAY = np.tile(LUMA, (3, 1))
TO_YIQ = np.array([LUMA, [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
FROM_YIQ = np.linalg.inv(TO_YIQ)


class Jitter(NamedTuple):
    """Factors of N views: (N,) each, ``hue`` in turns; ``order`` (N, 4) says which operation comes k-th; ``gray`` (N,) bool."""

    brightness: np.ndarray
    contrast: np.ndarray
    saturation: np.ndarray
    hue: np.ndarray
    order: np.ndarray
    gray: np.ndarray


def draw(recipe: Recipe, count: int, rng: np.random.Generator) -> Jitter:
    """Factors are neutral where a view is not jittered, so that every view takes the same path."""
    jittered = rng.random(count) < recipe.jitter_p

    def factor(amount: float) -> np.ndarray:
        return np.where(jittered, rng.uniform(max(0.0, 1 - amount), 1 + amount, count), 1.0)

    brightness, contrast, saturation = factor(recipe.brightness), factor(recipe.contrast), factor(recipe.saturation)
    hue = np.where(jittered, rng.uniform(-recipe.hue, recipe.hue, count), 0.0)
    order = rng.permuted(np.tile(np.arange(4), (count, 1)), axis=1)
    return Jitter(brightness, contrast, saturation, hue, order, rng.random(count) < recipe.gray_p)


def compose(recipe: Recipe, jitter: Jitter) -> tuple[np.ndarray, np.ndarray]:
    """The jitter as matrices: gain and centre, (N, 3, 3) each."""
    count = len(jitter.hue)
    gain = np.broadcast_to(np.eye(3), (count, 3, 3))
    centre = np.zeros((count, 3, 3))
    if recipe.jitter_p:
        gain, centre = ordered(gain, centre, jitter)
    keep = ~jitter.gray[:, None, None]
    return np.where(keep, gain, TO_GRAY @ gain), np.where(keep, centre, TO_GRAY @ centre)


def ordered(gain: np.ndarray, centre: np.ndarray, jitter: Jitter) -> tuple[np.ndarray, np.ndarray]:
    brightness = np.eye(3) * jitter.brightness[:, None, None]
    contrast = np.eye(3) * jitter.contrast[:, None, None]
    saturation = toward_gray(jitter.saturation)
    linear = np.stack([brightness, contrast, saturation, hue_rotation(jitter.hue)])
    rows = np.arange(len(jitter.hue))
    for k in range(4):
        operation = jitter.order[:, k]
        step = linear[operation, rows]
        lift = np.where(operation == 1, 1 - jitter.contrast, 0.0)[:, None, None]
        # Contrast adds (1 - c) times the mean gray of the image as it stands, which is TO_GRAY @ (gain + centre) @ m.
        centre = step @ centre + lift * (TO_GRAY @ (gain + centre))
        gain = step @ gain
    return gain, centre


def toward_gray(saturation: np.ndarray) -> np.ndarray:
    s = saturation[:, None, None]
    return s * np.eye(3) + (1 - s) * TO_GRAY


def hue_rotation(turns: np.ndarray) -> np.ndarray:
    """Rotation of chroma in YIQ by an angle in turns: (N, 3, 3)."""
    cos, sin = np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)
    rotation = np.zeros((len(turns), 3, 3))
    rotation[:, 0, 0] = 1
    rotation[:, 1, 1], rotation[:, 1, 2], rotation[:, 2, 1], rotation[:, 2, 2] = cos, -sin, sin, cos
    return FROM_YIQ @ rotation @ TO_YIQ
