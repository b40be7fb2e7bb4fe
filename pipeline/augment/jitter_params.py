"""The random numbers of colour jitter, as torchvision draws them: four operations in random order, and graying after them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from amdim.pipeline.augment.recipes import Recipe

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


class JitterParams(NamedTuple):
    """Of N views: ``amount`` (N, 4), factors and for hue turns; ``order`` (N, 4), which operation comes k-th; ``gray`` (N,)."""

    amount: np.ndarray
    order: np.ndarray
    gray: np.ndarray


def draw(recipe: Recipe, count: int, rng: np.random.Generator) -> JitterParams:
    """Amounts are neutral where a view is not jittered, so that every view takes the same path."""
    jittered = rng.random(count) < recipe.jitter_p

    def factor(strength: float) -> np.ndarray:
        return np.where(jittered, rng.uniform(max(0.0, 1 - strength), 1 + strength, count), 1.0)

    factors = [factor(strength) for strength in (recipe.brightness, recipe.contrast, recipe.saturation)]
    hue = np.where(jittered, rng.uniform(-recipe.hue, recipe.hue, count), 0.0)
    order = rng.permuted(np.tile(np.arange(4), (count, 1)), axis=1)
    return JitterParams(np.stack([*factors, hue], 1), order, rng.random(count) < recipe.gray_p)


def none(count: int) -> JitterParams:
    """Views whose colours stay as they are."""
    return JitterParams(np.tile([1.0, 1, 1, 0], (count, 1)), np.tile(np.arange(4), (count, 1)), np.zeros(count, bool))
