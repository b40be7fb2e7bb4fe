"""The scores of ``partition`` and their gradients in plain PyTorch, a tile of images at a time: for any device.

Memory passes, not arithmetic, are what a tile costs beside its product, so each line here is one pass over (M, b, L) numbers, in
place where it can be, and a tile is small enough for them to happen in the processor's cache.

Here y = <source, target>, so that x = y / sqrt(R); the rest is named as in ``model.streaming_nce``.

Shape letters: M sources, B images, b images of a tile, L locations, R embedding width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

SCORES_A_TILE = 2**19  # 2 MB of float32


def images_a_tile(sources: int, locations: int) -> int:
    """How many images are scored at a time."""
    return max(1, SCORES_A_TILE // (sources * locations))


def sums(sources: Tensor, owner: Tensor, targets: Tensor, clip: float) -> tuple[Tensor, Tensor, Tensor]:
    """Negatives (M,), positives (M, L) and the sum of squares () of ``partition``."""
    wide = torch.promote_types(sources.dtype, torch.float32)
    B, L, R = targets.shape
    scale = R**-0.5
    negatives = sources.new_zeros(len(sources), dtype=wide)
    positives = sources.new_zeros(len(sources), L, dtype=wide)
    squares = sources.new_zeros((), dtype=wide)
    tile = images_a_tile(len(sources), L)
    for first in range(0, B, tile):
        images = slice(first, min(first + tile, B))
        y = products(sources, targets[images])
        squares += torch.dot(y.view(-1), y.view(-1))
        u = y.mul_(-2 * scale / clip).sigmoid_().mul_(-2 * clip)
        inside, place = own(owner, images)
        own_u = u[place]
        positives = torch.where(inside, own_u, positives)
        u[place] = own_u.masked_fill_(inside, -torch.inf)
        negatives += u.exp_().sum((1, 2))
    return negatives, positives, squares / R


def score_gradients(
    sources: Tensor,
    owner: Tensor,
    targets: Tensor,
    images: slice,
    clip: float,
    d_negatives: Tensor,
    d_positives: Tensor,
    d_squares: Tensor,
) -> Tensor:
    """Gradient of the products <source, target> of some images: (M, b L), in the inputs' type."""
    scale = targets.shape[-1] ** -0.5
    y = products(sources, targets[images])
    q = (y * (-2 * scale / clip)).sigmoid_()
    d_u = (q * (-2 * clip)).exp_().mul_((4 * scale * d_negatives)[:, None, None])
    inside, place = own(owner, images)
    d_u[place] = torch.where(inside, 4 * scale * d_positives, d_u[place])
    # sigmoid_backward(g, q) is g q (1 - q) in one pass.
    d_y = torch.ops.aten.sigmoid_backward(d_u, q).addcmul_(y, 2 * scale**2 * d_squares)
    return d_y.flatten(1).to(sources.dtype)


def own(owner: Tensor, images: slice) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Which sources (M, 1) own an image of the tile, and the indices of that image: a mask, as picking would wait for a GPU."""
    inside = (owner >= images.start) & (owner < images.stop)
    rows = torch.arange(len(owner), device=owner.device)
    return inside[:, None], (rows, (owner - images.start).clamp(0, images.stop - images.start - 1))


def products(sources: Tensor, targets: Tensor) -> Tensor:
    """<source, target> of (M, R) and (b, L, R): (M, b, L), at least float32; 16-bit inputs are multiplied exactly."""
    left, right = sources, targets.flatten(0, 1)
    if left.dtype not in (torch.bfloat16, torch.float16):
        y = left @ right.T
    elif left.is_cuda:
        y = torch.mm(left, right.T, out_dtype=torch.float32)
    else:
        with bfloat16_products(left.dtype is torch.bfloat16):
            y = left.float() @ right.float().T
    return y.view(len(sources), *targets.shape[:2])


@contextmanager
def bfloat16_products(on: bool) -> Iterator[None]:
    """Lets oneDNN multiply float32 matrices as bfloat16 with float32 sums.

    That is exact where the numbers are bfloat16 already, and four times as fast on a CPU with AMX; others ignore it.
    """
    matmul = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = matmul.fp32_precision
    if on:
        matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before
