"""Random orders that depend on nothing but a seed and a name."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray


def permutation(seed: int, name: str, count: int) -> NDArray[np.int64]:
    """The numbers 0 to ``count - 1`` in random order; other names give independent orders."""
    key = np.array([seed, zlib.crc32(name.encode("utf-8", "surrogateescape"))], np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).permutation(count)
