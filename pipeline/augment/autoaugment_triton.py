"""The operations of a policy in Triton, for a GPU: one kernel a step, where DALI's graph has near a hundred small operators.

Bit for bit what ``steps`` makes on the CPU. A program does one view; which operation is its, it finds in the view's row.

Shape letters: N views, S image side, P = S S pixels of a view.
"""

from __future__ import annotations

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from amdim.pipeline.augment import autoaugment_cpu
from amdim.pipeline.augment.autoaugment import STEPS, AutoAugmentParams, as_steps

BLOCK, WARPS = 1024, 8  # pixels at a time, four a thread
WARP, CURVE, STRETCH, EQUALIZE, ENHANCE, HOLE = (tl.constexpr(kind) for kind in range(1, 7))  # 0 leaves a view as it is
OWN, MEAN, SMOOTH = (tl.constexpr(dull) for dull in (autoaugment_cpu.OWN, autoaugment_cpu.MEAN, autoaugment_cpu.SMOOTH))
FILL = tl.constexpr(sum(level << 8 * c for c, level in enumerate(autoaugment_cpu.FILL)))  # a byte a channel


def operated(levels: Tensor, numbers: Tensor, factors: Tensor) -> Tensor:
    """Both steps of a policy; nothing waits for the GPU.

    Args:
        levels: (N, S, S, 3) uint8, which are left as they are.
        numbers, factors: of ``tables``, (2, N, 14) int64 and (2, N) float32, on the levels' device.
    """
    N, S, _, _ = levels.shape
    for k in range(STEPS):
        out = torch.empty_like(levels)
        with torch.cuda.device_of(levels):  # no contraction of products and sums, which rounds otherwise than the CPU does
            _operate[(N,)](levels, numbers, factors, out, S, k, BLOCK=BLOCK, num_warps=WARPS, enable_fp_fusion=False)
        levels = out
    return levels


def tables(policy: AutoAugmentParams, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each step and view: kind, affine (6), threshold, grain, dull, hole (4) as (2, N, 14) int64; factor (2, N) float32."""
    drawn = as_steps(policy, side)
    affine, curve, factor, dull, hole = autoaugment_cpu.prepare(drawn)
    threshold = np.ceil(curve[..., 0])  # of whole levels, those from this one on are the same
    conditions = {
        WARP: (affine != autoaugment_cpu.fixed_point(np.eye(2, 3))).any(-1),
        CURVE: (drawn.threshold < 256) | (drawn.grain > 1),
        STRETCH: drawn.stretch,
        EQUALIZE: drawn.equalize,
        ENHANCE: factor != 1,
        HOLE: hole[..., 2] > hole[..., 0],
    }
    kind = np.select(list(conditions.values()), [kind.value for kind in conditions], 0)
    columns = [kind[..., None], affine, threshold[..., None], curve[..., 1:2], dull[..., None], hole]
    numbers = np.concatenate([column.astype(np.int64) for column in columns], -1)
    return np.ascontiguousarray(numbers.swapaxes(0, 1)), np.ascontiguousarray(factor.swapaxes(0, 1))


@triton.jit(do_not_specialize=["step"])
def _operate(levels, numbers, factors, out, S, step, BLOCK: tl.constexpr):
    view = tl.program_id(0).to(tl.int64)
    levels += view * 3 * S * S
    out += view * 3 * S * S
    row = step * tl.num_programs(0) + view
    numbers += row * 14
    kind = tl.load(numbers)
    if kind == WARP:
        _warp(levels, numbers + 1, out, S, BLOCK)
    elif kind == STRETCH:
        _stretch(levels, out, S * S, BLOCK)
    elif kind == EQUALIZE:
        _equalize(levels, out, S * S, BLOCK)
    elif kind == ENHANCE:
        _enhance(levels, tl.load(factors + row), tl.load(numbers + 9), out, S, BLOCK)
    else:  # of which each leaves as it is what is not drawn
        _curve_and_hole(levels, tl.load(numbers + 7), tl.load(numbers + 8), numbers + 10, out, S, BLOCK)


@triton.jit
def _warp(levels, affine, out, S, BLOCK: tl.constexpr):
    """Each pixel from the nearest one of where it comes from, black from beyond the border."""
    for first in range(0, S * S, BLOCK):
        p = first + tl.arange(0, BLOCK)
        x, y = p % S, p // S
        column = (x * tl.load(affine) + y * tl.load(affine + 2) + tl.load(affine + 4)) >> 16
        row = (x * tl.load(affine + 1) + y * tl.load(affine + 3) + tl.load(affine + 5)) >> 16
        there = (column >= 0) & (column < S) & (row >= 0) & (row < S)
        for c in tl.static_range(3):
            level = tl.load(levels + 3 * (row * S + column) + c, mask=there & (p < S * S), other=0)
            tl.store(out + 3 * p + c, level, mask=p < S * S)


@triton.jit
def _curve_and_hole(levels, threshold, grain, hole, out, S, BLOCK: tl.constexpr):
    """Levels from ``threshold`` on inverted, and rounded down to multiples of ``grain``; and a rectangle filled."""
    top, left, bottom, right = tl.load(hole), tl.load(hole + 1), tl.load(hole + 2), tl.load(hole + 3)
    for first in range(0, S * S, BLOCK):
        p = first + tl.arange(0, BLOCK)
        x, y = p % S, p // S
        filled = (y >= top) & (y < bottom) & (x >= left) & (x < right)
        for c in tl.static_range(3):
            level = tl.load(levels + 3 * p + c, mask=p < S * S, other=0).to(tl.int32)
            level = tl.where(level >= threshold, 255 - level, level)
            level = tl.where(filled, (FILL >> 8 * c) & 255, level - level % grain.to(tl.int32))
            tl.store(out + 3 * p + c, level.to(tl.uint8), mask=p < S * S)


@triton.jit
def _stretch(levels, out, P, BLOCK: tl.constexpr):
    """Each channel from the darkest level that is there to the brightest, as 0 to 255."""
    for c in tl.static_range(3):
        low, high = tl.full((BLOCK,), 255, tl.int32), tl.zeros((BLOCK,), tl.int32)
        for first in range(0, P, BLOCK):
            p = tl.minimum(first + tl.arange(0, BLOCK), P - 1)
            level = tl.load(levels + 3 * p + c).to(tl.int32)
            low, high = tl.minimum(low, level), tl.maximum(high, level)
        least, most = tl.min(low), tl.max(high)
        scale = tl.full((), 255, tl.float64) / tl.maximum(most - least, 1).to(tl.float64)
        for first in range(0, P, BLOCK):
            p = first + tl.arange(0, BLOCK)
            level = tl.load(levels + 3 * p + c, mask=p < P, other=0).to(tl.int32)
            wide = (level.to(tl.float64) * scale - least.to(tl.float64) * scale).to(tl.int32)
            tl.store(out + 3 * p + c, tl.where(most > least, wide, level).to(tl.uint8), mask=p < P)


@triton.jit
def _equalize(levels, out, P, BLOCK: tl.constexpr):
    """Each level by how many pixels of its channel are darker; those of the brightest do not count."""
    level = tl.arange(0, 256)
    for c in tl.static_range(3):
        count = tl.zeros((256,), tl.int32)
        for first in range(0, P, BLOCK):
            p = first + tl.arange(0, BLOCK)
            found = tl.load(levels + 3 * p + c, mask=p < P, other=0).to(tl.int32)
            count += tl.histogram(found, 256, mask=p < P)
        brightest = tl.max(tl.where(count > 0, level, 0))
        width = (P - tl.sum(tl.where(level == brightest, count, 0))) // 255  # pixels for each level
        darker = width // 2 + tl.cumsum(count) - count
        table = tl.where(width > 0, tl.minimum(darker // tl.maximum(width, 1), 255), level)
        for first in range(0, P, BLOCK):
            p = first + tl.arange(0, BLOCK)
            found = tl.load(levels + 3 * p + c, mask=p < P, other=0).to(tl.int32)
            tl.store(out + 3 * p + c, tl.gather(table, found, 0).to(tl.uint8), mask=p < P)


@triton.jit
def _gray(levels, p, inside):
    red = tl.load(levels + 3 * p, mask=inside, other=0).to(tl.int32)
    green = tl.load(levels + 3 * p + 1, mask=inside, other=0).to(tl.int32)
    blue = tl.load(levels + 3 * p + 2, mask=inside, other=0).to(tl.int32)
    return (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16  # ITU-R BT.601


@triton.jit
def _enhance(levels, factor, dull, out, S, BLOCK: tl.constexpr):
    """Moved away by ``factor`` from a duller image: the pixels' own gray, the mean of it, the image smoothed, or black."""
    P = S * S
    mean = 0
    if dull == MEAN:
        total = tl.zeros((BLOCK,), tl.int32)
        for first in range(0, P, BLOCK):
            p = first + tl.arange(0, BLOCK)
            total += _gray(levels, p, p < P)
        mean = ((2 * tl.sum(total.to(tl.int64)) + P) // (2 * P)).to(tl.int32)
    for first in range(0, P, BLOCK):
        p = first + tl.arange(0, BLOCK)
        low = tl.zeros((BLOCK,), tl.int32) + mean
        if dull == OWN:
            low = _gray(levels, p, p < P)
        for c in tl.static_range(3):
            level = tl.load(levels + 3 * p + c, mask=p < P, other=0).to(tl.int32)
            start = low
            if dull == SMOOTH:
                start = _smoothed(levels + c, level, p, S)
            moved = start.to(tl.float32) + factor * (level - start).to(tl.float32)
            moved = tl.minimum(tl.maximum(moved, 0.0), 255.0)
            tl.store(out + 3 * p + c, moved.to(tl.int32).to(tl.uint8), mask=p < P)


@triton.jit
def _smoothed(plane, level, p, S):
    """The mean of 3 x 3 pixels in which the middle one counts five times; the border stays."""
    x, y = p % S, p // S
    inner = (x > 0) & (x < S - 1) & (y > 0) & (y < S - 1)
    total = 4 * level
    for down in tl.static_range(-1, 2):
        for across in tl.static_range(-1, 2):
            total += tl.load(plane + 3 * (p + down * S + across), mask=inner, other=0).to(tl.int32)
    return tl.where(inner, (2 * total + 13) // 26, level)  # thirteenths, rounded
