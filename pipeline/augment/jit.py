"""numba's compiler for loops over pixels, with what it made kept for the next process where there is a place to keep it.

Constants of a module are frozen into what is kept, which is made anew when the module's file changes: none may come from another.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from numba import njit

# numpy's errors: a division looks for no zeros. It contracts no products with sums: the bits are the same on every processor.
OPTIONS = {"nogil": True, "error_model": "numpy"}


def jit(function: Callable[..., Any]) -> Any:
    """Compiles when first called. Kept beside the source or in the user's cache, or, where neither can be written, not at all.

    Not in a directory that any user may write: what is loaded from there is run.
    """
    try:
        kept = njit(cache=True, **OPTIONS)(function)
    except RuntimeError:  # numba's for "no locator available": each process compiles for itself, which takes it some seconds
        return njit(**OPTIONS)(function)
    kept._cache = Tolerant(kept._cache)
    return kept


class Tolerant:
    """numba's cache of a function, on a disk that may be full: what cannot be saved is compiled again by the next process."""

    def __init__(self, cache: Any) -> None:
        self.cache = cache

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cache, name)

    def save_overload(self, *compiled: Any) -> None:
        with suppress(OSError):
            self.cache.save_overload(*compiled)
