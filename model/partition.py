"""The primitive under the objective: every source scored against every target, streamed, with exact gradients.

Scores are made tile by tile and made again in the backward pass, so memory is O(B L) and not O(B^2 L). Everything is relative to
the largest score that the soft clip s = c tanh(x / c) allows: with q = sigmoid(-2x / c),

    u = s - c = -2c q        du/dx = 4 q (1 - q)

which neither cancels nor needs a running maximum. Raw scores and sums are float32 (float64 for float64 inputs). The two products
of the backward pass are in the inputs' own type, as autocast's would be.

Shape letters: M sources, B images, L locations, R embedding width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

MAX_CLIP = 35.0  # beyond it, N e^{-u} can overflow float32
TILE = 16  # images a tile: the tile's scores stay in the processor's cache


class Partition(NamedTuple):
    """Per source: N (M,) the sum of e^{s-c} over negatives, positives s - c (M, L); and the sum of all squared raw scores ()."""

    negatives: Tensor
    positives: Tensor
    sum_of_squares: Tensor


def partition(sources: Tensor, owner: Tensor, targets: Tensor, clip: float) -> Partition:
    """Scores every source against every target; any upstream gradients are welcome.

    Args:
        sources: (M, R).
        owner: (M,) int64, the image of B that a source belongs to: its targets are the positives, all others negatives.
        targets: (B, L, R).
        clip: c of the soft clip, in (0, 35].

    Raises:
        ValueError: for another clip.
    """
    if not 0 < clip <= MAX_CLIP:
        raise ValueError(f"clip {clip}: must lie in (0, {MAX_CLIP:g}], as float32 overflows beyond")
    dtype = torch.promote_types(sources.dtype, targets.dtype)
    return Partition(*_Streamed.apply(sources.to(dtype), owner, targets.to(dtype), clip))


class _Tile(NamedTuple):
    """Scores of all sources against some images: x and q (M, b, L); sources with ``inside`` (M,) own image ``place`` of the b."""

    images: slice
    x: Tensor
    q: Tensor
    place: tuple[Tensor, Tensor]
    inside: Tensor


def _tiles(sources: Tensor, owner: Tensor, targets: Tensor, clip: float) -> Iterator[_Tile]:
    """All scores, tile by tile. Which sources own images in a tile is a mask: picking them out would wait for the GPU."""
    M, R = sources.shape
    left = sources.to(_accumulator(sources)) / R**0.5
    rows = torch.arange(M, device=sources.device)
    for first in range(0, len(targets), TILE):
        images = slice(first, min(first + TILE, len(targets)))
        right = targets[images].reshape(-1, R).to(left.dtype)
        x = (left @ right.T).view(M, images.stop - first, -1)
        inside = (owner >= first) & (owner < images.stop)
        place = (rows, (owner - first).clamp(0, images.stop - first - 1))
        yield _Tile(images, x, torch.sigmoid(x * (-2 / clip)), place, inside[:, None])


def _accumulator(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


class _Streamed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sources: Tensor, owner: Tensor, targets: Tensor, clip: float) -> tuple[Tensor, Tensor, Tensor]:
        wide = _accumulator(sources)
        negatives = sources.new_zeros(len(sources), dtype=wide)
        positives = sources.new_zeros(len(sources), targets.shape[1], dtype=wide)
        squares = sources.new_zeros((), dtype=wide)
        with torch.autocast(sources.device.type, enabled=False):
            for _, x, q, place, inside in _tiles(sources, owner, targets, clip):
                shifted = q.mul_(-2 * clip)
                own = shifted[place]
                positives = torch.where(inside, own, positives)
                shifted[place] = own.masked_fill(inside, -torch.inf)
                negatives += shifted.exp_().sum((1, 2))
                squares += x.square_().sum()
        ctx.save_for_backward(sources, owner, targets)
        ctx.clip = clip
        return negatives, positives, squares

    @staticmethod
    def backward(ctx: Any, d_negatives: Tensor, d_positives: Tensor, d_squares: Tensor) -> tuple[Tensor | None, ...]:
        sources, owner, targets = ctx.saved_tensors
        d_sources = sources.new_zeros(sources.shape, dtype=_accumulator(sources))
        d_targets = torch.empty_like(targets, memory_format=torch.contiguous_format)
        with torch.autocast(sources.device.type, enabled=False):
            for images, x, q, place, inside in _tiles(sources, owner, targets, ctx.clip):
                slope = q * (1 - q) * 4
                d_u = q.mul_(-2 * ctx.clip).exp_().mul_(d_negatives[:, None, None])
                d_u[place] = torch.where(inside, d_positives, d_u[place])
                d_x = d_u.mul_(slope).addcmul_(x, 2 * d_squares).flatten(1)
                d_x = (d_x / sources.shape[1] ** 0.5).to(sources.dtype)
                d_sources += d_x @ targets[images].flatten(0, 1)
                d_targets[images] = (d_x.T @ sources).view_as(d_targets[images])
        return d_sources.to(sources.dtype), None, d_targets, None
