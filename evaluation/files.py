"""Features on disk: arrays of half precision, whole or absent, mapped into memory and never read into it at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from shards.atomic import atomic

DAY = 86_400  # seconds


class Files:
    """The arrays in a directory of one evaluation; those that it makes are removed at its end, unless they are to be kept.

    Several evaluations may use a directory: what one of them reads stays readable when another one removes it.
    """

    def __init__(self, directory: Path, keep: bool) -> None:
        self.directory, self.keep = directory, keep
        self.made: list[Path] = []

    def __enter__(self) -> Files:
        return self

    def __exit__(self, *_: object) -> None:
        for path in [] if self.keep else self.made:
            path.unlink(missing_ok=True)
        if self.directory.exists() and not any(self.directory.iterdir()):
            self.directory.rmdir()

    def path(self, name: str) -> Path:
        return self.directory / f"{name}.npy"

    @contextmanager
    def new(self, name: str, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
        """An array to be filled, which becomes a file when the block ends well."""
        self.directory.mkdir(exist_ok=True)
        self.sweep()
        with atomic(self.path(name)) as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": shape})
            file.truncate(file.tell() + 2 * int(np.prod(shape)))
            yield np.memmap(file, np.float16, "r+", file.tell(), shape)
        self.made.append(self.path(name))

    def read(self, name: str) -> Tensor:
        """The array, which stays in its file until parts of it are asked for."""
        return torch.from_numpy(np.load(self.path(name), mmap_mode="c"))

    def sweep(self) -> None:
        """Removes what processes that were killed left half-written a day ago or more."""
        for path in self.directory.glob(".*.tmp"):
            if time.time() - path.stat().st_mtime > DAY:
                path.unlink(missing_ok=True)
