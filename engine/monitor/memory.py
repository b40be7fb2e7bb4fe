"""Out of memory, in one line: what was asked for, what there is, and what to try."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from amdim.engine.monitor.resident_memory import most_resident
from amdim.errors import UserError, is_shortage

UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "PiB": 2**50, "EiB": 2**60}
# Torch's two allocators; NumPy; DALI.
ASKED = tuple(rf"{words} ([\d.]+) (\w+)" for words in ("[Tt]ried to allocate", "Unable to allocate", "Can't allocate"))
CONTAINER = Path("/sys/fs/cgroup")
CAPACITY = r"total capacity of ([\d.]+) (\w+) of which ([\d.]+) (\w+) is free"


@contextmanager
def explained(advice: Sequence[str]) -> Iterator[None]:
    """Turns the error of an allocation that failed into one line that ends with ``advice``.

    Raises:
        UserError: memory ran out in the block.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_shortage(error):
            raise
        raise UserError(f"{shortage(str(error))}; try {', or '.join(advice)}") from error


def shortage(message: str) -> str:
    """What was asked for and what there is, as far as the message and the machine say."""
    found = next((match for pattern in ASKED if (match := re.search(pattern, message))), None)
    asked = f"{size(found[1], found[2])} more were asked for" if found else "more was asked for"
    if there := re.search(CAPACITY, message):
        return f"out of memory: {asked}, and of the GPU's {size(there[1], there[2])} {size(there[3], there[4])} are free"
    if re.search(r"CUDA|CUBLAS|CUDNN|on device", message):
        return f"out of memory: {asked}{of_the_gpu()}"
    free, total = machine_memory()
    return f"out of memory: {asked}, and of this machine's {gib(total)} {gib(free)} are free"


def of_the_gpu() -> str:
    """What a GPU has, unless it is too full to be asked."""
    try:
        free, total = torch.cuda.mem_get_info()
    except (RuntimeError, AssertionError):
        return " on the GPU"
    return f", and of the GPU's {gib(total)} {gib(free)} are free"


def size(number: str, unit: str) -> str:
    return gib(float(number) * UNITS.get(unit, 1))


def gib(count: float) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**27 else f"{count / 2**20:.1f} MiB"


def machine_memory() -> tuple[int, int]:
    """Bytes of this machine, or of the container that this process is in, that are free for programs, and all."""
    page = os.sysconf("SC_PAGE_SIZE")
    total = page * os.sysconf("SC_PHYS_PAGES")
    info = Path("/proc/meminfo")
    available = re.search(r"MemAvailable:\s+(\d+) kB", info.read_text()) if info.exists() else None
    free = 1024 * int(available[1]) if available else page * os.sysconf("SC_AVPHYS_PAGES")
    limit, used = (number(CONTAINER / name) for name in ("memory.max", "memory.current"))
    return (free, total) if limit is None or used is None else (min(free, max(0, limit - used)), min(total, limit))


def number(path: Path) -> int | None:
    """What a file of the kernel counts; None where it does not, or says "max"."""
    text = path.read_text().strip() if path.exists() else ""
    return int(text) if text.isdigit() else None


def advice(batch: int, world: int, recomputes: bool, half: bool, begun: bool = False) -> list[str]:
    """What makes a step smaller, and is not done yet.

    Args:
        batch: images of all ranks.
        world: ranks.
        recomputes: whether activations are computed again.
        half: whether the encoder computes in 16 bits.
        begun: whether a run goes on, most of whose settings cannot change.
    """
    fewer, recompute = smaller_batch(batch, world), [] if recomputes else ["--checkpoint-activations"]
    others = [*([] if half else ["--amp bf16"]), "a smaller --preset"]
    if begun:
        return [*recompute, f"another --run with {' or '.join([*fewer, *others])}"]
    return [*fewer, *recompute, *others]


def smaller_batch(batch: int, world: int) -> list[str]:
    """Half of it, if that leaves each of ``world`` ranks two images."""
    fewer = max(2 * world, batch // 2 // world * world)
    return [f"--batch-size {fewer} (it is {batch})"] if fewer < batch else []


def elsewhere(device: torch.device) -> list[str]:
    """What to do where nothing of a command can be made smaller."""
    less = "--gpus 0" if device.type == "cuda" else "again with fewer programs beside it"
    return [less, "on a machine with more memory"]


def peak(device: torch.device) -> tuple[int, int]:
    """The most bytes that this process has had at a time, and what there is: a GPU's, or of the machine."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device), torch.cuda.mem_get_info(device)[1]
    return most_resident(), machine_memory()[1]
