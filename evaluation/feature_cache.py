"""Features on disk: arrays of half precision, mapped into memory and never read into it at once."""

from __future__ import annotations

import errno
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from amdim.errors import UserError
from amdim.shards.atomic import atomic

DAY = 86_400  # seconds


class FeatureCache:
    """The arrays of one evaluation, by their names.

    Those that are to be kept become files of a directory, whole or not at all, and are found there by the next evaluation. The
    others have no name on the disk: the system takes their room back when the process ends, however it ends.
    """

    def __init__(self, directory: Path, keep: bool) -> None:
        self.directory, self.keep = directory, keep
        self.arrays: dict[str, Tensor] = {}

    def find(self, name: str) -> Tensor | None:
        """An array (V, n, D) that is there, and stays readable if somebody removes its file."""
        if name not in self.arrays and self.path(name).exists():
            with suppress(ValueError, EOFError):  # cut short, as by a copy that was broken off: it is made anew
                self.arrays[name] = torch.from_numpy(np.load(self.path(name), mmap_mode="c"))
        return self.arrays.get(name)

    def path(self, name: str) -> Path:
        return self.directory / f"{name}.npy"

    @contextmanager
    def new(self, name: str, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
        """An array to be filled, which is there when the block ends well.

        Raises:
            UserError: the disk has no room for it.
        """
        with self.file(name) as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": shape})
            self.claim(file, 2 * int(np.prod(shape)))
            array = np.memmap(file, np.float16, "r+", file.tell(), shape)
            yield array
        self.arrays[name] = torch.from_numpy(array)

    def claim(self, file: BinaryIO, size: int) -> None:
        """Room for ``size`` more bytes: a write into a mapping for which there is none would end the process."""
        try:
            os.posix_fallocate(file.fileno(), 0, file.tell() + size)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            words = f"the disk is full, with {size / 1e9:,.1f} GB wanted for features"
            raise UserError(
                f"{self.directory.parent}: {words}; free some, or extract less (--no-baselines, fewer --views)"
            ) from error

    def file(self, name: str) -> AbstractContextManager[BinaryIO]:
        if not self.keep:
            return tempfile.TemporaryFile(dir=self.directory.parent)
        self.directory.mkdir(exist_ok=True)
        self.sweep()
        return atomic(self.path(name))

    def sweep(self) -> None:
        """Removes what processes that were killed left half-written a day ago or more."""
        for path in self.directory.glob(".*.tmp"):
            if time.time() - path.stat().st_mtime > DAY:
                path.unlink(missing_ok=True)
