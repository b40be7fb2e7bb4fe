"""What colours and normalises views on a GPU, in one Triton kernel: DALI's graph has a hundred and fifty small operators for it.

Each of those is launched by itself and passes over the whole batch, and training waited for them (docs/loader.md). The arithmetic
is that of ``exact`` and ``fused`` on the CPU. Of operations one after another (``exact``) one alone looks at the whole image,
contrast, so two passes over its bytes are enough: one that does what comes before contrast, for the mean gray, and one that does
all. Neither keeps anything in between: bytes come from the L2 cache, and to compute again costs less than to write.

Shape letters: N views, S image side, P = S S pixels of a view.
"""

from __future__ import annotations

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from amdim.pipeline.augment import color_jitter, color_jitter_affine
from amdim.pipeline.augment.recipes import Recipe, normalisation
from amdim.pipeline.augment.view_params import ViewParams

RED, GREEN, BLUE = (tl.constexpr(part) for part in color_jitter.LUMA)
UP = tl.constexpr(color_jitter.NUDGE)
BEFORE, STEPS = tl.constexpr(color_jitter.BEFORE), tl.constexpr(2 * color_jitter.BEFORE)
SIXTH = tl.constexpr(1 / 6)
BLOCK, WARPS = 1024, 8  # pixels at a time, four a thread


def coloured(levels: Tensor, drawn: Tensor, color: str) -> Tensor:
    """Views (N, 3, S, S) float16, channels-last; nothing waits for the GPU.

    Args:
        levels: (N, S, S, 3) uint8.
        drawn: (N, columns) float32, a ``table`` on the levels' device.
        color: the recipe's, "exact" or "fused".
    """
    N, S, _, _ = levels.shape
    out = torch.empty(levels.shape, dtype=torch.float16, device=levels.device)
    kernel = _fused if color == "fused" else _exact
    with torch.cuda.device_of(levels):  # no contraction of products and sums, which rounds otherwise than the CPU does
        kernel[(N,)](levels, drawn, out, S * S, drawn.shape[1], BLOCK=BLOCK, num_warps=WARPS, enable_fp_fusion=False)
    return out.permute(0, 3, 1, 2)


def table(recipe: Recipe, draws: ViewParams) -> np.ndarray:
    """A row of float32 a view: shift (3) and scale (3) of the channels, and then what colours it.

    ``exact``: factor, own and mean of the six operations around hue (18), hue, and whether it is grayed. ``fused``: the scaled
    matrices gain (9) and centre (9), rows after one another.
    """
    shift, scale = (np.asarray(part, np.float32) for part in normalisation(recipe))
    shifts = (shift + draws.light / recipe.std).astype(np.float32)
    if recipe.color == "fused":
        parts = [part.astype(np.float32) * scale[:, None] for part in color_jitter_affine.compose(draws.jitter)]
    else:
        chain = color_jitter.chain(draws.jitter)
        parts = [chain.blend, chain.hue, chain.gray]
    rows = [shifts, np.tile(scale, (len(shifts), 1)), *(part.reshape(len(shifts), -1) for part in parts)]
    return np.concatenate(rows, 1, dtype=np.float32, casting="same_kind")


@triton.jit
def _pixels(levels, first, P, BLOCK: tl.constexpr):
    """Where ``BLOCK`` pixels from ``first`` on begin, which of them there are, and their red, green and blue."""
    p = first + tl.arange(0, BLOCK)
    inside = p < P
    red = tl.load(levels + 3 * p, mask=inside, other=0).to(tl.float32)
    green = tl.load(levels + 3 * p + 1, mask=inside, other=0).to(tl.float32)
    blue = tl.load(levels + 3 * p + 2, mask=inside, other=0).to(tl.float32)
    return 3 * p, inside, red, green, blue


@triton.jit
def _gray(red, green, blue):
    return tl.floor(red * RED + green * GREEN + blue * BLUE + 0.5)


@triton.jit
def _wheel(high, chroma, k):
    """A channel's level at k sixths from where it is missing: it rises for one, stays for two and falls for one."""
    k -= 6.0 * tl.floor(k * SIXTH)
    return tl.floor(high - chroma * tl.minimum(tl.maximum(tl.minimum(k, 4.0 - k), 0.0), 1.0) + 0.5)


@triton.jit
def _turned(red, green, blue, turns):
    """Hue turned in HSV: of the six sectors around the gray axis, h says where a pixel is."""
    high = tl.maximum(tl.maximum(red, green), blue)
    chroma = high - tl.minimum(tl.minimum(red, green), blue)
    h = tl.where(green == high, blue - red + 2.0 * chroma, red - green + 4.0 * chroma)
    h = tl.where(red == high, green - blue, h)
    h = tl.div_rn(h, tl.maximum(chroma, 1.0)) + 6.0 * turns
    return _wheel(high, chroma, h + 5.0), _wheel(high, chroma, h + 3.0), _wheel(high, chroma, h + 1.0)


@triton.jit
def _operated(red, green, blue, drawn, mean, end):
    """The operations before the ``end``-th of six, hue among them; ``mean`` is the gray that contrast turns about."""
    for step in tl.static_range(STEPS):
        if step == BEFORE:
            turns = tl.load(drawn + 18)
            if (turns != 0) & (end >= BEFORE):
                red, green, blue = _turned(red, green, blue, turns)
        factor, own, lift = tl.load(drawn + 3 * step), tl.load(drawn + 3 * step + 1), tl.load(drawn + 3 * step + 2)
        if (step < end) & ((factor != 1) | (own != 0) | (lift != 0)):
            add = (lift * mean + UP) + own * _gray(red, green, blue)
            red = tl.minimum(tl.maximum(tl.floor(factor * red + add), 0.0), 255.0)
            green = tl.minimum(tl.maximum(tl.floor(factor * green + add), 0.0), 255.0)
            blue = tl.minimum(tl.maximum(tl.floor(factor * blue + add), 0.0), 255.0)
    return red, green, blue


@triton.jit
def _store(out, place, inside, row, red, green, blue):
    """``shift + scale x`` of each channel, in half precision."""
    red = tl.load(row) + tl.load(row + 3) * red
    green = tl.load(row + 1) + tl.load(row + 4) * green
    blue = tl.load(row + 2) + tl.load(row + 5) * blue
    tl.store(out + place, red.to(tl.float16), mask=inside)
    tl.store(out + place + 1, green.to(tl.float16), mask=inside)
    tl.store(out + place + 2, blue.to(tl.float16), mask=inside)


@triton.jit
def _exact(levels, table, out, P, columns, BLOCK: tl.constexpr):
    view = tl.program_id(0).to(tl.int64)
    row = table + view * columns
    drawn = row + 6
    levels += view * 3 * P
    out += view * 3 * P
    contrast = STEPS
    for step in tl.static_range(STEPS):
        contrast = tl.where(tl.load(drawn + 3 * step + 2) != 0, step, contrast)
    mean = 0.0
    if contrast < STEPS:
        total = tl.zeros((BLOCK,), tl.int32)
        for first in range(0, P, BLOCK):
            _, inside, red, green, blue = _pixels(levels, first, P, BLOCK)
            red, green, blue = _operated(red, green, blue, drawn, 0.0, contrast)
            total += tl.where(inside, _gray(red, green, blue), 0.0).to(tl.int32)
        mean = ((2 * tl.sum(total.to(tl.int64)) + P) // (2 * P)).to(tl.float32)  # whole levels: exact, and so is its rounding
    grayed = tl.load(drawn + 19) != 0
    for first in range(0, P, BLOCK):
        place, inside, red, green, blue = _pixels(levels, first, P, BLOCK)
        red, green, blue = _operated(red, green, blue, drawn, mean, STEPS)
        if grayed:
            gray = _gray(red, green, blue)
            red, green, blue = gray, gray, gray
        _store(out, place, inside, row, red, green, blue)


@triton.jit
def _weighed(weights, red, green, blue):
    return tl.load(weights) * red + tl.load(weights + 1) * green + tl.load(weights + 2) * blue


@triton.jit
def _mean(levels, P):
    return (tl.sum(levels).to(tl.float64) / P).to(tl.float32)


@triton.jit
def _fused(levels, table, out, P, columns, BLOCK: tl.constexpr):
    view = tl.program_id(0).to(tl.int64)
    row = table + view * columns
    gain, centre = row + 6, row + 15
    levels += view * 3 * P
    out += view * 3 * P
    reds, greens, blues = tl.zeros((BLOCK,), tl.int64), tl.zeros((BLOCK,), tl.int64), tl.zeros((BLOCK,), tl.int64)
    for first in range(0, P, BLOCK):
        _, _, red, green, blue = _pixels(levels, first, P, BLOCK)
        reds += red.to(tl.int64)
        greens += green.to(tl.int64)
        blues += blue.to(tl.int64)
    m_red, m_green, m_blue = _mean(reds, P), _mean(greens, P), _mean(blues, P)
    shift_red = tl.load(row) + _weighed(centre, m_red, m_green, m_blue)
    shift_green = tl.load(row + 1) + _weighed(centre + 3, m_red, m_green, m_blue)
    shift_blue = tl.load(row + 2) + _weighed(centre + 6, m_red, m_green, m_blue)
    for first in range(0, P, BLOCK):
        place, inside, red, green, blue = _pixels(levels, first, P, BLOCK)
        tl.store(out + place, (shift_red + _weighed(gain, red, green, blue)).to(tl.float16), mask=inside)
        tl.store(out + place + 1, (shift_green + _weighed(gain + 3, red, green, blue)).to(tl.float16), mask=inside)
        tl.store(out + place + 2, (shift_blue + _weighed(gain + 6, red, green, blue)).to(tl.float16), mask=inside)
