"""``partition`` in Triton: scores live in registers, and neither they nor their exponentials pass through memory.

``sums`` scores a tile of sources against a tile of targets and reduces it at once. ``score_gradients`` makes the scores of some
images again and writes their gradient to a bounded workspace, because the two products that follow are the library's best case.
A kernel that multiplied at once would have to hold 128 x R float32 sums, more than a processor's shared memory from R = 512 on.

Deterministic: no atomics, every tile writes its own partial sums and torch adds them up in a second reduction.

Tested everywhere: the arithmetic, in Triton's interpreter on a CPU, and that it compiles for sm_80, sm_90 and sm_100 without
register spills. `make gpu-check` tests it on a GPU, and has on an H200, but for the tile of ``sums`` (docs/results.md). A GPU's
own ``exp`` is 2^y with y = u log2(e) in float32, so its relative error should grow with |u|, to some 5e-6 at e^{-70}, where
torch's stays near 1e-7.

Shape letters: M sources, B images, b images of a slice, L locations, R embedding width; all (b, L) of a slice are columns.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

# The interpreter's dot takes bfloat16 for the integers that hold its bits. Float32 holds half-precision products exactly.
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


class Shape(NamedTuple):
    """Rows, columns and depth of a tile, and how it is compiled."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int


# 64 sums of the tile a thread, or 32 where an epilogue longer than that of ``sums`` made registers spill. On an H200 half the
# warps and a stage more were 1.1 to 1.5 times as fast for ``sums``, and no faster for gradients (docs/step.md). At most 96 KB of
# shared memory.
SUMS, GRADIENTS = Shape(128, 64, 64, 4, 4), Shape(128, 64, 64, 8, 3)
# Without tensor cores, as TF32 would not be float32, a thread holds operands too: half the tile.
FULL = Shape(64, 64, 32, 4, 2)

WORKSPACE = 2**25  # scores a workspace: 64 MB in half precision
PARTIALS = 512  # column tiles a launch: partial sums then take 4 KB a source, less than the source at R = 2560
GROUP = 8  # row tiles that walk along the columns together, so that both operands of neighbours come from the L2 cache


def images_a_tile(M: int, L: int) -> int:
    """How many images a call of ``score_gradients`` should take; a multiple of 16 where possible, which keeps the rows of all
    workspaces but the last aligned.
    """
    images = max(1, WORKSPACE // max(1, M * L))
    return images - images % 16 if images > 16 else images


def sums(sources: Tensor, owner: Tensor, targets: Tensor, clip: float) -> tuple[Tensor, Tensor, Tensor]:
    """What the objective needs of all scores x = <source, target> / sqrt(R), softly clipped to s = c tanh(x / c).

    Args:
        sources: (M, R), of float32, float16 or bfloat16.
        owner: (M,) int64, the image of B that a source belongs to; one outside [0, B) has its positives elsewhere.
        targets: (B, L, R), of the sources' type.
        clip: c, in (0, 35].

    Returns:
        In float32: N (M,), the sum of e^{s-c} over other images than the owner; s - c (M, L) of the owner's, 0 without one;
        the sum of x^2 ().

    Raises:
        ValueError: for another type.
    """
    (M, R), (B, L, _) = sources.shape, targets.shape
    sources, owner, targets = sources.contiguous(), owner.contiguous(), targets.contiguous()
    shape = shape_of(sources.dtype, SUMS)
    negatives, squares = sources.new_zeros(M, dtype=torch.float32), sources.new_zeros((), dtype=torch.float32)
    positives = sources.new_zeros(M, L, dtype=torch.float32)
    images = max(1, PARTIALS * shape.columns // L)
    for first in range(0, B, images):
        some = targets[first : first + images]
        grid = _grid(shape, M, len(some) * L)
        partial, partial_squares = (sources.new_empty(grid[0], M, dtype=torch.float32) for _ in range(2))
        with torch.cuda.device_of(sources):
            _sums[grid](
                sources, owner, some, partial, partial_squares, positives,
                M, len(some) * L, L, R, first, R**-0.5, clip,
                **_compiled_as(shape),
            )  # fmt: skip
        negatives += partial.sum(0)
        squares += partial_squares.sum()
    return negatives, positives, squares


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
    """From the gradients of the three ``sums`` to that of the products <source, target>, for the images of a slice.

    Args:
        sources, owner, targets, clip: as given to ``sums``.
        images: start and stop, step 1, within [0, B].
        d_negatives, d_positives, d_squares: (M,), (M, L) and ().

    Returns:
        (M, b L), of the sources' type: times targets it is the gradient of the sources, transposed times sources that of targets.
    """
    (M, R), (_, L, _) = sources.shape, targets.shape
    some, shape = targets[images].contiguous(), shape_of(sources.dtype, GRADIENTS)
    columns = len(some) * L
    gradients = sources.new_empty(M, columns)
    upstream = [d.float().contiguous() for d in (d_negatives, d_positives, d_squares)]
    with torch.cuda.device_of(sources):
        _score_gradients[_grid(shape, M, columns)](
            sources.contiguous(), owner.contiguous(), some, *upstream, gradients,
            M, columns, L, R, images.start, R**-0.5, clip,
            **_compiled_as(shape),
        )  # fmt: skip
    return gradients


def shape_of(dtype: torch.dtype, half: Shape) -> Shape:
    """A kernel's tile, which is ``half`` in half precision."""
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise ValueError(f"{dtype}: Triton's form takes float32, float16 and bfloat16; implementation='torch' takes it")
    return FULL if dtype is torch.float32 else half


def _grid(shape: Shape, M: int, columns: int) -> tuple[int, int]:
    return triton.cdiv(columns, shape.columns), triton.cdiv(M, shape.rows)


def _compiled_as(shape: Shape) -> dict[str, int]:
    tile = {"BM": shape.rows, "BN": shape.columns, "BK": shape.depth, "GROUP": GROUP}
    return tile | {"num_warps": shape.warps, "num_stages": shape.stages}


@triton.jit
def _tile(GROUP: tl.constexpr):
    """Which row tile and column tile this program makes."""
    return tl.swizzle2d(tl.program_id(1), tl.program_id(0), tl.num_programs(1), tl.num_programs(0), GROUP)


@triton.jit
def _scores(sources, targets, row, column, M, columns, R, scale, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """Raw scores of the tile at (row, column). Beyond the edges they are those of the last row and column: callers mask them.

    A tile's own offsets fit 32 bits; where it begins may not, and is added to the pointers.
    """
    m = tl.minimum(tl.arange(0, BM), M - 1 - row)
    n = tl.minimum(tl.arange(0, BN), columns - 1 - column)
    k = tl.arange(0, BK)
    left = sources + row.to(tl.int64) * R + (m[:, None] * R + k[None, :])
    right = targets + column.to(tl.int64) * R + (n[None, :] * R + k[:, None])
    product = tl.zeros((BM, BN), tl.float32)
    for start in range(0, R, BK):
        inside = k < R - start
        a = tl.load(left, mask=inside[None, :], other=0.0)
        b = tl.load(right, mask=inside[:, None], other=0.0)
        if INTERPRETED:
            a, b = a.to(tl.float32), b.to(tl.float32)
        product = tl.dot(a, b, product, input_precision="ieee")
        left += BK
        right += BK
    return product * scale


@triton.jit
def _locations(owner, row, column, M, columns, L, first, BM: tl.constexpr, BN: tl.constexpr):
    """Which location of its row's owner each score of a tile is, and whether it is one at all, that is a positive.

    One subtraction a score; without divisions, and without numbers that a thread would have to hold for each column.
    """
    m = row + tl.arange(0, BM)
    own = tl.load(owner + m, mask=m < M, other=-1) - first
    own = tl.where((own >= 0) & (own < columns // L), own, -1).to(tl.int32)  # the locations of -1 are L and beyond
    location = (column + tl.arange(0, BN))[None, :] - (own * L)[:, None]
    return location, (location >= 0) & (location < L)


@triton.jit(do_not_specialize=["M", "L", "first"])
def _sums(
    sources, owner, targets, partial, partial_squares, positives,
    M, columns, L, R, first, scale, clip,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    row_tile, column_tile = _tile(GROUP)
    row, column = row_tile * BM, column_tile * BN
    x = _scores(sources, targets, row, column, M, columns, R, scale, BM, BN, BK)
    m, n = tl.arange(0, BM), tl.arange(0, BN)
    valid = (column + n < columns)[None, :]
    place = column_tile.to(tl.int64) * M + row + m
    tl.store(partial_squares + place, tl.sum(tl.where(valid, x * x, 0.0), 1), mask=row + m < M)
    shifted = tl.where(valid, tl.sigmoid(x * (-2 / clip)) * (-2 * clip), float("-inf"))
    location, positive = _locations(owner, row, column, M, columns, L, first, BM, BN)
    tl.store(positives + row.to(tl.int64) * L + (m[:, None] * L + location), shifted, mask=positive)
    shifted = tl.where(positive, float("-inf"), shifted)
    tl.store(partial + place, tl.sum(tl.exp(shifted), 1), mask=row + m < M)


@triton.jit(do_not_specialize=["M", "L", "first"])
def _score_gradients(
    sources, owner, targets, d_negatives, d_positives, d_squares, gradients,
    M, columns, L, R, first, scale, clip,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    row_tile, column_tile = _tile(GROUP)
    row, column = row_tile * BM, column_tile * BN
    x = _scores(sources, targets, row, column, M, columns, R, scale, BM, BN, BK)
    m, n = tl.arange(0, BM), tl.arange(0, BN)
    q = tl.sigmoid(x * (-2 / clip))
    d_u = tl.exp(q * (-2 * clip)) * tl.load(d_negatives + row + m, mask=row + m < M, other=0.0)[:, None]
    location, positive = _locations(owner, row, column, M, columns, L, first, BM, BN)
    d_positive = tl.load(d_positives + row.to(tl.int64) * L + (m[:, None] * L + location), mask=positive, other=0.0)
    d_u = tl.where(positive, d_positive, d_u)
    d_x = d_u * (4 * q * (1 - q)) + 2 * tl.load(d_squares) * x
    places = gradients + row.to(tl.int64) * columns + column + (m[:, None] * columns + n[None, :])
    inside = (row + m < M)[:, None] & (column + n < columns)[None, :]
    tl.store(places, (d_x * scale).to(gradients.dtype.element_ty), mask=inside)
