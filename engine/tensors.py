"""Writes files whose bytes are summed as they go to the disk, and tensors into them in the format of safetensors.

safetensors' own writer makes a copy of every tensor and keeps Python's lock meanwhile, which stops the training loop beside it:
here a tensor's memory goes to the file as it is, and the lock is free.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


class Summed:
    """A file that is written once from its start to its end; ``crc`` is the CRC-32 of what it holds so far."""

    def __init__(self, path: Path) -> None:
        self.file, self.crc = path.open("wb"), 0
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        self.crc = zlib.crc32(data, self.crc)
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error  # torch.save, which calls this, would say that a position is unexpected
            raise

    def flush(self) -> None:
        self.file.flush()


@contextmanager
def summed(path: Path) -> Iterator[Summed]:
    """A new file; it is on the disk when the block ends well.

    Raises:
        OSError: it cannot be written.
    """
    out = Summed(path)
    try:
        with out.file:
            yield out
            out.flush()
            os.fsync(out.file.fileno())
    except RuntimeError as error:
        raise (out.error or error) from error


def write_tensors(tensors: dict[str, Tensor], out: Summed) -> None:
    """In the format of safetensors: the length of the header, the header, each tensor's bytes in row-major order."""
    header, start = {}, 0
    for name, tensor in tensors.items():
        end = start + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so that tensors begin at multiples of 8 bytes
    out.write(len(text).to_bytes(8, "little") + text)
    for tensor in tensors.values():
        out.write(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)


def crc(path: Path) -> int:
    """The CRC-32 of a file."""
    total, block = 0, memoryview(bytearray(1 << 20))
    with path.open("rb", buffering=0) as file:
        while read := file.readinto(block):
            total = zlib.crc32(block[:read], total)
    return total
