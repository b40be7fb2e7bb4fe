"""The Python version of CIFAR, which is pickled, read without running anything that is in it.

A pickle is a program. Here it may build bytes, text, numbers, lists, tuples and dictionaries, and name the three things that
NumPy's arrays are pickled with; what stands for these is below, and makes arrays of unsigned bytes and nothing else.
"""

from __future__ import annotations

import io
import math
import pickle
from typing import Any

import numpy as np
from numpy.typing import NDArray

MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")


class Array:
    """What ``numpy.core.multiarray._reconstruct`` becomes; its ``values`` are set from the pickled state."""

    values: NDArray[np.uint8]

    def __init__(self, *_: object) -> None:
        """The arguments say what NumPy would make, an empty array."""

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, by_column, data = state
        if not isinstance(kind, Kind) or kind.name not in ("u1", b"u1") or not isinstance(data, bytes):
            raise pickle.UnpicklingError("an array of something else than bytes")
        if math.prod(shape) != len(data):
            raise pickle.UnpicklingError("an array of another size than its data")
        self.values = np.frombuffer(data, np.uint8).reshape(shape, order="F" if by_column else "C")


class Kind:
    """What ``numpy.dtype`` becomes."""

    def __init__(self, name: Any = "", *_: object) -> None:
        self.name = name

    def __setstate__(self, state: object) -> None:
        """Byte order and the like, which unsigned bytes do not have."""


PLAIN = (Array, bytes, str, int, float, list, tuple, dict, type(None))


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        allowed = {("numpy", "ndarray"): Array, ("numpy", "dtype"): Kind} | {(each, "_reconstruct"): Array for each in MODULES}
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no array needs")
        return allowed[module, name]


def load(data: bytes) -> dict[bytes, Any]:
    """A pickled dictionary with its keys as bytes, arrays as ``Array``; raises ValueError for anything else."""
    try:
        found = _Unpickler(io.BytesIO(data), encoding="bytes").load()
        _check_kinds(found)
    except Exception as error:  # an unpickler raises whatever the damage makes it raise
        raise ValueError(f"no pickle of plain arrays: {error or type(error).__name__}") from None
    if not isinstance(found, dict):
        raise ValueError("no dictionary in its pickle")
    return {key.encode() if isinstance(key, str) else key: value for key, value in found.items()}


def _check_kinds(value: Any) -> None:
    """Raises UnpicklingError for sets and whatever else a pickle can hold without naming it."""
    waiting, seen = [value], set()
    while waiting:
        each = waiting.pop()
        if not isinstance(each, PLAIN):
            raise pickle.UnpicklingError(f"it holds a {type(each).__name__}")
        if isinstance(each, list | tuple | dict) and id(each) not in seen:
            seen.add(id(each))
            waiting.extend([*each, *each.values()] if isinstance(each, dict) else each)
