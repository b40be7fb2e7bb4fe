"""Small pieces that clutter a background: arcs, bars and blobs, none of them one of the ten outlines.

As signed distances in pixels; x, y are float32 coordinates in pixels in the frame of the piece, ``size`` its half-length.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from amdim.shards.shapes.sdf import Field, length


def bar(x: Field, y: Field, size: float) -> Field:
    """A line with round ends, a quarter as thick as long."""
    return length(np.maximum(np.abs(x) - 0.75 * size, 0), y) - 0.25 * size


def arc(x: Field, y: Field, size: float) -> Field:
    """A bow of less than half a circle."""
    bow = np.abs(length(x, y + 0.6 * size) - size) - 0.22 * size
    return np.maximum(bow, -y)


def blob(x: Field, y: Field, size: float) -> Field:
    """Two unequal drops that touch."""
    large = length(x + 0.35 * size, y) - 0.55 * size
    small = length(x - 0.45 * size, y - 0.2 * size) - 0.4 * size
    return np.minimum(large, small)


FRAGMENTS: tuple[Callable[[Field, Field, float], Field], ...] = (bar, arc, blob)
