"""The two ways to make views: DALI's graph on any device; or DALI's decoder and torch's pixels, which is faster on a CPU."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from errors import UsageError, UserError
from pipeline import graph
from pipeline.draws import Draws
from pipeline.pixels import Painter
from pipeline.recipes import Recipe
from pipeline.store import mend

PIXELS = ("auto", "dali", "torch")


class Job(NamedTuple):
    """A batch to make: encoded images, and the draws of each view of them."""

    encoded: list[np.ndarray]
    draws: list[Draws]


def choose(pixels: str, device: torch.device) -> str:
    """The back-end for ``--pixels``: DALI on a GPU, torch elsewhere.

    Raises:
        UsageError: for another name, or torch's pixels on a GPU.
    """
    if pixels not in PIXELS:
        raise UsageError(f"--pixels {pixels}: give one of {', '.join(PIXELS)}")
    if pixels == "torch" and device.type == "cuda":
        raise UsageError("--pixels torch: is for the CPU; leave it out, and DALI makes the views on the GPU")
    return ("dali" if device.type == "cuda" else "torch") if pixels == "auto" else pixels


def make_views(
    jobs: Iterator[Job], recipe: Recipe, views: int, batch: int, device: torch.device, pixels: str, threads: int, root: Path
) -> Iterator[list[Tensor]]:
    """For each job, its views (B, 3, S, S), channels-last. ``jobs`` has no end, and is asked a few batches ahead.

    Raises:
        UserError: an image could not be decoded.
    """
    if pixels == "dali":
        return dali_views(jobs, recipe, views, batch, device, threads, root)
    return torch_views(jobs, recipe, batch, device, threads, root)


def dali_views(
    jobs: Iterator[Job], recipe: Recipe, views: int, batch: int, device: torch.device, threads: int, root: Path
) -> Iterator[list[Tensor]]:
    def source() -> list[Any]:
        encoded, draws = next(jobs)
        return [encoded, *(part for view in draws for part in graph.feed(recipe, view))]

    pipe = graph.build(source, recipe, views, batch, **device_options(device, threads))
    while True:
        # Tensors over DALI's memory: (B, 3, S, S) is channels-last because DALI writes (B, S, S, 3).
        yield [torch.from_dlpack(output.as_tensor()).permute(0, 3, 1, 2) for output in run(pipe, device, root)]


def torch_views(
    jobs: Iterator[Job], recipe: Recipe, batch: int, device: torch.device, threads: int, root: Path
) -> Iterator[list[Tensor]]:
    waiting: deque[list[Draws]] = deque()  # of the batches that DALI decodes ahead

    def source() -> list[Any]:
        encoded, draws = next(jobs)
        waiting.append(draws)
        return [encoded]

    pipe = graph.build(source, recipe, 0, batch, **device_options(device, threads))
    painter = Painter(recipe, threads)
    while True:
        (images,) = run(pipe, device, root)
        yield painter.views([np.asarray(image) for image in images], waiting.popleft())


def run(pipe: Any, device: torch.device, root: Path) -> Any:
    """The next outputs of a graph.

    Raises:
        UserError: DALI could not read or decode an image; a shard is damaged, as images are checked when they are written.
    """
    try:
        # On the GPU, outputs are ordered on torch's own stream: nothing waits on the host.
        return pipe.run(torch.cuda.current_stream(device)) if device.type == "cuda" else pipe.run()
    except RuntimeError as error:
        reason = next((line for line in str(error).splitlines() if "ailed" in line or "rror" in line), str(error)[:200])
        raise UserError(f"{root}: a batch could not be decoded ({reason.strip()}); {mend(root)}") from error


def device_options(device: torch.device, threads: int) -> dict[str, Any]:
    gpu = device.type == "cuda"
    return {"device": "gpu" if gpu else "cpu", "device_id": (device.index or 0) if gpu else None, "threads": threads}


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))
