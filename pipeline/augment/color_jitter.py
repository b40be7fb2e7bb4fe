"""Colour jitter one operation after the other (``color = "exact"``), with the arithmetic of Pillow on whole levels 0..255.

All but hue are one form. With g the pixel's gray, rounded, and m the image's mean gray, rounded, an operation is

    floor(f x + a g + b m), clamped to 0..255     brightness (f, 0, 0), contrast (f, 0, 1 - f), saturation (f, 1 - f, 0)

Hue turns in HSV, in floating point: Pillow's own HSV has 8 bits and lies several levels off. Hue comes once, somewhere among the
others, so a chain is three such operations before it and three after, those that are not drawn being (1, 0, 0): no branches.

``colour`` is the chain compiled for the CPU by numba: operations as small as these cost more to call than to compute, and the
interpreter lets only one thread call at a time.

Shape letter: P pixels of a view.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from amdim.pipeline.augment.jit import jit
from amdim.pipeline.augment.jitter_params import BRIGHTNESS, CONTRAST, HUE, SATURATION, JitterParams

LUMA = (19595 / 65536, 38470 / 65536, 7471 / 65536)  # ITU-R BT.601 as in Pillow: sums of whole levels are exact in float32
# Added before rounding down: float32 holds f x to about 1e-5, and 1 x must stay x.
NUDGE = 1e-3
BEFORE = 3  # operations before hue, and as many after


class Chain(NamedTuple):
    """Of N views: ``blend`` (N, 6, 3), the (f, a, b) of the operations around hue; ``hue`` (N,) turns; ``gray`` (N,) bool."""

    blend: np.ndarray
    hue: np.ndarray
    gray: np.ndarray


def chain(jitter: JitterParams) -> Chain:
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


# Levels are float32, and so is every constant: one of float64 would make all that it meets float64.
RED, GREEN, BLUE = (np.float32(part) for part in LUMA)
HALF, UP, TOP = np.float32(0.5), np.float32(NUDGE), np.float32(255)
ZERO, ONE, TWO, FOUR, SIX, SIXTH = (np.float32(number) for number in (0, 1, 2, 4, 6, 1 / 6))


@jit
def gray_of(red: np.float32, green: np.float32, blue: np.float32) -> np.float32:
    return np.floor(RED * red + GREEN * green + BLUE * blue + HALF)


@jit
def colour(
    levels: np.ndarray, blend: np.ndarray, hue: np.float32, gray: bool, shift: np.ndarray, scale: np.ndarray, out: np.ndarray
) -> None:
    """Colours and normalises one view: ``shift + scale x``, x being what the chain makes of a pixel.

    Args:
        levels: (3, P) uint8.
        blend, hue, gray: a view's part of a ``Chain``, (6, 3) float32, float32 and bool.
        shift, scale: (3,) float32.
        out: (3, P) float32.
    """
    for c in range(3):
        for p in range(out.shape[1]):
            out[c, p] = levels[c, p]
    red, green, blue = out[0], out[1], out[2]
    for step in range(2 * BEFORE):
        if step == BEFORE and hue != 0:
            turn(red, green, blue, hue)
        if blend[step, 0] != 1 or blend[step, 1] != 0 or blend[step, 2] != 0:
            blend_in(red, green, blue, blend[step, 0], blend[step, 1], blend[step, 2])
    if gray:
        for p in range(red.size):
            red[p] = green[p] = blue[p] = gray_of(red[p], green[p], blue[p])
    for c in range(3):
        for p in range(out.shape[1]):
            out[c, p] = shift[c] + scale[c] * out[c, p]


@jit
def blend_in(red: np.ndarray, green: np.ndarray, blue: np.ndarray, f: np.float32, own: np.float32, mean: np.float32) -> None:
    """One operation other than hue on planes (P,)."""
    level = UP + mean * mean_gray(red, green, blue) if mean != 0 else UP
    for p in range(red.size):
        add = level + own * gray_of(red[p], green[p], blue[p]) if own != 0 else level
        red[p] = min(max(np.floor(f * red[p] + add), ZERO), TOP)
        green[p] = min(max(np.floor(f * green[p] + add), ZERO), TOP)
        blue[p] = min(max(np.floor(f * blue[p] + add), ZERO), TOP)


@jit
def mean_gray(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> np.float32:
    """Rounded, of planes (P,); in float64 the sum of whole levels is exact."""
    total = 0.0
    for p in range(red.size):
        total += gray_of(red[p], green[p], blue[p])
    return np.float32(np.floor(total / red.size + 0.5))


@jit
def turn(red: np.ndarray, green: np.ndarray, blue: np.ndarray, turns: np.float32) -> None:
    """Hue turned in HSV on planes (P,): of the six sectors around the gray axis, h says where a pixel is."""
    for p in range(red.size):
        r, g, b = red[p], green[p], blue[p]
        high = max(r, g, b)
        chroma = high - min(r, g, b)
        h = b - r + TWO * chroma if g == high else r - g + FOUR * chroma
        h = g - b if r == high else h
        h = h / max(chroma, ONE) + SIX * turns
        red[p] = wheel(high, chroma, h + np.float32(5))
        green[p] = wheel(high, chroma, h + np.float32(3))
        blue[p] = wheel(high, chroma, h + ONE)


@jit
def wheel(high: np.float32, chroma: np.float32, k: np.float32) -> np.float32:
    """A channel's level at k sixths from where it is missing: it rises for one, stays for two and falls for one."""
    k -= SIX * np.floor(k * SIXTH)
    return np.floor(high - chroma * min(max(min(k, FOUR - k), ZERO), ONE) + HALF)
