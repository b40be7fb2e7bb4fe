"""How fast are scores and their gradients on a GPU, in which form and in which tiles?  python -m bench.gpu_nce

In bfloat16, beside the library's product of the same size. Rows of forms are forward and backward together, four products; a row
of a tile has one product and its epilogue. M sources of N images score L locations of B images, as one of N / B ranks does.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from itertools import pairwise
from unittest import mock

import torch

from amdim.model import nce_triton as kernels
from amdim.model.streaming_nce import nce_sums
from bench.gpu_skip import Skip, need_gpu
from bench.machine import describe

FORMS = ("torch", "triton")
SIZES = ((480, 480, 1536), (1024, 1024, 1536), (1024, 1024, 2560))  # N, B, R
PAIRS = ((2, 25), (1, 49))  # sources an image, and the locations that they score
TILES = tuple(
    kernels.Shape(*tile) for tile in ((128, 64, 64, 8, 3), (128, 64, 64, 4, 4), (64, 128, 64, 4, 3), (128, 128, 64, 8, 4))
)
REPEATS = 15


def milliseconds(work: Callable[[], object]) -> float:
    """Median of the GPU's time."""
    events = [torch.cuda.Event(enable_timing=True) for _ in range(REPEATS + 1)]
    for _ in range(3):
        work()
    events[0].record()
    for event in events[1:]:
        work()
        event.record()
    torch.cuda.synchronize()
    return statistics.median(a.elapsed_time(b) for a, b in pairwise(events))


def problem(N: int, B: int, R: int, P: int, L: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sources (N P, R), the image of each, and targets (B, L, R)."""
    sources, targets = (torch.randn(*shape, R, device="cuda").bfloat16() for shape in ((N * P,), (B, L)))
    return sources, torch.arange(N, device="cuda").repeat_interleave(P), targets


def form(name: str, N: int, B: int, R: int, P: int, L: int) -> str:
    sources, owner, targets = problem(N, B, R, P, L)
    inputs = sources.requires_grad_(), targets.requires_grad_()

    def work() -> None:
        parts = nce_sums(inputs[0], owner, inputs[1], 20.0, name)
        torch.autograd.grad(parts.negatives.log().sum() + parts.positives.sum() + parts.sum_of_squares, inputs)

    taken = milliseconds(work)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    memory = (torch.cuda.max_memory_allocated() - before) / 2**20
    return f"{name} {taken:8.2f} ms {rate(4, N, B, R, P, L, taken):4.0f} TFLOP/s {memory:4.0f} MiB"


def rate(products: int, N: int, B: int, R: int, P: int, L: int, taken: float) -> float:
    return products * 2 * N * P * B * L * R / taken / 1e9


def library(N: int, B: int, R: int, P: int, L: int) -> float:
    """TFLOP/s of the product alone."""
    sources, _, targets = problem(N, B, R, P, L)
    rows = targets.flatten(0, 1).T
    return rate(1, N, B, R, P, L, milliseconds(lambda: sources @ rows))


def tile(shape: kernels.Shape, N: int, B: int, R: int, P: int, L: int) -> str:
    sources, owner, targets = problem(N, B, R, P, L)
    upstream = torch.randn(N * P, device="cuda"), torch.randn(N * P, L, device="cuda"), torch.randn((), device="cuda")
    with mock.patch.object(kernels, "SUMS", shape), mock.patch.object(kernels, "GRADIENTS", shape):
        taken = (
            milliseconds(lambda: kernels.sums(sources, owner, targets, 20.0)),
            milliseconds(lambda: kernels.score_gradients(sources, owner, targets, slice(0, B), 20.0, *upstream)),
        )
    cells = (f"{each:7.3f} ms {rate(1, N, B, R, P, L, each):4.0f} TFLOP/s" for each in taken)
    return f"{tuple(shape)!s:22}" + "".join(f"{name}{cell}  " for name, cell in zip(("sums", "gradients"), cells, strict=True))


def main() -> None:
    try:
        need_gpu()
    except Skip as reason:
        sys.exit(f"python -m bench.gpu_nce: {reason}")
    print(f"{describe()}\nmedians of {REPEATS}")
    for size in SIZES:
        for pair in PAIRS:
            print(f"N {size[0]} B {size[1]} R {size[2]} P {pair[0]} L {pair[1]}: ", *(form(name, *size, *pair) for name in FORMS))
    for N in (480, 3840):
        case = (N, 480, 1536, 2, 25)
        print(f"N {N} B 480 R 1536 P 2 L 25: the library's product {library(*case):.0f} TFLOP/s")
        for shape in TILES:
            print(f"  {tile(shape, *case)}")


if __name__ == "__main__":
    main()
