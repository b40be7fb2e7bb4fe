"""Colour jitter one operation after the other (``color = "exact"``), with the arithmetic of Pillow on whole levels 0..255.

All but hue are one form. With g the pixel's gray, rounded, and m the image's mean gray, rounded, an operation is

    floor(f x + a g + b m), clamped to 0..255     brightness (f, 0, 0), contrast (f, 0, 1 - f), saturation (f, 1 - f, 0)

Hue turns in HSV, in floating point: Pillow's own HSV has 8 bits and lies several levels off. Hue comes once, somewhere among the
others, so a chain is three such operations before it and three after, those that are not drawn being (1, 0, 0): no branches.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.jitter import BRIGHTNESS, CONTRAST, HUE, SATURATION, Jitter

LUMA = (19595 / 65536, 38470 / 65536, 7471 / 65536)  # ITU-R BT.601 as in Pillow: sums of whole levels are exact in float32
# Added before rounding down: float32 holds f x to about 1e-5, and 1 x must stay x.
NUDGE = 1e-3
BEFORE = 3  # operations before hue, and as many after


class Chain(NamedTuple):
    """Of N views: ``blend`` (N, 6, 3), the (f, a, b) of the operations around hue; ``hue`` (N,) turns; ``gray`` (N,) bool."""

    blend: np.ndarray
    hue: np.ndarray
    gray: np.ndarray


def chain(jitter: Jitter) -> Chain:
    """The jitter with hue in the middle, in the drawn order."""
    count = len(jitter.gray)
    blend = np.tile([1.0, 0.0, 0.0], (count, 2 * BEFORE, 1))
    rank = np.argsort(jitter.order, axis=1)  # when each operation comes
    for operation in (BRIGHTNESS, CONTRAST, SATURATION):
        when, f = rank[:, operation], jitter.amount[:, operation]
        place = np.where(when < rank[:, HUE], when, when - 1 + BEFORE)
        rest = [1 - f if operation == other else np.zeros(count) for other in (SATURATION, CONTRAST)]
        blend[np.arange(count), place] = np.stack([f, *rest], 1)
    return Chain(blend, jitter.amount[:, HUE], jitter.gray)
