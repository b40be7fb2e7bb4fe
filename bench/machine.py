"""What a figure was measured on, and how: the lines every benchmark prints."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def describe() -> str:
    """Processor, cores, GPU and versions in one line."""
    parts = [processor(), f"{len(os.sched_getaffinity(0))} cores", f"Python {platform.python_version()}"]
    parts += [f"{name} {found}" for name in ("torch", "nvidia-dali-cuda120", "triton") if (found := installed(name))]
    return ", ".join([*gpu(), *parts])


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def gpu() -> list[str]:
    import torch

    return [torch.cuda.get_device_name()] if torch.cuda.is_available() else []


def seconds(work: Callable[[], object], repeats: int, warmup: int = 2) -> list[float]:
    """Wall seconds of each of ``repeats`` calls, after ``warmup`` that are not counted."""
    for _ in range(warmup):
        work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return times


def spread(times: list[float]) -> str:
    """Median, fastest and slowest, in milliseconds."""
    return f"{1e3 * statistics.median(times):.1f} ms (min {1e3 * min(times):.1f}, max {1e3 * max(times):.1f}, n {len(times)})"
