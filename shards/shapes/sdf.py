"""The ten outlines, as signed distances: negative inside, positive outside, zero on the edge.

A function takes the coordinates x, y (float32 arrays of one shape) in the frame of the object, in which a circle of radius 1
about the origin encloses the outline, and gives the distance in the same unit. Near the edge it is exact or a close bound.
Only +, -, *, /, sqrt, abs, min and max touch arrays: IEEE 754 rounds those alike on every host, so pictures do not vary.
The star's folding is Inigo Quilez's (iquilezles.org/articles/distfunctions2d).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.floating]  # float32 throughout: a plain Python number does not widen it


def length(x: Field, y: Field) -> Field:
    return np.sqrt(x * x + y * y)


def box(x: Field, y: Field, half_width: float, half_height: float) -> Field:
    """Distance to an upright rectangle about the origin."""
    across, along = np.abs(x) - half_width, np.abs(y) - half_height
    outside = length(np.maximum(across, 0), np.maximum(along, 0))
    return outside + np.minimum(np.maximum(across, along), 0)


def wedge(x: Field, y: Field, angles: tuple[float, float, float], inradii: tuple[float, float, float]) -> Field:
    """Distance to the triangle whose sides face the ``angles`` (radians), each ``inradii`` away from the origin."""
    sides = [x * math.cos(a) + y * math.sin(a) - r for a, r in zip(angles, inradii, strict=True)]
    return np.maximum(np.maximum(sides[0], sides[1]), sides[2])


def disc(x: Field, y: Field) -> Field:
    return length(x, y) - 0.9


def ring(x: Field, y: Field) -> Field:
    return np.abs(length(x, y) - 0.71) - 0.22


def square(x: Field, y: Field) -> Field:
    return box(x, y, 0.72, 0.72) - 0.04


def triangle(x: Field, y: Field) -> Field:
    third = 2 * math.pi / 3
    return wedge(x, y, (math.pi / 2, math.pi / 2 + third, math.pi / 2 - third), (0.5, 0.5, 0.5))


def star(x: Field, y: Field) -> Field:
    """Five points; folded twice onto one half of a point, then the distance to that one segment."""
    cos, sin, inner = math.cos(math.pi / 5), math.sin(math.pi / 5), 0.45
    x = np.abs(x)
    for side in (1, -1):
        over = 2 * np.maximum(side * cos * x - sin * y, 0)
        x, y = x - over * (side * cos), y + over * sin
    x, y = np.abs(x), y - 1
    edge_x, edge_y = inner * sin, inner * cos - 1
    along = np.clip((x * edge_x + y * edge_y) / (edge_x**2 + edge_y**2), 0, 1)
    return length(x - edge_x * along, y - edge_y * along) * np.sign(y * edge_x - x * edge_y)


def cross(x: Field, y: Field) -> Field:
    return np.minimum(box(x, y, 0.92, 0.3), box(x, y, 0.3, 0.92))


def crescent(x: Field, y: Field) -> Field:
    bite = 0.72 - length(x - 0.55, y)
    return np.maximum(length(x, y) - 0.95, bite)


def arrow(x: Field, y: Field) -> Field:
    head = wedge(x - 0.25, y, (math.pi, 0.82, -0.82), (0.2, 0.5, 0.5))
    return np.minimum(box(x + 0.4, y, 0.5, 0.24), head)


def heart(x: Field, y: Field) -> Field:
    """A square on its corner, with a disc on each of its upper sides."""
    half, root, y = 0.53, math.sqrt(0.5), y + 0.08
    tilted = box((x + y) * root, (x - y) * root, half, half)
    lobes = length(np.abs(x) - half * root, y - half * root) - half
    return np.minimum(tilted, lobes)


def gear(x: Field, y: Field) -> Field:
    """A holed disc with four bars through it, which make eight teeth."""
    radius, root = length(x, y), math.sqrt(0.5)
    u, v = (x + y) * root, (x - y) * root
    teeth = [box(x, y, 0.98, 0.16), box(x, y, 0.16, 0.98), box(u, v, 0.98, 0.16), box(u, v, 0.16, 0.98)]
    body = np.minimum.reduce([radius - 0.72, *teeth])
    return np.maximum(body, 0.3 - radius)


OUTLINES: dict[str, Callable[[Field, Field], Field]] = {
    function.__name__: function for function in (disc, ring, square, triangle, star, cross, crescent, arrow, heart, gear)
}
