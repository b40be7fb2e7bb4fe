"""Two-tone patterns: how much of the second tone each pixel takes, 0 to 1, with edges one pixel soft.

A function takes coordinates u, v (float32, in pixels, already turned and shifted), a period in pixels and a (CELLS, CELLS)
lattice of numbers in [0, 1), which only the irregular pattern uses. As in ``outlines``, no operation here varies by host.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from amdim.shards.shapes.sdf import Field, length

CELLS = 16


def plain(u: Field, v: Field, period: float, lattice: Field) -> Field:  # noqa: ARG001 - all patterns are called alike
    return np.zeros_like(u)


def stripes(u: Field, v: Field, period: float, lattice: Field) -> Field:  # noqa: ARG001
    return soft(triangle_wave(u, period))


def checks(u: Field, v: Field, period: float, lattice: Field) -> Field:  # noqa: ARG001
    a, b = triangle_wave(u, period), triangle_wave(v, period)
    return soft(np.minimum(np.abs(a), np.abs(b)) * np.sign(a) * np.sign(b))


def dots(u: Field, v: Field, period: float, lattice: Field) -> Field:  # noqa: ARG001
    return soft(period * 0.3 - length(centred(u, period), centred(v, period)))


def gradient(u: Field, v: Field, period: float, lattice: Field) -> Field:  # noqa: ARG001
    return np.clip(0.5 + u / (5 * period), 0, 1)


def blotches(u: Field, v: Field, period: float, lattice: Field) -> Field:
    """Smooth noise, cut at its middle: bilinear between lattice points, which repeat every CELLS periods."""
    x, y = u / period, v / period
    column, row = np.floor(x), np.floor(y)
    fx, fy = smooth(x - column), smooth(y - row)
    i, j = column.astype(np.int32) % CELLS, row.astype(np.int32) % CELLS
    above = lattice[j, i] * (1 - fx) + lattice[j, (i + 1) % CELLS] * fx
    below = lattice[(j + 1) % CELLS, i] * (1 - fx) + lattice[(j + 1) % CELLS, (i + 1) % CELLS] * fx
    return soft((above * (1 - fy) + below * fy - 0.5) * period)


TEXTURES: tuple[Callable[[Field, Field, float, Field], Field], ...] = (plain, stripes, checks, dots, gradient, blotches)


def centred(u: Field, period: float) -> Field:
    """Distance, with sign, to the nearest multiple of the period."""
    return u - period * np.floor(u / period + 0.5)


def triangle_wave(u: Field, period: float) -> Field:
    """Distance in pixels to the nearest edge of stripes of half a period: positive on one kind, negative on the other."""
    return period / 4 - np.abs(centred(u, period))


def soft(distance: Field) -> Field:
    """0 outside, 1 inside, one pixel wide ramp between."""
    return np.clip(distance + 0.5, 0, 1)


def smooth(t: Field) -> Field:
    return t * t * (3 - 2 * t)
